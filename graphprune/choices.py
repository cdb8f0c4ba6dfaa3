# SPDX-License-Identifier: Apache-2.0
"""Choices: what an option with few possible values can be, declared once for the Python API and the command line.

The modules that act on a choice are heavy (numpy, onnx, torch); this one imports nothing, so that ``--help`` can spell
the choices out without them.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "Aggregate",
    "Aggregation",
    "Attention",
    "Backend",
    "CalibrationMethod",
    "Device",
    "Exporter",
    "Grouped",
    "Inherit",
    "Layout",
    "NumberFormat",
    "Optimizer",
    "Precision",
    "Quality",
    "Recover",
    "Regularization",
]

Aggregation = Literal["sum", "mean", "max", "first"]
"""How the scores of the members of a group become one."""

Aggregate = Literal["", Aggregation]
"""The same, or what suits the criterion."""

Attention = Literal["heads", "head-dim"]
"""What goes from an attention layer: whole heads, or the same part of each."""

Backend = Literal["loky", "dask", "ray"]
"""Which processes try solvers and budgets: of this machine, or of a cluster."""

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
"""How the range of an activation follows from what it is on samples."""

Device = Literal["auto", "cpu", "cuda"]
"""Where networks run on samples, and learn; auto: on the graphics processor if it is there and works."""

Exporter = Literal["auto", "torchscript", "dynamo"]
"""Which exporter of torch is used."""

Grouped = Literal["auto", "groups", "slices", "own"]
"""What goes from a grouped convolution: whole groups, the same slice of each, one of its own of each, or by reach."""

Inherit = Literal["keep", "merge"]
"""What becomes of the weights that read a removed channel."""

Layout = Literal["NCHW", "NHWC"]
"""Where a model has its channels."""

NumberFormat = Literal["int8", "fp16"]
"""What a float network is brought to."""

Optimizer = Literal["sgd", "adamw"]
"""What turns gradients into steps."""

Precision = Literal["no", "fp16", "bf16"]
"""In which precision activations are computed while training."""

Quality = Literal["fast", "fine"]
"""How samples are made: chosen of many, or refined by gradient afterwards, which needs torch."""

Recover = Literal["auto", "none", "least-squares", "blocks", "bn", "bias"]
"""How accuracy is brought back without training."""

Regularization = Literal["bn-l1", "group-norm", "growing"]
"""What draws channels towards zero while training."""
