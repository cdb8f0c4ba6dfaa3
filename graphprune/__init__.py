# SPDX-License-Identifier: Apache-2.0
"""graphprune removes whole channels from trained ONNX networks and hands back a smaller dense ONNX file."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
