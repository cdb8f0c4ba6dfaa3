# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine than about graphprune.
settings.register_profile("graphprune", deadline=None)
settings.load_profile("graphprune")
