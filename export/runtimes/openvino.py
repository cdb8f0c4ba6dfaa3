# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.export.runtime import RUNTIMES, LayersRun, ModelSignature, NetworkRun, Runtime

__all__ = ["OpenVino"]

_CONFIG = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
_BESIDES = frozenset({"Reorder", "Parameter", "Result", "Input", "Output", "Constant"})
"""Kinds of node that a layer inside of a network does not have."""


@RUNTIMES.register("openvino")
class OpenVino(Runtime):
    """OpenVINO, through its own format: ``model.xml`` and ``model.bin``."""

    modules = ("openvino",)
    distribution = "openvino"
    converts = True

    def convert(self, model: Path, signature: ModelSignature, folder: Path) -> Path:
        """Write the network as it is, open sizes and float32 included."""
        import openvino

        del signature
        target = folder / "model.xml"
        openvino.save_model(openvino.Core().read_model(model), target, compress_to_fp16=False)
        return target

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Compile it for the given sizes."""
        request, fed = _compiled(path, signature, _CONFIG)

        def run(feeds: Any) -> list[Any]:
            values = request.infer({name: feeds[name] for name in fed})
            return [values[name].copy() for name in signature.outputs]

        return run

    def profile(self, path: Path, signature: ModelSignature) -> LayersRun:
        """Compile it with counters; changes of layout stand at the ends of a network, not between its layers."""
        request, fed = _compiled(path, signature, {**_CONFIG, "PERF_COUNT": True})

        def run(feeds: Any) -> float:
            request.infer({name: feeds[name] for name in fed})
            times = (one.real_time for one in request.profiling_info if one.node_type not in _BESIDES)
            return float(sum(time.total_seconds() for time in times))

        return run


def _compiled(path: Path, signature: ModelSignature, config: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return what runs a network, and the names of the inputs that it reads."""
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    ports = {name: port for port in network.inputs for name in port.get_names()}
    fed = [name for name in signature.shapes if name in ports]  # inputs that nothing reads may be gone
    network.reshape({ports[name]: list(signature.shapes[name]) for name in fed})
    return core.compile_model(network, "CPU", config).create_infer_request(), fed
