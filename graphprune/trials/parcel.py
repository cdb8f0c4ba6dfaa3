# SPDX-License-Identifier: Apache-2.0
"""Parcels: files that work needs, for machines that may not have them.

A worker takes what lies at the same place there and has the same sizes, as on a file system that machines share;
where nothing does, it unpacks what was sent.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from graphprune.errors import DataError, quote

if TYPE_CHECKING:
    from graphprune.model.load import Model

__all__ = ["Parcel"]

_MOST: Final = 1 << 30
"""Bytes that are sent; larger files have to lie where all machines see them."""


@dataclass(frozen=True)
class Parcel:
    """A file with others beside it, or a folder.

    Parameters
    ----------
    path : Path
        Where it is on the machine that asks, absolute.
    sizes : mapping of str to int
        Bytes of each of its files, by their path within the folder that the file or folder lies in.
    contents : mapping of str to bytes
        What they hold; empty where they are not sent.
    """

    path: Path
    sizes: dict[str, int]
    contents: dict[str, bytes]

    @classmethod
    def of(cls, path: Path, *, sent: bool, beside: tuple[Path, ...] = ()) -> Parcel:
        """Return the parcel of a file or folder.

        Parameters
        ----------
        path : Path
        sent : bool
            Whether the files travel, if they are no more than a gibibyte.
        beside : tuple of Path
            Files that it refers to, beside it or below.
        """
        path = path.absolute()
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path, *beside]
        names = {os.path.relpath(file, path.parent): file for file in files}
        sizes = {name: file.stat().st_size for name, file in names.items()}
        sent = sent and sum(sizes.values()) <= _MOST
        return cls(path, sizes, {name: file.read_bytes() for name, file in names.items()} if sent else {})

    @classmethod
    def of_model(cls, model: Model, *, sent: bool) -> Parcel:
        """Return the parcel of a model's file, with its external data; of one in memory, of what would be its file."""
        if model.path is None:
            name = f"{model.name}.onnx"
            content = model.proto.SerializeToString()
            return cls(Path(os.sep, "nowhere", name), {name: len(content)}, {name: content})
        folder = model.path.absolute().parent
        return cls.of(model.path, sent=sent, beside=tuple(folder / name for name in model.tensors.files))

    def opened(self, folder: Path) -> Path:
        """Return where the file or folder is on this machine.

        Parameters
        ----------
        folder : Path
            Where it is unpacked, if it has to be.

        Raises
        ------
        DataError
            If it is neither there nor sent.
        """
        places = [(self.path.parent / name, size) for name, size in self.sizes.items()]
        if all(place.is_file() and place.stat().st_size == size for place, size in places):
            return self.path
        if not self.contents:
            raise DataError(
                f"a worker on {quote(socket.gethostname())} has no {quote(str(self.path))}, or another one",
                hint="put it where all machines see it at the same place; up to 1 GiB is sent",
            )
        for name, content in self.contents.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return folder / self.path.name
