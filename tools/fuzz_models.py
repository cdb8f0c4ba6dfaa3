# SPDX-License-Identifier: Apache-2.0
"""Damaged and edited models must end in a result or in one of our own errors, in bounded time and memory.

::

    python tools/fuzz_models.py --examples 1000 --seed 0
    python tools/fuzz_models.py --kinds semantic --examples 200 --keep failures/

The small models of the tests' rule cases are changed at random: their *bytes*, *fields* of their protobuf messages,
or their meaning (*semantic*: another operator, operand, shape, type, attribute, opset, declared shape). Each is
loaded, analysed, solved and cut in a process of its own, under limits of time and memory. Printed are counts by
outcome, and every foreign exception and exceeded limit with the number of its example, which repeats it
(``--first NUMBER --examples 1``). Exit status 1 if there is any.

With ``--runs`` onnxruntime decides where inference refuses a model, as in real use; without, inference's word is taken.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fuzz_edits import edit_bytes, edit_fields, edit_meaning
from onnx import ModelProto

TESTS = Path(__file__).resolve().parent.parent / "tests"
SECONDS = 10
BYTES = 1 << 30


@dataclass(frozen=True)
class Outcome:
    """How one example ended: "done", the name of one of our errors, or what must not be."""

    kind: str
    text: str = ""

    @property
    def bad(self) -> bool:
        """Whether it is no result and no error of ours."""
        return self.kind in ("foreign", "internal", "time", "memory", "died")


def models() -> list[ModelProto]:
    """Return the models of the rule cases, in order of their modules."""
    sys.path[:0] = [str(TESTS / "support"), str(TESTS / "labels" / "rules")]
    cases: list[ModelProto] = []
    for path in sorted((TESTS / "labels" / "rules").glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name in ("CASES", "STAYS"):
            cases.extend(case.model for case in getattr(module, name, ()) if hasattr(case, "model"))
    return cases


def example(number: int, seed: int, kinds: list[str], seeds: list[ModelProto]) -> tuple[str, bytes]:
    """Return the kind and the bytes of one example; they depend on nothing but the number and the seed."""
    chance = random.Random(f"{seed}:{number}")
    kind = kinds[number % len(kinds)]
    proto = ModelProto()
    proto.CopyFrom(chance.choice(seeds))
    if kind == "bytes":
        return kind, edit_bytes(proto.SerializeToString(), chance)
    while True:
        try:
            (edit_fields if kind == "fields" else edit_meaning)(proto, chance)
            return kind, proto.SerializeToString()
        except (ValueError, TypeError, UnicodeError):  # an edit that protobuf or numpy does not let be made
            proto.CopyFrom(chance.choice(seeds))


def prune(data: bytes, place: Path) -> Outcome:
    """Load, analyse, solve and cut a model."""
    from graphprune import api
    from graphprune.errors import GraphPruneError, InternalError

    path = place / "model.onnx"
    path.write_bytes(data)
    try:
        analysis = api.analyze(api.load(path))
        plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
        api.apply(analysis, plan)
    except InternalError as error:
        return Outcome("internal", f"{error}\n{traceback.format_exc()}")
    except GraphPruneError as error:
        return Outcome(type(error).__name__, error.message)
    except Exception as error:
        return Outcome("foreign", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return Outcome("done")


def in_child(data: bytes, place: Path) -> tuple[Outcome, float, int]:
    """Run one example in a fork under limits; return its outcome, its seconds and its memory in bytes."""
    report, started = place / "outcome.json", time.monotonic()
    report.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
            report.write_text(json.dumps(vars(prune(data, place))), "utf-8")
            status = 0
        finally:
            os._exit(status)
    _, status, usage = os.wait4(child, 0)
    if report.exists() and not status:
        outcome = Outcome(**json.loads(report.read_text("utf-8")))
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        outcome = Outcome("time", f"more than {SECONDS} s")
    else:
        outcome = Outcome("died", f"status {status}")
    return outcome, time.monotonic() - started, usage.ru_maxrss << 10


def main() -> int:
    """Run the examples and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="bytes,fields,semantic,semantic")
    parser.add_argument("--runs", action="store_true", help="let onnxruntime decide where inference refuses")
    parser.add_argument("--keep", type=Path, help="folder for the models that ended badly")
    options = parser.parse_args()
    import tempfile

    from graphprune import api  # noqa: F401 - once for all forks
    from graphprune.model import fitting

    if not options.runs:
        fitting.observe = lambda *_: None  # type: ignore[assignment]
    seeds, counts, bad, longest, largest = models(), Counter[str](), 0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-models-") as folder:
        for number in range(options.first, options.first + options.examples):
            kind, data = example(number, options.seed, options.kinds.split(","), seeds)
            outcome, seconds, memory = in_child(data, Path(folder))
            counts[outcome.kind] += 1
            longest, largest = max(longest, seconds), max(largest, memory)
            if outcome.bad:
                bad += 1
                print(f"{number} {kind}: {outcome.kind}: {outcome.text}\n", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}-{number}.onnx").write_bytes(data)
    for name, count in counts.most_common():
        print(f"{count:7} {name}")
    print(f"{options.examples} examples, seed {options.seed}: {bad} bad; at most {longest:.1f} s, {largest >> 20} MiB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
