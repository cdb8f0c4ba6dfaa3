# SPDX-License-Identifier: Apache-2.0
"""Export: from training frameworks into ONNX, and from ONNX towards deployment."""
