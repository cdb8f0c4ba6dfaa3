# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A worker of pytest-xdist has one core to itself: threads of its libraries would wait for each other, not help. This
# stands before anything imports numpy, and child processes of tests get it too.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# A shell lets what runs in the background ignore interrupts, and child processes inherit that; tests interrupt theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An assertion of a shared helper says what it compared, as one of a test does.
pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).with_name("support").glob("*.py")))

# How long an example takes says more about the machine than about graphprune. The same examples are drawn each time,
# so that a failure is one of the change at hand; `GRAPHPRUNE_PROFILE=nightly` looks for new ones.
settings.register_profile("graphprune", deadline=None, database=None, derandomize=True)
settings.register_profile("nightly", deadline=None, database=None, print_blob=True)
settings.load_profile(os.environ.get("GRAPHPRUNE_PROFILE", "graphprune"))
