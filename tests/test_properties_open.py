# SPDX-License-Identifier: Apache-2.0
"""Whatever sizes of a network are open, nothing fails once its analysis has said what can go.

Any axes of the inputs are declared open, batch, image or sequence, whether the network takes other sizes or not.
``GRAPHPRUNE_PROFILE=nightly`` draws many more examples, and other ones each time.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from fast_oracle import Arrays, moved, run
from hypothesis import assume, given
from random_models import Case, Choice, choices, models
from random_open import Opened, open_networks, opened
from random_properties import examples
from random_quantised import quantised
from random_recurrent import recurrent
from random_transformers import transformers

from graphprune import api
from graphprune.errors import UsageError
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept
from graphprune.verification.deviation import FLOOR_FACTOR, WIDEST, deviation, tolerance
from graphprune.verification.oracle import build_oracle

FAMILIES: dict[str, st.SearchStrategy[Case]] = {
    "convolutional": models(),
    "transformers": transformers(),
    "recurrent": recurrent(),
    "quantised": quantised(),
    "folded": open_networks(),
}


def _feeds(sizes: dict[str, tuple[int, ...]]) -> Arrays:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}


def _outputs(case: Opened, feeds: Arrays) -> Arrays | None:
    try:
        return run(case.proto, feeds)
    except Exception:  # onnxruntime's exceptions share no base; the network does not take these sizes
        return None


@pytest.mark.parametrize("family", FAMILIES)
@examples(30)
@given(data=st.data())
def test_no_solve_ends_after_solving(family: str, data: st.DataObject) -> None:
    case: Opened = data.draw(opened(FAMILIES[family]))
    choice: Choice = data.draw(choices)
    try:
        analysis = api.analyze(api.load(case.proto), api.AnalyzeOptions(input_shapes=case.sizes[0]))
    except UsageError:  # inputs with one name of a dimension have it in two sizes
        assume(False)
    assume(analysis.groups)
    keep = choice.keep(analysis)
    pruned = prune(analysis, keep)
    oracle = build_oracle(analysis, Kept(analysis, keep).mask)
    for sizes in case.sizes:
        feeds = _feeds(sizes)
        whole = _outputs(case, feeds)
        if whole is None:
            continue
        found = run(pruned, feeds)
        assert {name: value.shape for name, value in found.items()} == {n: value.shape for n, value in whole.items()}
        if family != "quantised":  # whose roundings jump
            expected = run(oracle.model, {**feeds, **oracle.masks})
            nearby = run(oracle.model, {**moved(feeds), **oracle.masks})
            for name, value in found.items():
                noise = deviation(expected[name], nearby[name])
                if FLOOR_FACTOR * noise <= WIDEST:  # what is nothing but rounding cannot be compared
                    assert deviation(expected[name], value) <= tolerance(value.dtype, noise)
