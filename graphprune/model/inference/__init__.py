# SPDX-License-Identifier: Apache-2.0
"""Inference: what onnx and the operators that runtimes add say of the shapes of values."""
