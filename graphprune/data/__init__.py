# SPDX-License-Identifier: Apache-2.0
"""Data: sources of samples, preprocessing, intermediate values captured in onnxruntime, streamed moments."""
