# SPDX-License-Identifier: Apache-2.0
"""Channel labels: which slices of which tensors live and die together."""
