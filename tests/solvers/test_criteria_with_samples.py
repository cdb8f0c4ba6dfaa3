# SPDX-License-Identifier: Apache-2.0
"""Criteria that look at samples: what they make of the evidence, and of groups of which it shows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from evidence_cases import MadeUp, made_up
from sklearn.linear_model import Lasso
from solver_cases import Group, member

from graphprune.errors import UsageError
from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material
from graphprune.solvers.criteria._seen import UNSEEN
from graphprune.solvers.criteria.cpli import _entries as entries
from graphprune.solvers.criteria.cpli import gram
from graphprune.solvers.protocols.observed import Flow
from graphprune.solvers.protocols.reading import Reading

RNG = np.random.default_rng(11)
ASKING = [name for name in criteria.names() if criteria.needs_samples(name)]
NAN, INF = np.nan, np.inf


def groups(*sizes: int) -> tuple[list[Group], dict[str, np.ndarray]]:
    """Return groups that are each made by one convolution and read by another."""
    tensors = {f"made{i}.w": RNG.standard_normal((size, 2, 3, 3)) for i, size in enumerate(sizes)}
    tensors |= {f"read{i}.w": RNG.standard_normal((4, size, 1, 1)) for i, size in enumerate(sizes)}
    found = [
        Group(
            f"g{i:03}",
            size,
            (member(f"made{i}.w", 0, "out", "Conv", 1, size), member(f"read{i}.w", 1, "in", "Conv", 1, size)),
        )
        for i, size in enumerate(sizes)
    ]
    return found, tensors


def test_all_of_them_are_known() -> None:
    assert ASKING == ["cpli", "fisher", "hrank", "reconstruct", "taylor"]


@pytest.mark.parametrize("name", ASKING)
def test_without_samples_they_say_how_to_give_some(name: str) -> None:
    found, tensors = groups(4)
    with pytest.raises(UsageError, match=f"'{name}' looks at samples, and none are given") as raised:
        criteria.get(name)(Material(found, tensors.__getitem__))
    assert raised.value.hint == "give some with --calib SOURCE"


@pytest.mark.parametrize("name", ASKING)
def test_settings_out_of_range_and_aggregation_are_refused(name: str) -> None:
    found, tensors = groups(4)
    with pytest.raises(UsageError, match="'samples' is 0"):
        criteria.get(name)(Material(found, tensors.__getitem__, evidence=made_up([4])), samples=0)
    with pytest.raises(UsageError, match="aggregated by 'max'"):
        criteria.get(name)(Material(found, tensors.__getitem__, 0, "max", made_up([4])))


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN, INF])
def test_a_ridge_that_is_none(bad: float) -> None:
    found, tensors = groups(4)
    with pytest.raises(UsageError, match="'ridge'"):
        criteria.get("reconstruct")(Material(found, tensors.__getitem__, evidence=made_up([4])), ridge=bad)


@pytest.mark.parametrize("name", ["taylor", "fisher", "hrank"])
@pytest.mark.parametrize("bad", [None, np.array([1.0, NAN, 2.0]), np.array([1.0, INF, 2.0])])
def test_a_group_that_is_not_seen_is_ranked_by_norms_and_counts_as_average(name: str, bad: np.ndarray | None) -> None:
    found, tensors = groups(4, 3, 2)
    evidence = MadeUp([np.array([1.0, 2.0, 3.0, 4.0]), bad, np.array([0.0, 1.0])])
    scores = criteria.get(name)(Material(found, tensors.__getitem__, evidence=evidence))
    assert scores.per_group[0].tolist() == [1, 2, 3, 4]
    assert scores.per_group[1].mean() == pytest.approx((2.5 + 0.5) / 2)
    norms = criteria.get("l2")(Material(found[1:2], tensors.__getitem__)).per_group[0]
    np.testing.assert_allclose(scores.per_group[1] / scores.per_group[1][0], norms / norms[0])
    assert scores.source[1] == UNSEEN != scores.source[0] == scores.source[2]


@pytest.mark.parametrize("values", [(None, None), (np.zeros(4), np.zeros(3)), (None, np.zeros(3))])
def test_where_nothing_is_seen_at_all_norms_stand_in(values: tuple[np.ndarray | None, ...]) -> None:
    found, tensors = groups(4, 3)
    scores = criteria.get("taylor")(Material(found, tensors.__getitem__, evidence=MadeUp(values)))
    norms = criteria.get("l2")(Material(found, tensors.__getitem__))
    for own, other in zip(scores.per_group, norms.per_group, strict=True):
        np.testing.assert_array_equal(own, other)
    assert not scores.comparable
    assert all("L2 norm" in text and "(" in text for text in scores.source)


def test_taylor_asks_for_its_form() -> None:
    found, tensors = groups(4)
    evidence = made_up([4])
    material = Material(found, tensors.__getitem__, evidence=evidence)
    criteria.get("taylor")(material, samples=7)
    criteria.get("taylor")(material, form="weight")
    assert evidence.asked == [("activation", 7), ("weight", 1024)]
    with pytest.raises(UsageError, match="'form' cannot be 'both'"):
        criteria.get("taylor")(material, form="both")


def test_scores_do_not_show_what_the_order_of_summation_changes() -> None:
    found, tensors = groups(3)
    exact = np.array([0.123456789, 1.0, 2.0])
    one, other = (
        criteria.get("fisher")(Material(found, tensors.__getitem__, evidence=MadeUp([exact * factor]))).per_group[0]
        for factor in (1.0, 1.0 + 3e-9)
    )
    assert one.tolist() == other.tolist() == [0.123457, 1.0, 2.0]


def test_reconstruct_scores_are_the_errors_before_an_atom_is_chosen() -> None:
    found, tensors = groups(5)
    evidence = made_up([5])
    scores = criteria.get("reconstruct")(Material(found, tensors.__getitem__, evidence=evidence)).per_group[0]
    order = np.argsort(-scores)
    assert scores.max() == pytest.approx(1.0)
    assert (np.diff(scores[order]) < 0).all()
    from graphprune.solvers.criteria._forward import forward_selection

    selection = forward_selection(evidence.seen[0], 1e-3)  # type: ignore[arg-type]
    assert order.tolist() == selection.order.tolist()
    np.testing.assert_allclose(scores[order], selection.errors[:-1], rtol=1e-5)


def design(size: int, outputs: int, seed: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray, Reading]:
    """Return centred inputs, weights, and what a reading says of them; two taps per atom."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 2 * size)) @ rng.standard_normal((2 * size, 2 * size))
    x -= x.mean(axis=0)
    weight = rng.standard_normal((2 * size, outputs))
    columns = rng.permutation(2 * size).reshape(size, 2)
    return x, weight, Reading(x.T @ x / rows, weight, columns)


def parts(x: np.ndarray, reading: Reading, weights: np.ndarray) -> np.ndarray:
    """Return each atom's part in the weighted outputs of every row, shape (rows * outputs, atoms)."""
    made = [(x[:, own] @ reading.weight[own] * weights).ravel() for own in reading.columns]
    return np.stack(made, axis=1) / np.sqrt(len(x))


def test_the_gram_form_is_that_of_the_explicit_design() -> None:
    weights = RNG.random(4) + 0.2
    x, _, reading = design(6, 4, 1)
    explicit = parts(x, reading, weights)
    expected = explicit.T @ explicit
    np.testing.assert_allclose(gram([reading], [weights]), expected / expected.sum(), atol=1e-10)


def test_the_path_is_that_of_the_lasso() -> None:
    x, _, reading = design(6, 4, 2)
    explicit = parts(x, reading, np.ones(4))
    explicit /= np.linalg.norm(explicit.sum(axis=1))
    found = entries(gram([reading], [np.ones(4)]))
    for penalty in np.quantile(found, [0.1, 0.4, 0.7, 0.9]) * 1.01:
        lasso = Lasso(penalty / len(explicit), fit_intercept=False, tol=1e-10, max_iter=100_000)
        lasso.fit(explicit, explicit.sum(axis=1))
        assert (lasso.coef_ != 0).tolist() == (found > penalty).tolist()


def test_scaling_the_weights_of_outputs_changes_nothing_and_an_output_of_weight_0_has_no_say() -> None:
    _, _, reading = design(6, 4, 3)
    weights = np.array([0.0, 1.0, 0.5, 2.0])
    plain = entries(gram([reading], [weights]))
    np.testing.assert_allclose(entries(gram([reading], [7 * weights])), plain, rtol=1e-9)
    changed = reading.weight.copy()
    changed[:, 0] = RNG.standard_normal(len(changed))
    other = Reading(reading.gram, changed, reading.columns)
    np.testing.assert_allclose(entries(gram([other], [weights])), plain, rtol=1e-9)


def test_of_two_equal_atoms_one_never_enters() -> None:
    x = np.random.default_rng(4).standard_normal((100, 3))[:, [0, 1, 2, 1]]
    weight = np.random.default_rng(5).standard_normal((3, 4))[[0, 1, 2, 1]]
    found = entries(gram([Reading(x.T @ x / 100, weight, np.arange(4)[:, None])], [np.ones(4)]))
    assert sorted(found[[1, 3]] > 0) == [False, True]
    assert (found[[0, 2]] > 0).all()
    assert not entries(np.zeros((3, 3))).any()


def test_outputs_that_are_likely_to_go_hardly_count() -> None:
    """The reader makes channels of a group itself; with gradients 0 and 1 half of them are taken to go."""
    size = 4
    first = Group("g000", size, (member("a.w", 0, "out", "Conv", 1, size), member("b.w", 1, "in", "Conv", 1, size)))
    second = Group("g001", 2, (member("b.w", 0, "out", "Conv", 1, 2),))
    tensors = {"a.w": np.ones((size, 1, 1, 1)), "b.w": np.ones((2, size, 1, 1))}
    gram_of = np.diag(np.arange(1.0, 5.0))
    weight = np.array([[9.0, 0.1], [0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    reading = Reading(gram_of, weight, np.arange(size)[:, None], "b.w")
    evidence = MadeUp((), [(reading,), None], [(np.array([1.0, 1.1]),), None])
    material = Material([first, second], tensors.__getitem__, evidence=evidence)
    alike = criteria.get("cpli")(material, suppress=1.0).per_group[0]
    apart = criteria.get("cpli")(material, suppress=0.0).per_group[0]
    assert alike.argmax() == 0  # by the first output, which is the less sensitive one and goes
    assert apart.argmax() == 3
    assert criteria.get("cpli")(material, suppress=0.0, keep=1.0).per_group[0].tolist() == alike.tolist()
    for name in ("suppress", "keep"):
        with pytest.raises(UsageError, match=f"'{name}' is 2"):
            criteria.get("cpli")(material, **{name: 2.0})


def test_domino_with_weights_times_gradients_adds_up_what_is_deleted() -> None:
    found, tensors = groups(4)
    products = {name: np.abs(RNG.standard_normal(value.shape)) for name, value in tensors.items()}
    material = Material(found, tensors.__getitem__, evidence=MadeUp(per_tensor=products))
    made, read = products["made0.w"].sum(axis=(1, 2, 3)), products["read0.w"].sum(axis=(0, 2, 3))
    outputs, both = (criteria.get(name)(material, base="taylor") for name in ("domino-o", "domino-io"))
    np.testing.assert_allclose(outputs.per_group[0], made, rtol=1e-5)
    np.testing.assert_allclose(both.per_group[0], made + read, rtol=1e-5)
    assert outputs.comparable
    scaled = criteria.get("domino-io")(material, base="taylor", scale="count").per_group[0]
    np.testing.assert_allclose(scaled, (made + read) / (2 * 9 + 4), rtol=1e-5)


def test_domino_leaves_out_weights_that_training_does_not_reach() -> None:
    found, tensors = groups(4, 3)
    products = {"made0.w": np.abs(tensors["made0.w"])}
    material = Material(found, tensors.__getitem__, evidence=MadeUp(per_tensor=products))
    scores = criteria.get("domino-io")(material, base="taylor")
    np.testing.assert_allclose(scores.per_group[0], products["made0.w"].sum(axis=(1, 2, 3)), rtol=1e-5)
    assert scores.source[1] == UNSEEN


@pytest.mark.parametrize(("base", "squared"), [("taylor-activation", False), ("fisher", True)])
def test_domino_with_activations_adds_up_layers(base: str, squared: bool) -> None:
    found, tensors = groups(3)
    flow = Flow(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.0, 0.25]), np.full(3, 36.0), np.full(3, 16.0))
    evidence = MadeUp(around=[flow])
    material = Material(found, tensors.__getitem__, evidence=evidence)
    assert criteria.get("domino-o")(material, base=base).per_group[0].tolist() == [1, 2, 3]
    assert criteria.get("domino-io")(material, base=base).per_group[0].tolist() == [1.5, 2, 3.25]
    mean = criteria.get("domino-io")(material, base=base, scale="count").per_group[0]
    np.testing.assert_allclose(mean, np.array([1.5, 2, 3.25]) / 52, rtol=1e-5)
    removed = criteria.get("domino-o")(material, base=base, scale="weights-removed").per_group[0]
    np.testing.assert_allclose(removed, np.array([1, 2, 3]) / (18 + 4), rtol=1e-5)
    assert evidence.asked == [squared] * 4


def test_domino_with_gradients_needs_samples() -> None:
    found, tensors = groups(3)
    for base in ("taylor", "taylor-activation", "fisher"):
        with pytest.raises(UsageError, match="looks at samples"):
            criteria.get("domino-io")(Material(found, tensors.__getitem__), base=base)
