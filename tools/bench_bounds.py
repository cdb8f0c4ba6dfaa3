# SPDX-License-Identifier: Apache-2.0
"""How far from the best widths each solver is: the gap between what it keeps and a bound on what any widths can keep.

::

    python tools/bench_bounds.py MODEL... --flops 0.5,0.3 --markdown docs/bounds.md

The bound is the best that the exact solver and its Lagrangian dual prove, one for all solvers of a model and budget.
Models are analysed once; seconds are processor seconds of the solver with everything that it needs, the criterion left
out. The exit status is 1 if `milp` leaves a gap of more than 2 %, or `greedy` one of more than 5 %.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo_table import machine, versions

from graphprune import api
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions, make_plan, score_groups

LARGEST = {"milp": 0.02, "greedy": 0.05}


@dataclass(frozen=True)
class Result:
    """What one solver keeps of one model under one budget."""

    model: str
    budget: float
    solver: str
    objective: float
    bound: float
    seconds: float
    groups: int

    @property
    def gap(self) -> float:
        """The share of the bound that is not kept."""
        return max(0.0, 1 - self.objective / self.bound)


def run(path: Path, budgets: list[float], solvers: list[str], options: SolveOptions) -> Iterator[list[Result]]:
    """Yield the results of all solvers, budget by budget."""
    analysis = api.analyze(api.load(path))
    scores = score_groups(analysis, options)
    for budget in budgets:
        found = []
        for solver in solvers:
            own = SolveOptions(
                solver, options.criterion, options.round_to, seed=options.seed, settings=options.settings, certify=True
            )
            started = time.process_time()
            plan = make_plan(analysis, (BudgetRequest("flops", budget),), own, scores=scores)
            proof = plan.solver.certificate
            assert proof is not None
            seconds = time.process_time() - started
            found.append(Result(path.stem, budget, solver, proof.objective, proof.bound, seconds, len(plan.groups)))
        best = min(result.bound for result in found)
        yield [Result(**{**vars(result), "bound": best}) for result in found]


def table(results: list[list[Result]]) -> str:
    """Return the table: a row for each model and budget, a column for each solver."""
    solvers = [result.solver for result in results[0]]
    lines = [
        f"| model | groups | FLOPs | {' | '.join(solvers)} |",
        f"|---|--:|--:|{'--:|' * len(solvers)}",
    ]
    for row in results:
        cells = [f"{100 * result.gap:.3f} % ({result.seconds:.1f} s)" for result in row]
        lines.append(f"| {row[0].model} | {row[0].groups} | {row[0].budget:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(results: list[list[Result]], command: str, options: SolveOptions) -> str:
    """Return the page."""
    return f"""# How good the widths are

What each solver keeps, next to the most that any widths within the budget can keep, in saliency (criterion
`{options.criterion}`, each group's saliency divided by its mean, widths aligned). A cell gives the gap to the bound and
the processor seconds of the solver and of the proof together.

`{command}`, {datetime.datetime.now(tz=datetime.UTC).date()}, seed {options.seed}, {machine()}
(one thread, shared and busy); {versions()}.

{table(results)}

A gap says how much saliency is given away, not how much accuracy: `bisection` spreads widths on purpose, and keeps
networks working that a maximum of saliency starves in single layers.
"""


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Gaps of solvers to the bound.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--flops", default="0.5", help="shares, separated by commas")
    parser.add_argument("--solvers", default="bisection,global,greedy,milp")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    given = parser.parse_args()
    options = SolveOptions(criterion=given.criterion, seed=given.seed)
    budgets = [float(share) for share in given.flops.split(",")]
    results = []
    for path in given.models:
        for row in run(path, budgets, given.solvers.split(","), options):
            results.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    if given.markdown:
        command = f"python tools/bench_bounds.py MODEL... --flops {given.flops} --solvers {given.solvers}"
        given.markdown.write_text(page(results, command, options), "utf-8")
    return int(any(result.gap > LARGEST.get(result.solver, 1.0) for row in results for result in row))


if __name__ == "__main__":
    sys.exit(main())
