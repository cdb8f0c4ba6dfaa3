# SPDX-License-Identifier: Apache-2.0
"""Values: the shapes, constants, bodies and loops of one graph."""
