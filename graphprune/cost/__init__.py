# SPDX-License-Identifier: Apache-2.0
"""Cost: what a model costs at given widths, in FLOPs, parameters, bytes or time, and what a plan saves."""
