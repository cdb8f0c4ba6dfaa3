# SPDX-License-Identifier: Apache-2.0
"""``python -m graphprune``: the command line without the console script."""

from __future__ import annotations

import sys

from graphprune.cli import main

if __name__ == "__main__":
    sys.exit(main())
