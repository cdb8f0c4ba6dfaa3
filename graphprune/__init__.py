# SPDX-License-Identifier: Apache-2.0
"""graphprune removes whole channels from trained ONNX networks and hands back a smaller dense ONNX file.

::

    import graphprune

    model = graphprune.load("model.onnx")
    plan = graphprune.solve(model, flops=0.5)
    pruned = graphprune.apply(model, plan)
    graphprune.verify(model, pruned, plan)
    graphprune.save(pruned, "model.pruned.onnx")

Names are imported when they are first used, so that ``import graphprune`` costs nothing.
"""

from __future__ import annotations

import os

# Nothing is imported here that is not loaded already: a Ctrl-C while this is done has nobody to say what it means.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from graphprune.accuracy import evaluate, open_data, recover, samples, train
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.explain import Explanation, explain
    from graphprune.analysis.network import group_graph
    from graphprune.api import (
        AnalyzeOptions,
        analyze,
        apply,
        load,
        normalize,
        reconcile,
        save,
        solve,
        verify,
    )
    from graphprune.consistency import check_consistency
    from graphprune.data.arrays import from_arrays
    from graphprune.data.evaluation import Evaluation
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Batch, Source
    from graphprune.errors import GraphPruneError
    from graphprune.export.deploy import deploy
    from graphprune.export.deployment import Deployment, DeployOptions
    from graphprune.export.quantize import Quantized, QuantizeOptions, quantize
    from graphprune.installation import Finding, examine_installation
    from graphprune.model.load import Model
    from graphprune.phases import Event, listening
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.file import read_plan, write_plan
    from graphprune.plan.schema import Plan
    from graphprune.planning.constraints.constraints import Constraints
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.recovery.recover_options import RecoverOptions, Recovery
    from graphprune.report.picture import save_drawing
    from graphprune.trials.compare import compare
    from graphprune.trials.contest import Contest
    from graphprune.trials.sweep import Sweep, sweep
    from graphprune.trials.workers import Workers
    from graphprune.verification.verify import Verification
    from graphprune.widening.widen import Widened, WidenOptions, widen

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "Batch",
    "BudgetRequest",
    "Constraints",
    "Contest",
    "DeployOptions",
    "Deployment",
    "Evaluation",
    "Event",
    "Explanation",
    "Finding",
    "GraphPruneError",
    "Model",
    "Plan",
    "Preprocessing",
    "QuantizeOptions",
    "Quantized",
    "RecoverOptions",
    "Recovery",
    "SolveOptions",
    "Source",
    "Sweep",
    "Verification",
    "WidenOptions",
    "Widened",
    "Workers",
    "__version__",
    "analyze",
    "apply",
    "check_consistency",
    "compare",
    "deploy",
    "evaluate",
    "examine_installation",
    "explain",
    "from_arrays",
    "group_graph",
    "listening",
    "load",
    "normalize",
    "open_data",
    "quantize",
    "read_plan",
    "reconcile",
    "recover",
    "samples",
    "save",
    "save_drawing",
    "solve",
    "sweep",
    "train",
    "verify",
    "widen",
    "write_plan",
]

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "graphprune.analysis.analysis",
    "Batch": "graphprune.data.source",
    "BudgetRequest": "graphprune.plan.budget",
    "Constraints": "graphprune.planning.constraints.constraints",
    "Contest": "graphprune.trials.contest",
    "DeployOptions": "graphprune.export.deployment",
    "Deployment": "graphprune.export.deployment",
    "Evaluation": "graphprune.data.evaluation",
    "Explanation": "graphprune.analysis.explain",
    "Event": "graphprune.phases",
    "Finding": "graphprune.installation",
    "GraphPruneError": "graphprune.errors",
    "Model": "graphprune.model.load",
    "Plan": "graphprune.plan.schema",
    "Preprocessing": "graphprune.data.preprocessing",
    "QuantizeOptions": "graphprune.export.quantize",
    "Quantized": "graphprune.export.quantize",
    "RecoverOptions": "graphprune.recovery.recover_options",
    "Recovery": "graphprune.recovery.recover_options",
    "SolveOptions": "graphprune.planning.make_plan",
    "WidenOptions": "graphprune.widening.widen",
    "Widened": "graphprune.widening.widen",
    "Source": "graphprune.data.source",
    "Sweep": "graphprune.trials.sweep",
    "Workers": "graphprune.trials.workers",
    "Verification": "graphprune.verification.verify",
    "check_consistency": "graphprune.consistency",
    "compare": "graphprune.trials.compare",
    "deploy": "graphprune.export.deploy",
    "evaluate": "graphprune.accuracy",
    "examine_installation": "graphprune.installation",
    "explain": "graphprune.analysis.explain",
    "from_arrays": "graphprune.data.arrays",
    "group_graph": "graphprune.analysis.network",
    "listening": "graphprune.phases",
    "open_data": "graphprune.accuracy",
    "read_plan": "graphprune.plan.file",
    "quantize": "graphprune.export.quantize",
    "recover": "graphprune.accuracy",
    "samples": "graphprune.accuracy",
    "save_drawing": "graphprune.report.picture",
    "sweep": "graphprune.trials.sweep",
    "train": "graphprune.accuracy",
    "widen": "graphprune.widening.widen",
    "write_plan": "graphprune.plan.file",
}


if not os.path.isdir(os.path.join(os.path.dirname(__file__), "solvers")):  # noqa: PTH112, PTH118, PTH120 - see above
    from pathlib import Path

    from graphprune.checkout import find_neighbours

    find_neighbours(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES.get(name, "graphprune.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not, and nothing else."""
    return sorted(__all__)
