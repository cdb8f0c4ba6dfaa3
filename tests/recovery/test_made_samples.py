# SPDX-License-Identifier: Apache-2.0
"""Samples are made in the quality that is asked for, and the record says what refining brought."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphprune.accuracy import samples
from graphprune.analysis.analysis import Analysis
from graphprune.api import load
from graphprune.data.synthesis.make_samples import SampleOptions
from graphprune.errors import UsageError
from graphprune.recovery import made_samples as module
from graphprune.recovery.made_samples import REFINING_PASSES, made_samples
from graphprune.recovery.without_data import restorer_for

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def test_fine_samples_are_the_fast_ones_refined() -> None:
    model, told = load(DIGITS), []
    fast, fine = (
        made_samples(model, SampleOptions(32, quality=quality), lambda *step: told.append(step[0]))
        for quality in ("fast", "fine")
    )
    assert fast.refinement is None
    assert fine.refinement is not None
    assert fine.refinement.mismatch[1] < fine.refinement.mismatch[0]
    assert {"making samples", "refining samples"} <= set(told)
    index = np.arange(32)
    same = samples(model, "synthetic:fine:32")
    for name, values in fine.source.read(index).feeds.items():
        assert np.abs(values - fast.source.read(index).feeds[name]).max() > 0.01
        np.testing.assert_array_equal(values, same.read(index).feeds[name])


def test_what_refining_brought_is_recorded() -> None:
    facts = restorer_for(Analysis(load(DIGITS)), SampleOptions(32, quality="fine")).facts
    assert facts["refined"]["passes"] == REFINING_PASSES
    assert facts["refined"]["mismatch"][1] < facts["mismatch"][1]


def test_without_torch_fine_samples_are_refused_before_any_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(extra: str, what: str) -> None:
        raise UsageError(f"{extra} is not installed, but needed for {what}")

    monkeypatch.setattr(module, "require", missing)
    with pytest.raises(UsageError, match="synthetic:fine"):
        made_samples(load(DIGITS), SampleOptions(32, quality="fine"))
    assert made_samples(load(DIGITS), SampleOptions(32)).refinement is None
