# SPDX-License-Identifier: Apache-2.0
"""8-bit integers by onnxruntime's static quantisation: QDQ, weights per channel, activations ranged by samples."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from graphprune.data.capture import capture
from graphprune.data.feeding import filled
from graphprune.data.signature import input_specs
from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.children.sandbox import shortened
from graphprune.verification.staging import stage_file

if TYPE_CHECKING:
    from graphprune.array_types import Array
    from graphprune.choices import CalibrationMethod
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["Int8Maker", "has_saturating_products", "saturates"]

_MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_BATCH = 32
_WITHOUT = ("avx512_vnni", "avx_vnni", "amx_int8")


def saturates() -> bool:
    """Whether this processor's products of 8-bit integers saturate in 16 bits: x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        return has_saturating_products(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:  # Windows, macOS: what numpy knows
        features = import_module("numpy._core._multiarray_umath").__cpu_features__
        return not features.get("AVX512VNNI", False)


def has_saturating_products(cpuinfo: str) -> bool:
    r"""Whether an x86 processor of which the kernel says this has none of the instructions that sum in 32 bits.

    Examples
    --------
    >>> has_saturating_products("model name : A\nflags : fpu avx2\n")
    True
    >>> has_saturating_products("model name : B\nflags : fpu avx2 avx_vnni\n")
    False
    """
    flags = cpuinfo.partition("flags")[2].partition("\n")[0].split()
    return not any(name in flags for name in _WITHOUT)


class Int8Maker:
    """Makes quantised models of one model, with some layers left in float.

    Parameters
    ----------
    model : Model
    samples : Source
        For the ranges of activations.
    folder : Path
        A private one.
    method : {"minmax", "entropy", "percentile"}
    reduce_range : bool
        Whether weights take 7 bits, so that sums of two products fit into 16.

    Attributes
    ----------
    parts : tuple of str
        Layers that can be left in float.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot quantise it.
    """

    def __init__(
        self, model: Model, samples: Source, folder: Path, method: CalibrationMethod, *, reduce_range: bool
    ) -> None:
        self._model, self._samples, self._folder = model, samples, folder
        self._method, self._reduce_range = method, reduce_range
        with _quiet(model):
            self._fold()
        self.parts = tuple(node.name for node in self._folded.graph.node if node.op_type in _MULTIPLYING)

    def _fold(self) -> None:
        """Fold BatchNormalization into convolutions, and name every node: layers are told apart by names."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        source, target = self._folder / "source.onnx", self._folder / "folded.onnx"
        stage_file(self._model, source)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        self._folded = onnx.load(target)
        taken = {node.name for node in self._folded.graph.node}
        for number, node in enumerate(self._folded.graph.node):
            if not node.name:
                node.name = f"{node.op_type}_{number}" if f"{node.op_type}_{number}" not in taken else f"_{number}"
                taken.add(node.name)

    def make(self, floating: Collection[str]) -> onnx.ModelProto:
        """Return the model in 8 bits but for some layers; ranges are measured the first time."""
        from onnxruntime.quantization import CalibrationMethod as Method
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        ranges, target = self._folder / "ranges.json", self._folder / "int8.onnx"
        methods = {"minmax": Method.MinMax, "entropy": Method.Entropy, "percentile": Method.Percentile}
        with _quiet(self._model):
            quantize_static(
                self._folded_copy(),
                str(target),
                None if ranges.exists() else self._reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self._reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted({*floating, *self._beside(floating)}),
                calibrate_method=methods[self._method],
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
                calibration_cache_path=str(ranges),
            )
        return onnx.load(target)

    def _beside(self, floating: Collection[str]) -> set[str]:
        """Return the other operators that read from layers in float, are read by them, or stand among such alone.

        Rounding there would lose again what these layers keep.
        """
        nodes = self._folded.graph.node
        makers = {name: node.name for node in nodes for name in node.output}
        neighbours: dict[str, set[str]] = {node.name: set() for node in nodes}
        for node in nodes:
            for maker in {makers[name] for name in node.input if name in makers}:
                neighbours[node.name].add(maker)
                neighbours[maker].add(node.name)
        layers, chosen = set(self.parts), set(floating)
        others = [node.name for node in nodes if node.name not in layers]
        beside = {name for name in others if neighbours[name] & chosen}
        while floating and (
            more := {name for name in others if name not in beside and neighbours[name] <= chosen | beside}
        ):
            beside |= more
        return beside

    def ranked(self, whole: Model, samples: Source) -> list[str]:
        """Return the layers by what rounding loses at their inputs and outputs, most first.

        It is what rounding an activation moves in each channel, relative to what that channel holds, in the mean over
        channels: one channel with large values takes the precision of all others. The network runs once.

        Parameters
        ----------
        whole : Model
            What `make` gave with nothing left in float.
        samples : Source
        """
        graph = whole.proto.graph
        makers = {name: node for node in graph.node for name in node.output}
        rounded = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        restored = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        pairs = {name: restored[stored] for name, stored in rounded.items() if stored in restored and name in makers}
        sources = {after: before for before, after in pairs.items()}
        touched = {
            node.name: (sources.get(node.input[0], ""), node.output[0])
            for node in graph.node
            if node.op_type in _MULTIPLYING
        }
        losses = self._losses(whole, samples, pairs)
        lost = {name: sum(losses.get(value, 0.0) for value in values) for name, values in touched.items()}
        return sorted(self.parts, key=lambda layer: -lost.get(layer, 0.0))

    def _losses(self, whole: Model, samples: Source, pairs: Mapping[str, str]) -> dict[str, float]:
        """Return by activation what rounding it moves, relative to each channel's own power."""
        specs = input_specs(self._model)
        feeds = (dict(batch.feeds) for batch, _ in filled(samples, specs, 1))
        sums: dict[str, tuple[Any, Any]] = {}
        for values in capture(whole, [name for pair in pairs.items() for name in pair], feeds):
            for before, after in pairs.items():
                exact = values[before].astype(np.float64)
                axes = tuple(axis for axis in range(exact.ndim) if axis != 1)
                moved, power = np.square(values[after] - exact).sum(axis=axes), np.square(exact).sum(axis=axes)
                earlier = sums.get(before, (0.0, 0.0))
                sums[before] = earlier[0] + moved, earlier[1] + power
        return {
            name: float(np.mean(np.where(power > 0, moved / np.where(power > 0, power, 1), 0)))
            for name, (moved, power) in sums.items()
        }

    def _folded_copy(self) -> onnx.ModelProto:
        """Return the folded model, which quantisation changes."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self._folded)
        return copy

    def _reader(self) -> Any:
        """Return what feeds samples."""
        from onnxruntime.quantization import CalibrationDataReader

        specs = input_specs(self._model)
        feeds = (dict(batch.feeds) for batch, _ in filled(self._samples, specs, _BATCH))

        class SampleFeeder(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime declares no types
            """Gives one batch after the other."""

            def get_next(self) -> dict[str, Array] | None:
                """Return what is fed next."""
                return next(feeds, None)

        return SampleFeeder()


@contextlib.contextmanager
def _quiet(model: Model) -> Iterator[None]:
    """Let onnxruntime's tools say nothing, and name the model where they fail."""
    logger = logging.getLogger()
    level, printed = logger.level, io.StringIO()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except Exception as error:  # they raise whatever they like
        said = shortened((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise UnsupportedModelError(f"onnxruntime cannot quantise {quote(model.name)}: {said}") from error
    finally:
        logger.setLevel(level)
