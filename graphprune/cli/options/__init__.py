# SPDX-License-Identifier: Apache-2.0
"""Options, one file per concern: frozen dataclasses for :mod:`graphprune.cli.spread`, shared by the commands.

An option is declared in one place. A command that needs one more, or another default, inherits from what the others
share; a method of each dataclass says what its options mean to the Python API.
"""
