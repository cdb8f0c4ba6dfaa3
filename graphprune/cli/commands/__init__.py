# SPDX-License-Identifier: Apache-2.0
"""Commands: one thin module each, on top of the API."""
