# SPDX-License-Identifier: Apache-2.0
"""Channel labels: which slices of which tensors must live and die together."""
