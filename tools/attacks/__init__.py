# SPDX-License-Identifier: Apache-2.0
"""What ``tools/attack.py`` runs: rows of hostile inputs, fuzzers, kills, mutants and counted properties."""
