# SPDX-License-Identifier: Apache-2.0
"""Evidence: everything that is measured on samples for criteria and solvers, computed when it is asked for."""
