# SPDX-License-Identifier: Apache-2.0
"""Label rules: one module per operator family, each rule a pure function of one node."""
