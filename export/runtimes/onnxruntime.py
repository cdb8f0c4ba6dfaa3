# SPDX-License-Identifier: Apache-2.0
"""onnxruntime on the processor: what all others are compared with."""

from __future__ import annotations

from pathlib import Path

from graphprune.export.runtime import RUNTIMES, ModelSignature, NetworkRun, Runtime

__all__ = ["OnnxRuntime", "open_with"]


@RUNTIMES.register("onnxruntime")
class OnnxRuntime(Runtime):
    """onnxruntime with default optimisation."""

    modules = ("onnxruntime",)

    def version(self) -> str:
        """Return the version of whichever of its packages is installed."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Open a session."""
        return open_with(path, signature, ["CPUExecutionProvider"])


def open_with(path: Path, signature: ModelSignature, providers: list[str], *, alone: bool = False) -> NetworkRun:
    """Open a session with providers; `alone` refuses a network of which a part would run on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if alone:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if providers[0] not in session.get_providers():
        raise RuntimeError(f"{providers[0]} cannot be used here")
    names = list(signature.outputs)
    return lambda feeds: list(session.run(names, dict(feeds)))
