# SPDX-License-Identifier: Apache-2.0
"""The command line: one thin module per command on top of the API."""
