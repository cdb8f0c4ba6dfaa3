# SPDX-License-Identifier: Apache-2.0
"""What runtimes make of a pruned network, and how that is found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from onnx import ModelProto, TensorProto

from graphprune.checks import check_fields
from graphprune.errors import UsageError
from graphprune.model.validity.survey import survey
from graphprune.verification.rounding import ROUNDING

if TYPE_CHECKING:
    from graphprune.plan.schema import Timing

__all__ = ["DeployOptions", "Deployment", "RuntimeCheck", "RuntimeOutcome", "number_format", "rounding_allowance"]

Status = Literal["ok", "differs", "fails"]
StoredFormat = Literal["fp32", "int8", "fp16"]


@dataclass(frozen=True)
class DeployOptions:
    """How runtimes are checked.

    Parameters
    ----------
    runtimes : sequence of str
        By default all that are known; what is not installed is an entry without outcomes.
    input_shapes : mapping of str to tuple of int
        Sizes of inputs whose dimensions are open.
    samples : int
        How many inputs are run and compared.
    tolerance : float, optional
        The largest difference that counts as rounding, relative to the largest value of an output. By default what
        :func:`rounding_allowance` says of each network.
    timing : bool
        Whether networks that work are timed against the original.
    patience : float
        Seconds that each step of a runtime may take.
    seed : int
        Of inputs that are drawn.
    """

    runtimes: Sequence[str] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    samples: int = 2
    tolerance: float | None = None
    timing: bool = True
    patience: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.samples < 1 or not (self.tolerance is None or self.tolerance > 0) or not self.patience > 0:
            raise UsageError("samples, tolerance and patience must be larger than 0")


def rounding_allowance(proto: ModelProto) -> float:
    """Return how far runtimes may be apart that compute the same network, relative to the largest value of an output.

    A sum that is rounded to 8 bits falls on either side of a tie by its last digit, which is then a step of 1/255, and
    layers behind it carry such steps on; in float16 a step is 1/2048.
    """
    return _ALLOWED[number_format(proto)]


_ALLOWED: Mapping[StoredFormat, float] = {"int8": 5e-2, "fp16": 1e-2, "fp32": 1e-3}


def number_format(proto: ModelProto) -> StoredFormat:
    """Return in what a network is stored: 8-bit integers if it rounds to them, float16 if some of its weights are."""
    held = survey(proto)
    if any(node.op_type in ROUNDING for node in held.nodes):
        return "int8"
    half = any(entry.tensor.data_type == TensorProto.FLOAT16 for entry in held.tensors)
    return "fp16" if half else "fp32"


@dataclass(frozen=True)
class RuntimeOutcome:
    """What a runtime makes of one network.

    Attributes
    ----------
    status : {"ok", "differs", "fails"}
    error : float or None
        The largest difference from onnxruntime, relative to the largest value of the output.
    step : {"", "convert", "load", "run"}
        In which it fails.
    reason : str
        Why, in its own words.
    """

    status: Status
    error: float | None = None
    step: str = ""
    reason: str = ""


@dataclass(frozen=True)
class RuntimeCheck:
    """What a runtime makes of a pruned network and of its original.

    Attributes
    ----------
    runtime, version : str
    missing : str
        What is not installed; there are no outcomes then.
    advice : str
        How that is got, where it is known.
    takes : bool
        Whether the runtime is known to take files that are stored as the pruned network is.
    pruned, dense : RuntimeOutcome or None
    timing : Timing or None
        Of both, where both work.
    """

    runtime: str
    version: str = ""
    missing: str = ""
    pruned: RuntimeOutcome | None = None
    dense: RuntimeOutcome | None = None
    timing: Timing | None = None
    advice: str = ""
    takes: bool = True

    @property
    def is_worse(self) -> bool:
        """Whether the original works and the pruned network does not."""
        outcomes = self.dense, self.pruned
        return all(outcomes) and [one.status == "ok" for one in outcomes if one] == [True, False]


@dataclass(frozen=True)
class Deployment:
    """What all runtimes make of a pruned network.

    Attributes
    ----------
    checks : tuple of RuntimeCheck
    inputs : dict of str to tuple of int
        The sizes for which they were checked.
    fed : str
        What was fed to them.
    lowered : {"", "int8", "fp16"}
        In what the pruned network is stored, where the original is stored in something else.
    """

    checks: tuple[RuntimeCheck, ...]
    inputs: dict[str, tuple[int, ...]]
    fed: str
    lowered: Literal["", "int8", "fp16"] = ""

    @property
    def worse(self) -> tuple[str, ...]:
        """The runtimes in which the original works and the pruned network does not."""
        return tuple(check.runtime for check in self.checks if check.is_worse)

    @property
    def without_format(self) -> tuple[str, ...]:
        """Those of them that take no network stored like this one, pruned or not."""
        return tuple(check.runtime for check in self.checks if check.is_worse and not check.takes)
