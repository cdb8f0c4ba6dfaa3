# SPDX-License-Identifier: Apache-2.0
"""Reports: plans and groups as tables for people."""
