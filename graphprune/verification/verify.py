# SPDX-License-Identifier: Apache-2.0
"""Verification compares the pruned model with the masked original.

Both run in onnxruntime, in a child process with limits (a model is untrusted input), without
graph optimisation. Outputs and all intermediate tensors that both have are compared on their
kept slices, each against its own noise floor: how far the masked original itself moves when its
input changes by rounding. Then the very file that will be written is run as its users run it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from onnx import TensorProto

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.data.providers import verifying
from graphprune.errors import GraphPruneError, UnsupportedModelError, quote
from graphprune.labels.vector import Labels
from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import ChildError, run_child
from graphprune.model.files.main_memory import main_memory
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.load import Model
from graphprune.model.sizes.size_memory import UnfitError
from graphprune.model.widen_floats import NARROW
from graphprune.notebook import html_table
from graphprune.report import text
from graphprune.surgery.slices import Kept, Slices
from graphprune.verification.causes import blame
from graphprune.verification.check_runs import check_runs
from graphprune.verification.layout import lay_out
from graphprune.verification.oracle import bare_oracle, build_oracle
from graphprune.verification.question import MOST_RUN, Question
from graphprune.verification.room import room_needed
from graphprune.verification.smaller_sizes import count_elements, smaller_sizes

__all__ = ["EXACT", "Verification", "verify_equal", "verify_pruned", "verify_widened"]


_WIDENED = "compared as float32 copies of both models: onnxruntime cannot run all operators in their own type here"
_MOVES_NOTHING = 1e-3
_COARSE = 1e-6
_TAMED = "so such values were set to zero where they arise, in both models"
_MOST_NAMED = 3
_CHAOTIC = (
    "this network makes much of rounding: tensors were held to how far a change of its input by 1e-6 moves them, "
    "and not at all where that is far"
)
_BRIEF = (
    "since values of this size take much time and memory, both models were compared with one kind of inputs, and the "
    "file was run without onnxruntime's optimisation of graphs"
)
_EXTREMES = {"zeros": "inputs of zeros", "large": "inputs ten times as large"}
_PER_TIMEOUT = 2e10
"""Bytes of a model that take as long once more."""
_OF_CUDA = 8 << 30
"""Bytes of main memory that the libraries of CUDA and cuDNN may take for themselves."""
EXACT = 1e-5
"""What is allowed between tensors that should be the same."""


@dataclass(frozen=True, repr=False)
class Verification:
    """The outcome of a comparison with the masked original.

    Attributes
    ----------
    status : str
        "verified"; "vacuous" where all agrees but masking hardly moves the outputs, so that
        agreement proves nothing; "failed"; "surgery" where only the weights of a file are others, and what the
        surgery makes was verified instead.
    error : float
        Largest deviation, relative to the largest absolute value of the tensor.
    tolerance : float
        What was allowed for that tensor.
    tensor : str
        The tensor with the largest deviation in units of its tolerance.
    effect : float
        How far masking moved the outputs, relative: a check that moves nothing proves nothing.
    compared : int
        Number of tensors compared.
    note : str
        What else there is to know: whether copies in another type were compared.
    lossless : bool
        Whether it is the original itself, without masks, whose outputs the pruned model's equal.
    sizes : int
        With how many sizes of its inputs the very file was run as its users run it.
    """

    status: str
    error: float
    tolerance: float
    tensor: str
    effect: float
    compared: int
    note: str = ""
    lossless: bool = False
    sizes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing deviates."""
        return self.status != "failed"

    @property
    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            ("compared", text.plural(self.compared, "tensor")),
            ("largest deviation", f"{self.error:.1e} ({self.tolerance:.1e} allowed)"),
            ("masking moves the outputs by", f"{100 * self.effect:.3g} %"),
        ]
        return facts + ([("note", self.note)] if self.note else [])

    def __repr__(self) -> str:
        return f"Verification({self.status}: {'; '.join(f'{name} {value}' for name, value in self._facts)})"

    def _repr_html_(self) -> str:
        return html_table(f"Verification: {self.status}", (), self._facts)


def verify_pruned(analysis: Analysis, pruned: Model, keep: Mask, *, timeout: float = 900.0) -> Verification:
    """Compare a pruned model with the masked original.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    pruned : Model
    keep : ndarray of bool, shape (atoms,)
        Which atoms stay.
    timeout : float
        Seconds after which the child process is ended.

    Raises
    ------
    VerificationError
        If one of the models does not run, or not in time.
    UnsupportedModelError
        If the original does not run with sizes that were assumed for open dimensions.
    """
    kept = Kept(analysis, keep)
    question = Question(analysis, pruned, kept, build_oracle(analysis, kept.mask), removed=not kept.all)
    return _in_a_size(question, timeout, kept.mask)


def verify_equal(analysis: Analysis, pruned: Model, keep: Mask, *, timeout: float = 900.0) -> Verification:
    """Compare the outputs of a pruned model with those of the original itself, to 1e-5 of their largest value.

    Parameters and errors are those of :func:`verify_pruned`. What enters a discrete operator stands for what leaves it.
    """
    kept = Kept(analysis, keep)
    question = Question(analysis, pruned, kept, bare_oracle(analysis), EXACT, lossless=True, removed=not kept.all)
    verdict = _in_a_size(question, timeout)
    return replace(verdict, status="verified" if verdict.status == "vacuous" and verdict.compared else verdict.status)


def verify_widened(analysis: Analysis, wide: Model, copies: Slices, *, timeout: float = 900.0) -> Verification:
    """Compare all tensors of a wider model with copies of the original's, to 1e-5 of their largest value.

    Parameters and errors are those of :func:`verify_pruned`, but for what says how often each slice is there.
    """
    question = Question(analysis, wide, copies, bare_oracle(analysis), relative=EXACT)
    verdict = _in_a_size(question, timeout)
    if verdict.ok:
        return verdict
    # Copies are summed up in another order, so every layer rounds in its own way. Where a network makes much of that
    # (saturating gates of random weights), moving its input by a few units of rounding shows it.
    again = _in_a_size(replace(question, grain=_COARSE), timeout)
    return replace(again, note=_CHAOTIC) if again.ok else verdict


def _in_a_size(question: Question, timeout: float, mask: Callable[[Labels], Mask] | None = None) -> Verification:
    """Compare with inputs that do not take much memory, where the models take such, and else as large as they are."""
    smaller = smaller_sizes(question.analysis)
    if smaller is None:
        return _in_a_type(question, timeout)
    with suppress(GraphPruneError, UnfitError):
        less = replace(question, smaller=smaller)
        if mask is not None and question.oracle.masks:
            less = replace(less, oracle=build_oracle(question.analysis, mask, less.resized))
        verdict = _in_a_type(less, timeout)
        if verdict.ok:
            note = _smaller(less, as_it_is=_runs_as_it_is(question))
            return replace(verdict, note="; ".join(part for part in (verdict.note, note) if part))
    return _in_a_type(question, timeout)


def _runs_as_it_is(question: Question) -> bool:
    """Run the very file with the sizes that it declares; False where that takes too much memory.

    Raises
    ------
    VerificationError
        If it does not run where the original does.
    """
    analysis = question.analysis
    if count_elements(analysis.graph, analysis.shapes.dims) > MOST_RUN:
        return False
    return check_runs(question.pruned, analysis.model, analysis.input_shapes) > 0


def _smaller(question: Question, *, as_it_is: bool) -> str:
    old, new = (
        ", ".join(f"{quote(name)} {'x'.join(map(str, shape))}" for name, shape in sizes.items())
        for sizes in (question.analysis.input_shapes, question.sizes)
    )
    itself = "the file itself runs as it is, and what it gave was not compared"
    itself = itself if as_it_is else "the file itself was not run as it is"
    return f"since inputs of {old} take much memory, both models were compared with {new}; {itself}"


def _in_a_type(question: Question, timeout: float) -> Verification:
    """Compare in the model's own type if onnxruntime has kernels for it, else in float32."""
    narrow = set(question.analysis.shapes.dtypes.values()) & NARROW
    try:
        if TensorProto.BFLOAT16 not in narrow:
            return _compare_tamed(question, timeout)
    except ChildError as error:
        if not narrow or not _no_kernel(error):
            raise _cause(question, error, timeout) from error
    try:
        return _compare_tamed(replace(question, widened=True), timeout)
    except ChildError as error:
        raise _cause(question, error, timeout) from error


def _cause(question: Question, error: ChildError, timeout: float) -> GraphPruneError:
    """Return whose fault it is that no comparison came of it; with smaller inputs than the file's, it is nobody's."""
    return error if question.is_smaller else blame(question.analysis, error, timeout)


def _no_kernel(error: ChildError) -> bool:
    """Whether onnxruntime lacks an operator for some type, which a copy in float32 may get around."""
    return "NotImplemented" in error.message or "NOT_IMPLEMENTED" in error.message or "InvalidGraph" in error.message


def _compare_tamed(question: Question, timeout: float) -> Verification:
    """Compare; again where agreement proves nothing because outputs are not finite."""
    verdict, not_finite = _compare(question, timeout)
    if verdict.status != "vacuous" or not not_finite:
        return verdict
    again, still = _compare(replace(question, tamed=True), timeout)
    return verdict if still else replace(again, note="; ".join(part for part in (verdict.note, _TAMED) if part))


def _compare(question: Question, timeout: float) -> tuple[Verification, bool]:
    """Let a child process compare both models; says as well whether values at their ends are not finite."""
    if question.in_pieces:
        timeout *= 1 + room_needed(question.analysis.model) / _PER_TIMEOUT
    models = [question.analysis.model, question.pruned]
    allowance = allow(models, question.dims, timeout, ways=len(question.ways))
    if verifying().name == "cuda":
        allowance = replace(allowance, most_bytes=allowance.most_bytes + _OF_CUDA)
    with scratch_folder() as place:
        report = run_child("graphprune.verification.comparison", place, allowance, lambda: lay_out(question, place))
    verdict = _judge(report, question)
    if verdict.status == "failed" and not report.get("steady", True):
        raise UnsupportedModelError(
            f"the model gives other values each time it runs, at {quote(verdict.tensor)} and elsewhere: "
            "nothing can be compared",
            hint="export it without operators that draw random numbers",
        )
    return verdict, bool(report["not_finite"])


def _in_pieces(needed: int) -> str:
    return (
        "both models were compared in pieces, and the file was not run as a whole: that takes about "
        f"{text.file_size(needed)} of memory, of which this machine has {text.file_size(main_memory())}"
    )


def _judge(report: dict[str, Any], question: Question) -> Verification:
    effect, compared = float(report["effect"]), int(report["compared"])
    vacuous = question.removed and (effect < _MOVES_NOTHING or not compared)
    notes = [_WIDENED] if question.widened else []
    if verifying().name != "cpu":
        notes.append(f"run on {verifying().name}")
    if report["not_finite"]:
        where = ", ".join(quote(name) for name in report["not_finite"][:_MOST_NAMED])
        notes.append(f"on random inputs the original gives values that are not finite at {where}")
    if report["unfed"]:
        kinds = " and ".join(_EXTREMES[kind] for kind in dict.fromkeys(report["unfed"]))
        notes.append(f"the original does not run with {kinds}, so both were compared on others only")
    if report.get("misoptimised"):
        where = ", ".join(quote(name) for name in report["misoptimised"][:_MOST_NAMED])
        notes.append(
            f"onnxruntime gives something else for the original itself at {where} once it has optimised the graph "
            "(a fault of its own); compared without that"
        )
    if question.is_brief:
        notes.append(_BRIEF)
    if question.needed:
        notes.append(_in_pieces(question.needed))
    elif not report["sizes"] and not report["failed"]:
        notes.append("the file itself was not run, since onnxruntime does not run the original here as it is")
    return Verification(
        status="failed" if report["failed"] else "vacuous" if vacuous else "verified",
        error=float(report["error"]),
        tolerance=float(report["tolerance"]),
        tensor=str(report["tensor"]),
        effect=effect,
        compared=compared,
        note="; ".join(notes),
        lossless=question.lossless,
        sizes=int(report["sizes"]),
    )
