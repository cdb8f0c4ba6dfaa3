# SPDX-License-Identifier: Apache-2.0
"""Attack graphprune: hostile inputs row by row, fuzzed models, kills, mutants, and counted property examples.

::

    python tools/attack.py all --seed 0 --output attack/
    python tools/attack.py rows --only B13,E19 --output attack/
    python tools/attack.py report attack/

Every attack appends what came of each case to a journal in the output folder, and goes on where it was ended when it
is run again with that folder; inputs that ended badly are kept in ``failures/`` there. ``report`` writes
``results.json`` beside the journals, and the figures into docs/reliability.md. Exit status 1 if anything failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ATTACKS = ("rows", "fuzz", "kills", "mutants", "properties")


def attack(name: str, options: argparse.Namespace) -> int:
    """Run one attack; return how many of its cases fail."""
    output, seed = options.output, options.seed
    if name == "rows":
        from attacks.table import attack_rows

        return attack_rows(output, seed, options.only)
    if name == "fuzz":
        from attacks.fuzz import fuzz

        return fuzz(output, seed, options.count or 10_000)
    if name == "kills":
        from attacks.kills import kill_commands

        return kill_commands(output, seed, options.count or 500)
    if name == "mutants":
        from attacks.mutants import try_mutants

        return try_mutants(output, seed)
    from attacks.properties import run_properties

    return run_properties(output, seed, options.count or 100_000, options.round)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="attack", required=True)
    for name in (*ATTACKS, "all"):
        command = commands.add_parser(name)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--output", type=Path, required=True, help="folder of the journals")
        command.add_argument("--count", type=int, help="how many models, kills or examples", default=0)
        command.add_argument("--round", type=int, help="of properties: the first one", default=0)
        command.add_argument("--only", help="rows, as in B13,E19", default="")
    report = commands.add_parser("report")
    report.add_argument("output", type=Path)
    report.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.attack == "report":
        from attacks.report import write_report

        return write_report(options.output, options.seed)
    failing = [attack(name, options) for name in (ATTACKS if options.attack == "all" else (options.attack,))]
    return 1 if any(failing) else 0


if __name__ == "__main__":
    sys.exit(main())
