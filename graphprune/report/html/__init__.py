# SPDX-License-Identifier: Apache-2.0
"""The report: a plan, a sweep or two plans as one page that needs no network."""
