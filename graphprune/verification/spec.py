# SPDX-License-Identifier: Apache-2.0
"""What the parent tells the child process of a comparison: which files there are, and what is compared how.

Both sides know these types; importing them loads neither onnx nor onnxruntime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from graphprune.verification.limits import RELATIVE

__all__ = ["DRAWS", "REFERENCE", "SOURCE", "WRITTEN", "FedInput", "PieceSpec", "Shapes", "Spec", "TensorSpec"]

WRITTEN = "written.onnx"
"""The very file that will be written."""
SOURCE = "source.onnx"
"""The original in its own types."""
REFERENCE = "reference.onnx"
"""What gives the expected outputs: the masked original in one piece."""

DRAWS = 4
"""How many draws of inputs are tried, where a model runs with some only."""

Shapes = dict[str, list[int]]
"""Sizes of every graph input."""

_FILE = "spec.json"


@dataclass(frozen=True)
class FedInput:
    """A graph input: its sizes and the name of its numpy type in the comparison, and in the file if that is another.

    `value` is what all its integers have to be for the model to run, where only one number fits.
    """

    shape: list[int]
    dtype: str
    own: str = ""
    value: int | None = None


@dataclass(frozen=True)
class TensorSpec:
    """How one tensor is compared.

    Attributes
    ----------
    name : str
        In the masked original.
    own : str
        In the pruned model: where it is cut, what it computes itself has a name of its own.
    piece : int
        In which piece of the models it is made.
    compare : bool
        False behind operators whose result jumps.
    end : bool
        Whether the effect of masking is measured at it.
    behind : bool
        Whether it is a rounded value, or depends on one.
    cut : str
        How a rounded value is compared ("few", "all", "float"); empty for others.
    grain : float
        Relative precision of the coarsest float type on the way to it.
    """

    name: str
    own: str = ""
    piece: int = 0
    compare: bool = True
    end: bool = False
    behind: bool = False
    cut: str = ""
    grain: float = 0.0

    @property
    def stepped(self) -> bool:
        """Whether it consists of rounded values, of which a few may differ by a step."""
        return self.cut in ("few", "all")


@dataclass(frozen=True)
class PieceSpec:
    """A part of a model: its file, the values that it is fed with, and those that it gives to later pieces."""

    file: str
    needs: list[str] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Spec:
    """A comparison.

    Attributes
    ----------
    inputs : dict of str to FedInput
    tensors : list of TensorSpec
    outputs : list of str
        All graph outputs.
    jumping : list of str
        Outputs of which not even the shape is certain.
    masked, pruned : list of PieceSpec
        The models with all tensors as outputs, cut into pieces that fit into memory.
    ends : str
        File of the pruned model with what extreme inputs are compared at; empty if these are its outputs, so that
        the file that is written serves.
    in_pieces : bool
        Whether memory holds no model as a whole: then what else would be looked at in one piece is in these, too.
    lean : bool
        Whether values or weights are large, so that memory goes back to the system after each run, and what is
        needed later is opened later.
    brief : bool
        Whether values are so large that one kind of inputs is compared, and the file is run without optimisation,
        which lays values out anew.
    optimised : bool
        Whether the masked original is optimised where only its ends are looked at: not where values are rounded.
    plain : bool
        Whether the file can be fed from numpy.
    plain_values : bool
        Whether it is held to values, and not only to shapes: not where values are rounded.
    widened : bool
        Whether copies in another type are compared.
    grain : float
        How far, relatively, an input is moved at least to see what rounding does.
    relative : float
        What counts as rounding.
    chaotic : bool
        Whether what rounding moves far is not judged at all.
    switches : list of str
        Inputs that force their way into branches.
    branches : list of list of list of str
        Which of them are true on every way into pruned branches; ways that can be taken at once are together.
    reference, source : str
        Files of what gives the expected outputs, and of the original.
    seed : int
        Of the inputs that are drawn.
    sizes : list of Shapes
        Second sizes of open dimensions: all at once, then one by one for the case that the original refuses that.
    device : {"cpu", "cuda"}
        Where all of them run.
    """

    inputs: dict[str, FedInput]
    tensors: list[TensorSpec]
    outputs: list[str] = field(default_factory=list)
    jumping: list[str] = field(default_factory=list)
    masked: list[PieceSpec] = field(default_factory=lambda: [PieceSpec("masked.onnx")])
    pruned: list[PieceSpec] = field(default_factory=lambda: [PieceSpec("pruned.onnx")])
    ends: str = ""
    in_pieces: bool = False
    lean: bool = False
    brief: bool = False
    optimised: bool = True
    plain: bool = True
    plain_values: bool = True
    widened: bool = False
    grain: float = 0.0
    relative: float = RELATIVE
    chaotic: bool = False
    switches: list[str] = field(default_factory=list)
    branches: list[list[list[str]]] = field(default_factory=list)
    reference: str = REFERENCE
    source: str = SOURCE
    seed: int = 0
    sizes: list[Shapes] = field(default_factory=list)
    device: Literal["cpu", "cuda"] = "cpu"

    def write(self, folder: Path) -> None:
        """Leave it for the child."""
        (folder / _FILE).write_text(json.dumps(self, default=vars), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what the parent has left."""
        given: Mapping[str, Any] = json.loads((folder / _FILE).read_text("utf-8"))
        return cls(
            **{
                **given,
                "inputs": {name: FedInput(**item) for name, item in given["inputs"].items()},
                "tensors": [TensorSpec(**item) for item in given["tensors"]],
                "masked": [PieceSpec(**item) for item in given["masked"]],
                "pruned": [PieceSpec(**item) for item in given["pruned"]],
            }
        )
