# SPDX-License-Identifier: Apache-2.0
"""Reading what others wrote: whatever a reader of a format raises on a damaged or hostile file becomes one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from graphprune.errors import DataError, GraphPruneError, InputError, clipped, quote

__all__ = ["check_unfolding", "read_small", "reading"]

_ALWAYS_ALLOWED: Final = 1 << 28
_RATIO: Final = 100


@contextmanager
def reading(
    name: str, kind: str = "", error: type[InputError] = DataError, *, hint: str | None = None
) -> Iterator[None]:
    """Turn what a reader raises into an error that names the file.

    Readers of formats let through whatever the libraries below them raise: `TokenError` from a header, `zlib.error`,
    `RuntimeError` for a password, `NotImplementedError` for a compression, `RecursionError`, `MemoryError`.

    Parameters
    ----------
    name : str
        The file, quoted.
    kind : str
        What it should be: ``"as an image"``.
    error : type
        What to raise; :class:`~graphprune.errors.DataError` for samples.
    hint : str, optional
        What to do about it.
    """
    try:
        yield
    except GraphPruneError:
        raise
    except Exception as caught:  # see above: readers raise whatever they like
        said = repr(clipped(str(caught)) or type(caught).__name__)
        raise error(" ".join(filter(None, (name, "cannot be read", kind))) + f": {said}", hint=hint) from caught


def read_small(path: Path, most: int, error: type[InputError]) -> bytes:
    """Return the bytes of a file that may have at most `most` of them."""
    name = quote(str(path))
    with reading(name, error=error), path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise error(
            f"{name} has more than {most} bytes, the limit for such a file",
            hint="leave out what is none of its entries",
        )
    return data


def check_unfolding(name: str, declared: int, present: int) -> None:
    """Refuse an archive that would become far more than it holds.

    Parameters
    ----------
    declared, present : int
        Bytes that its members say they have, and bytes of the file.
    """
    if declared > max(_ALWAYS_ALLOWED, _RATIO * present):
        raise DataError(
            f"{name} has {present} bytes and would unfold into {declared}",
            hint="if it is trustworthy, unfold it: numpy.savez or numpy.save write arrays without compression",
        )
