# SPDX-License-Identifier: Apache-2.0
"""The model: what a file holds, loaded within limits, normalised, and written atomically."""
