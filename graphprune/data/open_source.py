# SPDX-License-Identifier: Apache-2.0
"""From the text of ``--data`` or ``--calib`` to a source.

==============================  ==================================================================
``images/``                     a folder of images, flat, or with one folder per class
``samples.npz``                 arrays by input name, ready to feed; perhaps ``labels``
``samples.npy``                 one array, for a model with one input
``package.module:function``     a function that returns an iterable of input dicts (and targets)
``torchvision:CIFAR10:test``    a dataset that is on disk already
==============================  ==================================================================

8-bit images, in files or arrays, are normalised by the preprocessing; all other arrays are fed as they are.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.data.arrays import open_npy, open_npz
from graphprune.data.callables import open_function, open_torchvision
from graphprune.data.image_folder import open_folder
from graphprune.data.preprocessing import Preprocessing
from graphprune.errors import DataError, UsageError, near_file, quote
from graphprune.regular_file import check_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.data.preprocessing import ImageInput
    from graphprune.data.signature import InputSpec
    from graphprune.data.source import Source

__all__ = ["open_source"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MADE = "synthetic:"
_FORMS = "a folder of images, an .npz or .npy file, package.module:function, or torchvision:NAME"


def open_source(text: str, specs: Sequence[InputSpec], preprocessing: Preprocessing | None = None) -> Source:
    """Return the samples that a text names.

    Parameters
    ----------
    text : str
        See the table above.
    specs : sequence of InputSpec
        The inputs of the model, from :func:`graphprune.data.signature.input_specs`.
    preprocessing : Preprocessing, optional
        Of 8-bit images.

    Raises
    ------
    DataError
        If there is nothing to read, or it does not fit the model.
    UsageError
        If the text names nothing that can be read.
    """
    preprocessing = preprocessing or Preprocessing()
    path = Path(text)
    if not text:
        raise UsageError("the data is an empty text", hint=f"give {_FORMS}")
    if path.is_dir():
        return open_folder(path, _image(specs, preprocessing, text))
    if path.exists():
        check_regular(path, DataError)
    if path.suffix in (".npz", ".npy"):
        if not path.is_file():
            raise DataError(f"{quote(text)} does not exist or is no file", hint=near_file(path))
        return (open_npz if path.suffix == ".npz" else open_npy)(path, specs, preprocessing)
    if text.startswith("torchvision:"):
        return open_torchvision(text, _image(specs, preprocessing, text))
    if text.startswith(_MADE) and find_spec(_MADE[:-1]) is None:
        raise UsageError(f"{quote(text)} says nothing of samples to make", hint="give synthetic[:fine][:N]")
    if _FUNCTION.fullmatch(text):
        return open_function(text, specs, preprocessing)
    what = "is not data that can be read" if path.exists() else "does not exist"
    raise DataError(f"{quote(text)} {what}", hint=near_file(path) or f"give {_FORMS}")


def _image(specs: Sequence[InputSpec], preprocessing: Preprocessing, text: str) -> ImageInput:
    """Return the one input that takes images."""
    if len(specs) != 1:
        raise DataError(
            f"{quote(text)} holds images, but the model has {len(specs)} inputs",
            hint="give all of them in an .npz file, or by package.module:function",
        )
    return preprocessing.for_input(specs[0])
