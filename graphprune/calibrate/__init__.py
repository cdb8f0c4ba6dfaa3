# SPDX-License-Identifier: Apache-2.0
"""Data in: sources of samples, intermediate values captured in onnxruntime, streamed moments."""
