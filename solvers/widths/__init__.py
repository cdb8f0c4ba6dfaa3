# SPDX-License-Identifier: Apache-2.0
"""Width solvers: one module per way to spread a budget over coupled groups."""
