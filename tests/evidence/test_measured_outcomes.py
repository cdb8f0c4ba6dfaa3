# SPDX-License-Identifier: Apache-2.0
"""MeasuredOutcomes are what pruned networks give on held-out samples, however they are computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from outcome_cases import analysis, images, samples
from solver_cases import problem

from graphprune.analysis.analysis import Analysis
from graphprune.data.arrays import from_arrays
from graphprune.data.evaluation import evaluate
from graphprune.data.signature import input_specs
from graphprune.errors import PlanError, UsageError
from graphprune.evidence.measured_outcomes import MeasuredOutcomes
from graphprune.evidence.refits import Refits
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.evidence.sensitivity import SensitivityOptions, read_consumers
from graphprune.evidence.stages import node_stages
from graphprune.evidence.subgraphs import DenseOutputs, StageSubgraph
from graphprune.model.graph import Graph
from graphprune.solvers import widths
from graphprune.solvers.protocols.outcomes import Kept, Profile

NAMES = {"stem": 8, "first": 12, "down": 10, "third": 14}


@pytest.fixture(scope="module")
def outcomes() -> MeasuredOutcomes:
    return SampleEvidence(analysis(), samples()).outcomes


def whole(outcomes: MeasuredOutcomes) -> list[np.ndarray]:
    return [np.arange(group.size) for group in outcomes.analysis.groups]


def at(outcomes: MeasuredOutcomes, size: int) -> int:
    return next(number for number, group in enumerate(outcomes.analysis.groups) if group.size == size)


def narrowed(outcomes: MeasuredOutcomes, size: int, width: int) -> Kept:
    kept, group = whole(outcomes), at(outcomes, size)
    profile = outcomes.reconstructions(tuple(kept))[group]
    assert profile is not None
    kept[group] = profile.kept(width)
    return tuple(kept)


def test_groups_are_streams_or_lie_in_a_stage(outcomes: MeasuredOutcomes) -> None:
    sizes = [group.size for group in outcomes.analysis.groups]
    assert sorted(sizes) == [8, 10, 12, 14]
    assert [outcomes.streams[at(outcomes, size)] for size in (8, 12, 10, 14)] == [True, False, True, False]
    first, stream, second, last = (outcomes.stages[at(outcomes, size)] for size in (12, 8, 14, 10))
    assert stream == -1  # the layer of the next stage reads it
    assert second == last == first + 1


def test_resolutions_make_stages() -> None:
    made = analysis()
    stages = node_stages(made.graph, made.shapes.dims)
    of = {node.outputs[0]: stages[node.index] for node in made.graph.nodes if node.index in stages}
    assert {of[name] for name in "abcdefg"} == {0}
    assert {of[name] for name in ("h", "i", "o", "p", "scores")} == {1}
    assert node_stages(Graph(made.model.proto), {}).keys() == stages.keys()  # nothing known: a single stage


def test_the_whole_network_loses_nothing(outcomes: MeasuredOutcomes) -> None:
    found = outcomes.realise(tuple(whole(outcomes)))
    assert (found.error, found.score, found.measure) == (0.0, 1.0, "agreement")
    assert found.samples == 40


def test_recovery_pays_and_is_measured_on_samples_that_nothing_was_fitted_to(outcomes: MeasuredOutcomes) -> None:
    kept = tuple(np.arange(0, group.size, 2) for group in outcomes.analysis.groups)
    errors = [outcomes.realise(kept, method).error for method in ("none", "bn", "least-squares")]
    assert errors[0] > errors[1] > errors[2] > 0
    held = SensitivityOptions().divided(outcomes.source)[1]
    again = evaluate(outcomes.recovered(kept), held, outcomes.analysis.model)
    assert again.output_error == pytest.approx(errors[2], rel=1e-3)
    assert outcomes.realise(kept).score == again.agreement


def test_labels_count_where_there_are_some() -> None:
    labelled = SampleEvidence(analysis(), samples(labelled=True)).outcomes
    found = labelled.realise(tuple(np.arange(0, group.size, 2) for group in labelled.analysis.groups))
    assert found.measure == "accuracy" and 0.25 < found.score < 1
    held = labelled._options.divided(labelled.source)[1]
    assert {len(held)} == {found.samples}


def test_labels_that_are_no_classes_do_not_count() -> None:
    drawn = {"image": images(40, 1)}
    source = from_arrays("boxes", input_specs(analysis().model), drawn, np.zeros((40, 4), dtype=np.float32))
    made = SampleEvidence(analysis(), source).outcomes
    assert made.realise(tuple(whole(made))).measure == "agreement"


def test_what_cannot_be_tried_out(outcomes: MeasuredOutcomes) -> None:
    kept = tuple(whole(outcomes))
    with pytest.raises(UsageError, match="no recovery method 'magic'"):
        outcomes.realise(tuple(atoms[1:] for atoms in kept), "magic")
    stream = at(outcomes, 10)  # which the scores are made of
    with pytest.raises(PlanError, match=r"cannot keep nothing|can only be"):
        outcomes.realise(tuple(atoms[:0] if group == stream else atoms for group, atoms in enumerate(kept)))
    with pytest.raises(UsageError, match="cannot be held out"):
        SampleEvidence(analysis(), samples(1)).outcomes.reconstructions(kept)


def test_profiles_say_what_narrowing_one_group_does_to_the_outputs(outcomes: MeasuredOutcomes) -> None:
    levels = [np.arange(1, group.size + 1) for group in outcomes.analysis.groups]
    for profile, group in zip(
        outcomes.profiles(tuple(whole(outcomes)), levels, 4), outcomes.analysis.groups, strict=True
    ):
        assert profile is not None
        assert sorted(profile.order.tolist()) == list(range(group.size))
        assert profile.widths[-1] == group.size and len(profile.widths) == 5
        assert profile.errors[-1] == 0 and (np.diff(profile.errors) <= 0).all() and profile.errors[0] > 0.01
        assert profile.at(profile.widths) == pytest.approx(profile.errors)
        between = profile.at(np.arange(1, group.size + 1))
        assert (np.diff(between) <= 1e-12).all()


def test_errors_between_and_below_the_widths_measured() -> None:
    square = Profile(np.arange(8), np.array([2, 4, 8]), np.array([0.36, 0.16, 0.0]))
    assert square.at(np.arange(1, 9)) == pytest.approx([((8 - width) / 10) ** 2 for width in range(1, 9)])
    assert Profile(np.arange(3), np.array([3]), np.zeros(1)).at(np.array([1, 3])).tolist() == [0, 0]


def test_profiles_of_a_narrower_network_keep_the_numbers_of_atoms(outcomes: MeasuredOutcomes) -> None:
    kept = tuple(np.sort(np.random.default_rng(1).permutation(group.size)[:6]) for group in outcomes.analysis.groups)
    levels = [np.arange(1, group.size + 1) for group in outcomes.analysis.groups]
    for profile, atoms in zip(outcomes.profiles(kept, levels, 3), kept, strict=True):
        assert profile is not None
        assert sorted(profile.order.tolist()) == atoms.tolist()
        assert profile.widths.tolist() == [1, 3, 5, 6]
        assert set(profile.kept(3).tolist()) < set(atoms.tolist())


def test_reconstructions_do_not_grow_with_the_width(outcomes: MeasuredOutcomes) -> None:
    kept = whole(outcomes)
    kept[0] = kept[0][2:]
    for profile, atoms in zip(outcomes.reconstructions(tuple(kept)), kept, strict=True):
        assert profile is not None
        assert sorted(profile.order.tolist()) == atoms.tolist()
        assert len(profile.errors) == len(profile.widths) == len(atoms)
        assert (np.diff(profile.errors) <= 0).all() and profile.errors[-1] == 0


def test_going_forward_measures_what_was_chosen_so_far(outcomes: MeasuredOutcomes) -> None:
    seen: list[tuple[int, float, float]] = []

    def choose(group: int, profile: Profile, score: object) -> int:
        before, after = score(len(profile.order)), score(3)  # type: ignore[operator]
        seen.append((group, before, after))
        return 3 if outcomes.analysis.groups[group].size == 12 else len(profile.order)

    outcomes.go_forward(tuple(whole(outcomes)), choose)
    groups = [group for group, _, _ in seen]
    assert sorted(groups) == [0, 1, 2, 3]
    place = groups.index(at(outcomes, 12))
    assert all(before == 1.0 for _, before, _ in seen[: place + 1])
    assert all(before == seen[place][2] for _, before, _ in seen[place + 1 :])  # what was chosen stays
    assert min(after for _, _, after in seen) < 1
    # What is written for one pass is not there in the next.
    outcomes.go_forward(tuple(whole(outcomes)), choose)
    assert seen[4:] == seen[:4]


def test_a_stage_loses_nothing_at_full_width_and_does_not_depend_on_others(outcomes: MeasuredOutcomes) -> None:
    refits = Refits(outcomes.analysis, read_consumers(outcomes.analysis, outcomes.source), 1e-3)
    dense = DenseOutputs(outcomes.analysis, outcomes.source)
    graph = refits.editable.graph
    stages = node_stages(graph, outcomes.analysis.shapes.dims)
    piece = StageSubgraph(refits, dense, [graph.nodes[index] for index, stage in stages.items() if stage == 1])
    assert piece.error({at(outcomes, 14): np.arange(14), at(outcomes, 10): np.arange(10)}) < 1e-6
    second = outcomes.stages[at(outcomes, 14)]
    one, other = narrowed(outcomes, 14, 5), list(narrowed(outcomes, 14, 5))
    other[at(outcomes, 12)] = np.arange(2)
    kept = [one, tuple(other), tuple(whole(outcomes)), narrowed(outcomes, 14, 2)]
    errors = outcomes.stage_errors(second, kept)
    assert errors[0] == errors[1] > errors[2] == 0
    assert errors[3] > errors[0]


def test_atoms_that_others_imply_cost_nothing() -> None:
    """CaP: where a removed channel is a function of those kept, what reads it gives the same as before."""
    made = analysis()
    editable = Refits(made, read_consumers(made, samples()), 1e-6).editable
    first = editable.read("first").copy()
    first[7] = 2.0 * first[3]  # behind a ReLU still twice the other channel
    editable.write("first", first)
    doubled = Analysis(editable.finished())
    outcomes = SampleEvidence(doubled, samples()).outcomes
    group = at(outcomes, 12)
    profile = outcomes.reconstructions(tuple(whole(outcomes)))[group]
    assert profile is not None and profile.order[0] in (3, 7)
    kept = whole(outcomes)
    kept[group] = np.delete(kept[group], profile.order[0])
    assert outcomes.realise(tuple(kept)).error < 1e-4


def test_equal_seeds_give_equal_outcomes() -> None:
    found = []
    for _ in range(2):
        outcomes = SampleEvidence(analysis(), samples(), seed=3).outcomes
        kept = narrowed(outcomes, 14, 6)
        found.append((kept[at(outcomes, 14)].tolist(), outcomes.realise(kept)))
    assert found[0][0] == found[1][0]
    assert vars(found[0][1]) == vars(found[1][1])


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    made = SampleEvidence(analysis(), samples(), listen=lambda *what: told.append(what)).outcomes
    made.realise(narrowed(made, 14, 6))
    made.profiles(tuple(whole(made)), [np.array([2, group.size]) for group in made.analysis.groups], 1)
    assert {what for what, _, _ in told} == {"reading", "recovering", "measuring groups"}
    assert all(0 <= done <= total for _, done, total in told)


def test_the_present_network_measures_what_profiles_measure(outcomes: MeasuredOutcomes) -> None:
    kept = tuple(whole(outcomes))
    present, sizes = outcomes.present(kept), [group.size for group in outcomes.analysis.groups]
    levels = [np.arange(1, size + 1) for size in sizes]
    by_width = outcomes.profiles(kept, levels, 1)
    probes = np.array([-1 if profile is None else profile.widths[0] for profile in by_width])
    for error, curve, profile in zip(present.errors(probes), present.curves, by_width, strict=True):
        assert profile is not None and curve is not None
        assert error == profile.errors[0]
        assert curve.order.tolist() == profile.order.tolist() and (np.diff(curve.errors) <= 0).all()
    only = np.where(np.arange(len(sizes)) == 1, 3, -1)
    assert np.isnan(present.errors(only)).tolist() == [True, False, True, True]


def test_in_a_narrower_network_atoms_have_the_numbers_of_the_dense_one(outcomes: MeasuredOutcomes) -> None:
    kept = tuple(np.arange(1, group.size, 2) for group in outcomes.analysis.groups)
    present = outcomes.present(kept)
    for curve, atoms in zip(present.curves, kept, strict=True):
        assert curve is not None
        assert sorted(curve.order.tolist()) == atoms.tolist() and curve.widths[-1] == len(atoms)
    errors = present.errors(np.array([1 for _ in kept]))
    assert np.isfinite(errors).all() and errors.max() > 0.1
    assert present.errors(np.array([len(atoms) for atoms in kept])).tolist() == pytest.approx([0.0] * 4, abs=0.01)


def test_scaled_curves_choose_widths_about_as_good_as_measuring_all_of_them(outcomes: MeasuredOutcomes) -> None:
    case = problem([group.size for group in outcomes.analysis.groups], share=0.5)
    evidence = SampleEvidence(analysis(), samples())
    made = {how: widths.get("sensitivity")(replace(case, evidence=evidence), measure=how) for how in ("scaled", "full")}
    errors = {how: outcomes.realise(solution.kept).error for how, solution in made.items() if solution.kept}
    assert errors["scaled"] < 1.25 * errors["full"]


def test_a_group_may_go_as_a_whole_and_is_measured_like_any_width(outcomes: MeasuredOutcomes) -> None:
    kept, group = whole(outcomes), at(outcomes, 12)
    probes = np.where(np.arange(len(kept)) == group, 0, -1)
    lost = outcomes.present(tuple(kept)).errors(probes)[group]
    kept[group] = kept[group][:0]
    error = outcomes.realise(tuple(kept)).error
    assert 0.01 < error <= lost  # recovery makes up for some of it downstream
    present = outcomes.present(tuple(kept))
    assert [curve is None for curve in present.curves] == [own == group for own in range(len(kept))]
