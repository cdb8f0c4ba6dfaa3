# SPDX-License-Identifier: Apache-2.0
"""Wrong files and wrong cuts: ``verify`` must refuse every file, and ``solve`` must not write any.

Files are changed as the tests of the fidelity check and of forged marks change them, and at random in one field or one
weight. Cuts are changed while ``solve`` makes them: the right widths, and other channels.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from attacks.bench import from_tests
from attacks.edits import edit_fields
from attacks.fuzz import forked, import_what_a_run_needs
from attacks.journal import Journal
from attacks.processes import Ending, run

__all__ = ["try_mutants"]

_RANDOM = 60
_REFUSED = (2, 101)
_CUT = """
import sys
import numpy as np
from onnx import numpy_helper
from graphprune import api
prune = api.prune
def careless(*arguments, **options):
    proto = prune(*arguments, **options)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = {node.output[0]: node for node in proto.graph.node}
    def put(name, change):
        tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(
            numpy_helper.to_array(tensors[name]).copy())), name))
    WRONG
    return proto
def other_channels(analysis, keep, *more, **options):
    return prune(analysis, np.concatenate([keep[1:], keep[:1]]), *more, **options)
api.prune = OTHER
from graphprune.cli import main
sys.exit(main())
"""
CUTS = {
    "other channels": "",
    "rows in another order": "put('w1', lambda a: a[::-1])",
    "columns in another order": "put('w2', lambda a: a[:, ::-1])",
    "one weight": "put('w1', lambda a: np.where(np.arange(a.size).reshape(a.shape) == 5, a + 1e-3, a))",
    "one bit": "put('w1', lambda a: (a.view(np.uint32) ^ (np.arange(a.size).reshape(a.shape) == 5)).view(np.float32))",
    "scaled": "put('w2', lambda a: a * np.float32(1.0001))",
    "zeros": "put('w2', np.zeros_like)",
    "no numbers": "put('w2', lambda a: a * np.float32('nan'))",
    "bias in another order": "put('b1', lambda a: a[::-1])",
    "bias lost": "del nodes['a'].input[2:]",
    "another operator": "nodes['r'].op_type = 'LeakyRelu'",
    "another attribute": "nodes['a'].attribute[0].ints[0] = 0",
    "a node lost": "nodes['y'].input[0] = 'a'",
    "a node more": "proto.graph.node.add(op_type='Neg', input=['y'], output=['z'])",
    "another input": "proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = 'n'",
    "another output": "proto.graph.output[0].name = 'r'",
    "half precision on the way": "put('w1', lambda a: a.astype(np.float16).astype(np.float32))",
}


def try_mutants(output: Path, seed: int) -> int:
    """Try all that were not refused yet; return how many are taken for right."""
    journal = Journal(output, "mutants", seed)
    caught = {case for case, entry in journal.entries().items() if not entry["wrong"]}
    import_what_a_run_needs()
    with tempfile.TemporaryDirectory(prefix="attack-mutants-") as base:
        for number, (case, original, plan, wrong) in enumerate(_files(seed)):
            if case not in caught:
                folder = Path(base) / f"file-{number}"
                folder.mkdir()
                for name, content in {"m.onnx": original, "p.onnx": wrong, "p.json": plan}.items():
                    (folder / name).write_bytes(content)
                ending, said = forked(("verify", "m.onnx", "p.onnx", "p.json"), folder)
                _enter(journal, case, folder, ending, said)
        for number, (case, change) in enumerate(CUTS.items()):
            if f"cut: {case}" not in caught:
                folder = Path(base) / f"cut-{number}"
                folder.mkdir()
                (folder / "m.onnx").write_bytes(from_tests("support/bad_files").small_model().SerializeToString())
                program = _CUT.replace("WRONG", change or "pass")
                program = program.replace("OTHER", "careless" if change else "other_channels")
                command = [sys.executable, "-P", "-c", program, "solve", "m.onnx", "--params", "0.7", "--round-to", "1"]
                done = run([*command, "--quick"], folder, {**os.environ, "TMPDIR": str(folder)})
                _enter(journal, f"cut: {case}", folder, done.ending, done.err)
    return journal.failing()


def _enter(journal: Journal, case: str, folder: Path, ending: Ending, said: str) -> None:
    """Enter what came of a command that has to fail."""
    wrong = "" if ending.code in _REFUSED and "Traceback" not in said else f"exit code {ending.code}: {said[-300:]}"
    if any((folder / name).exists() for name in ("m.pruned.onnx", "m.plan.json")):
        wrong = "written all the same"
    journal.add(case, wrong, code=ending.code, seconds=round(ending.processor_seconds, 2), peak=ending.peak)
    if wrong:
        print(f"{case}: {wrong}", flush=True)
        kept = journal.path.parent / "failures" / case.replace(" ", "-").replace(":", "")
        kept.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.*"):
            (kept / path.name).write_bytes(path.read_bytes())


def _files(seed: int) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Yield what tells a wrong file apart, the original, the plan, and the wrong file."""
    from graphprune.plan import file as plans

    fidelity, models = from_tests("verification/fidelity/test_check_fidelity"), from_tests("support/fidelity_models")
    made = {}
    for name in models.GRAPHS:
        analysis, plan = models.analysed(name)
        made[name] = analysis.model.proto.SerializeToString(), plans.dumps(plan).encode()
    for case in fidelity.TAMPERINGS:
        proto = models.pruned(case.model)
        case.change(proto)
        yield f"file: {case.label}", *made[case.model], proto.SerializeToString()
    for number in range(_RANDOM):
        chance = random.Random(f"{seed}:{number}")
        name = chance.choice(list(models.GRAPHS))
        yield f"file: weight at random {number}", *made[name], _other_weight(models.pruned(name), chance)
    for number in range(_RANDOM):
        chance = random.Random(f"{seed}:fields:{number}")
        name = chance.choice(list(models.GRAPHS))
        yield f"file: field at random {number}", *made[name], _other_field(models.pruned(name), chance)


def _other_weight(proto: ModelProto, chance: random.Random) -> bytes:
    """Change one element of one weight by a thousandth, its sign, or to another's value."""
    tensors = [each for each in proto.graph.initializer if each.data_type == 1 and np.prod(each.dims) > 1]
    tensor = chance.choice(tensors)
    values = numpy_helper.to_array(tensor).copy()
    flat, before = values.reshape(-1), values.copy()
    at = chance.randrange(flat.size)
    flat[at] = chance.choice((flat[at] * np.float32(1.001), -flat[at], flat[at - 1], flat[at] + np.float32(1e-6)))
    if np.array_equal(before, values):
        flat[at] += np.float32(1)
    unknown = ModelProto.FromString(proto.SerializeToString())
    tensor.raw_data = values.tobytes()
    return proto.SerializeToString() if proto != unknown else _other_weight(proto, chance)


def _other_field(proto: ModelProto, chance: random.Random) -> bytes:
    """Change one to three fields, so that the message is another one."""
    before = proto.SerializeToString(deterministic=True)
    while True:
        try:
            changed = ModelProto.FromString(before)
            edit_fields(changed, chance)
            if changed.SerializeToString(deterministic=True) != before:
                return changed.SerializeToString()
        except (ValueError, TypeError, UnicodeError):
            continue
