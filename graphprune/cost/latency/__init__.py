# SPDX-License-Identifier: Apache-2.0
"""Latency: what the layers of a network take in onnxruntime on this machine, as a function of the widths."""
