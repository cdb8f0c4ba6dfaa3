# SPDX-License-Identifier: Apache-2.0
"""Whatever is pruned runs as its users run it, at every size that the original takes.

``GRAPHPRUNE_PROFILE=nightly`` draws many more examples, and other ones each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from fast_oracle import Arrays, run
from hypothesis import assume, given
from onnx import ModelProto
from random_models import Case, Choice, choices
from random_open import feeds_of, open_networks
from random_properties import analysed, examples

from graphprune.surgery.prune import prune
from graphprune.verification.deviation import WIDEST, deviation


def plain(proto: ModelProto) -> Any:
    """Open a model as its users do."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs(session: Any, feeds: Arrays) -> Arrays:
    """Run a model whose outputs are all wanted."""
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def runs(session: Any, feeds: Arrays) -> bool:
    """Whether a model takes inputs of these sizes."""
    try:
        outputs(session, feeds)
    except Exception:  # onnxruntime's exceptions share no base
        return False
    return True


@examples(120)
@given(open_networks(), choices)
def test_what_is_pruned_runs_plainly_at_every_size(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    original = plain(case.proto)
    taken = [feeds for feeds in (feeds_of(case.proto, number) for number in range(3)) if runs(original, feeds)]
    assume(taken)
    pruned = prune(analysis, choice.keep(analysis))
    session = plain(pruned)
    for feeds in taken:
        found, whole = outputs(session, feeds), outputs(original, feeds)
        expected = run(pruned, feeds)
        for name, value in found.items():
            assert value.shape == whole[name].shape
            # A network that makes much of rounding does so with and without optimisation.
            rough = not deviation(run(case.proto, feeds)[name], whole[name]) <= WIDEST / 10
            assert rough or deviation(expected[name], value) <= WIDEST or not np.isfinite(value).all()
