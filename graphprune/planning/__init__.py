# SPDX-License-Identifier: Apache-2.0
"""Planning: from an analysis and a budget to a plan; nothing is removed here."""
