# SPDX-License-Identifier: Apache-2.0
"""Bounds: how much saliency any widths within the limits can keep at most.

``factors`` writes costs as sums of small tables over few variables, ``decomposition`` arranges the variables in a
tree, ``propagation`` finds the best widths of such a tree at given prices of the costs, ``lagrangian`` finds the prices
that prove most, ``primal`` good widths on the way, ``integer`` hands to HiGHS what is still open.
"""
