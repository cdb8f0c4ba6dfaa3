# SPDX-License-Identifier: Apache-2.0
"""Verification: the pruned model against the masked original, in onnxruntime."""
