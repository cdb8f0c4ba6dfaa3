# SPDX-License-Identifier: Apache-2.0
"""Solvers: which channels of each coupled group stay, and how wide each group may be, under a budget.

Two small registries, each with one file per method: ``criteria`` says how salient each atom of a group is,
``widths`` chooses how many atoms every group keeps. A solver sees groups, saliencies and a cost function
(:class:`graphprune.solvers.problem.Problem`), never an ONNX node.
"""
