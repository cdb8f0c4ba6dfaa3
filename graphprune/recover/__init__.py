# SPDX-License-Identifier: Apache-2.0
"""Recovery without training: what a pruned network lost comes back in closed form, from unlabelled samples."""
