"""Rules that compare values of f: sample by sample against the papers, and what is known of their variances."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import pgjax as pg
from pgjax import expectation as ex
from pgjax.expectation import mirrored, nodes, taken

from .over_nodes import WEIGHTS, estimates, moments

RNG = np.random.default_rng(3)


# --- ARM and DisARM -----------------------------------------------------------------------------------------------


def cube(a: Any) -> Any:
    """Of three bits, joined."""
    return (a @ np.array([1.0, -2.0, 0.5]) + 0.3) ** 3


def test_arm_and_disarm_are_the_formulas_of_the_papers_sample_by_sample() -> None:
    """Yin and Zhou (2019), equation of the ARM estimator; Dong et al. (2020), that of DisARM. Written with loops."""
    logits, us = np.array([0.4, -1.3, 0.1]), RNG.uniform(size=(40, 3))

    def papers(u: np.ndarray) -> tuple[Any, Any, Any]:
        p = special.expit(logits)
        plus, minus = 1.0 * (u > special.expit(-logits)), 1.0 * (u < p)
        arm = (cube(plus) - cube(minus)) * (u - 0.5)
        b, other = 1.0 * (1.0 - u > 1.0 - p), 1.0 * (u > 1.0 - p)
        signs = np.where(b != other, (-1.0) ** other, 0.0)
        return arm, 0.5 * (cube(b) - cube(other)) * signs * special.expit(np.abs(logits)), 0.5 * (cube(b) + cube(other))

    arm, disarm, mean = (np.array(x) for x in zip(*map(papers, us), strict=True))
    for of, by_hand in ((ex.arm, arm), (ex.disarm, disarm)):
        value, grads = estimates(of, pg.Bernoulli, cube, logits, {"u": us})
        np.testing.assert_allclose(grads, by_hand, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(value, mean, rtol=1e-12)
    assert np.abs(arm - disarm).max() > 0.1


def test_disarm_is_the_mean_of_arm_given_the_pair_and_both_beat_the_score_function() -> None:
    """The latter on E (x − 0.45)² of Tucker et al. (2017); the score function has no baseline."""
    square = lambda a: (a[..., 0] - 0.45) ** 2  # noqa: E731
    for f, logits in ((square, np.zeros(1)), (square, np.array([0.4])), (cube, np.array([0.4, -0.9, 0.1]))):
        found = [moments(of, pg.Bernoulli, f, logits) for of in (ex.score_function, ex.arm, ex.disarm)]
        for mean, *_ in found[1:]:
            np.testing.assert_allclose(mean, found[0][0], atol=1e-13)
        score, arm, disarm = (variance for _, variance, _ in found)
        assert disarm < arm
        assert arm < 0.5 * score or f is cube
    assert moments(ex.disarm, pg.Bernoulli, square, np.zeros(1))[1] < 1e-30  # the pair is always one and the other
    noise, w = nodes(ex.arm, pg.Bernoulli(np.array([0.4, -0.9, 0.1])))
    (_, arms), (_, means) = (
        estimates(of, pg.Bernoulli, cube, np.array([0.4, -0.9, 0.1]), noise) for of in (ex.arm, ex.disarm)
    )
    p = special.expit(np.array([0.4, -0.9, 0.1]))
    pairs = [tuple((u < p) * 2 + (1.0 - u < p)) for u in noise["u"]]
    for pair in set(pairs):
        these = [i for i, x in enumerate(pairs) if x == pair]
        mean = w[these] @ arms[these] / w[these].sum()
        np.testing.assert_allclose(means[these], np.broadcast_to(mean, (len(these), 3)), atol=1e-12)


# --- sampling without replacement ---------------------------------------------------------------------------------


def by_orders(p: np.ndarray, f: np.ndarray, chosen: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Kool et al. (2020) with every probability of a set summed over the orders in which it can be drawn."""

    def of_set(these: Any, gone: tuple[int, ...]) -> float:
        total = 0.0
        for order in itertools.permutations(these):
            left, weight = 1.0 - sum(p[i] for i in gone), 1.0
            for i in order:
                weight, left = weight * p[i] / left, left - p[i]
            total += weight
        return total

    without = lambda *gone: tuple(i for i in chosen if i not in gone)  # noqa: E731
    value, grad = 0.0, np.zeros_like(p)
    for s in chosen:
        ratio = of_set(without(s), (s,)) / of_set(chosen, ())
        second = {t: of_set(without(s, t), (s, t)) / of_set(without(s), (s,)) for t in without(s)}
        baseline = p[s] * f[s] + sum(p[t] * r * f[t] for t, r in second.items())
        value += p[s] * ratio * f[s]
        grad += p[s] * ratio * (f[s] - baseline) * (np.eye(len(p))[s] - p)
    return value, grad


def test_the_unordered_set_is_the_formula_of_the_paper_set_by_set() -> None:
    logits, table = RNG.normal(size=5), RNG.normal(size=5)
    p, f = special.softmax(logits), lambda a: jnp.asarray(table)[a]
    for number in (2, 3, 4):
        sets = list(itertools.combinations(range(5), number))
        value, grads = estimates(ex.unordered_set, pg.Categorical, f, logits, {"x": np.array(sets)}, num_samples=number)
        for i, chosen in enumerate(sets):
            by_hand = by_orders(p, table, chosen)
            np.testing.assert_allclose(value[i], by_hand[0], rtol=1e-12)
            np.testing.assert_allclose(grads[i], by_hand[1], atol=1e-13)


def test_sets_are_drawn_as_their_nodes_say() -> None:
    """The same actions are found from uniform numbers, as often as the weights of the nodes say: a χ² test."""
    logits = np.array([1.0, -0.5, 0.2, 0.0])
    n, d = 6000, pg.Categorical(jnp.asarray(logits))
    bits = lambda a: 2.0**a  # noqa: E731
    noise, w = nodes(ex.unordered_set, d, num_samples=2)
    of_sets, _ = estimates(ex.unordered_set, pg.Categorical, bits, logits, noise, num_samples=2)
    keys = jax.random.split(jax.random.key(5), n)
    drawn = jax.jit(jax.vmap(lambda key: ex.unordered_set.draw(key, d, num_samples=2)))(keys)
    assert drawn["x"].shape == (n, 4)
    value, _ = estimates(ex.unordered_set, pg.Categorical, bits, logits, drawn, num_samples=2)
    counts = (np.abs(value[:, None] - of_sets) < 1e-9).sum(0)
    assert counts.sum() == n
    assert stats.chisquare(counts, n * w).pvalue > 1e-4
    assert stats.chisquare(counts, np.full(6, n / 6)).pvalue < 1e-10
    # sum_and_sample: action 0 is summed, the others follow from one uniform number
    noise, w = nodes(ex.sum_and_sample, d, top=1)
    of_rest, _ = estimates(ex.sum_and_sample, pg.Categorical, bits, logits, noise, top=1)
    drawn = jax.jit(jax.vmap(lambda key: ex.sum_and_sample.draw(key, d)))(keys)
    value, _ = estimates(ex.sum_and_sample, pg.Categorical, bits, logits, drawn, top=1)
    counts = (np.abs(value[:, None] - of_rest) < 1e-9).sum(0)
    assert counts.sum() == n
    assert stats.chisquare(counts, n * w).pvalue > 1e-4
    assert stats.chisquare(counts, np.full(3, n / 3)).pvalue < 1e-10


def test_all_actions_are_the_exact_mean_also_where_some_cannot_happen() -> None:
    """With every possible action taken, both rules are `enumerated`; f may be infinite at the impossible ones."""
    table = np.array([0.4, np.inf, -1.0, 2.0])
    f = lambda a: jnp.asarray(table)[a]  # noqa: E731
    mask = np.array([True, False, True, True])
    for make, possible in (
        (lambda l: pg.Categorical(l, mask), 3),
        (lambda l: pg.Categorical(jnp.where(mask, l, -900.0)), 3),
    ):
        logits = np.array([0.3, 5.0, -1.0, 0.8])
        u = RNG.uniform(size=(20, 4))
        value, grad = jax.value_and_grad(lambda l, make=make: ex.enumerated.given({}, make(l), f))(logits)
        for of, noise, options in (
            (ex.unordered_set, {"x": u}, {"num_samples": possible}),
            (ex.unordered_set, {"x": u}, {"num_samples": 4}),
            (ex.sum_and_sample, {"x": u[:, 0]}, {"top": possible}),
            (ex.sum_and_sample, {"x": u[:, 0]}, {"top": 9}),
        ):
            values, grads = estimates(of, make, f, logits, noise, **options)
            np.testing.assert_allclose(values, np.full(20, value), rtol=1e-13)
            np.testing.assert_allclose(grads, np.broadcast_to(grad, (20, 4)), atol=1e-14)
        for of, noise, options in (
            (ex.measure_valued, {"x": u[:, 0], "w": ()}, {}),
            (ex.unordered_set, {"x": u}, {"num_samples": 2}),
            (ex.sum_and_sample, {"x": u[:, 0]}, {"top": 1}),
        ):
            assert all(np.isfinite(x).all() for x in estimates(of, make, f, logits, noise, **options))


def test_without_replacement_beats_leave_one_out_and_what_is_summed_does_not_vary() -> None:
    logits, table = np.array([0.2, -0.5, 0.4, 1.0]), np.array([1.0, 0.2, -0.7, 0.5])
    f = lambda a: jnp.asarray(table)[a]  # noqa: E731
    of = lambda rule, **options: moments(rule, pg.Categorical, f, logits, **options)  # noqa: E731
    exact = special.softmax(logits) * (table - special.softmax(logits) @ table)
    for number in (2, 3):
        (mean, ours, _), (_, theirs, _) = (
            of(ex.unordered_set, num_samples=number),
            of(ex.score_leave_one_out, num_samples=number),
        )
        np.testing.assert_allclose(mean, exact, atol=1e-14)
        assert ours < 0.8 * theirs
    variances = [of(ex.sum_and_sample, top=top)[1] for top in (1, 2, 3, 4)]
    assert of(ex.score_function)[1] > variances[0] > variances[1] > variances[2]
    assert variances[2] < 1e-30  # the rest is one action
    assert of(ex.unordered_set, num_samples=4)[1] < 1e-30


def parabola(x: Any) -> Any:
    """Quadratic in a vector of three, or in two bits."""
    w = WEIGHTS[: x.shape[-1], : x.shape[-1]]
    return jnp.einsum("...i,ij,...j", x, w, x) + x @ w[0]


@pytest.mark.parametrize("make", [pg.OneHotCategorical, lambda l: pg.Bernoulli(l[:2])], ids=["one-hot", "bits"])
def test_reinmax_is_exact_for_quadratic_functions_and_straight_through_is_not(make: Any) -> None:
    logits = np.array([0.4, -0.8, 0.2])
    truth = jax.jit(
        lambda f: jax.grad(lambda l: ex.enumerated.given({}, make(l), lambda a: f(1.0 * a)))(logits), static_argnums=0
    )
    mean = moments(ex.reinmax, make, parabola, logits)[0]
    np.testing.assert_allclose(mean, truth(parabola), atol=1e-14)
    quartic = lambda x: parabola(x) ** 2  # noqa: E731
    assert np.abs(moments(ex.reinmax, make, quartic, logits)[0] - truth(quartic)).max() > 1e-2
    assert np.abs(moments(ex.reinmax, make, parabola, logits, temperature=0.5)[0] - truth(parabola)).max() > 1e-2
    # Straight-through with the mean in place of the softened sample: ∂f/∂x at the action times ∂π/∂θ.
    noise, w = nodes(ex.score_function, make(logits))
    slopes = jax.jit(jax.vmap(jax.grad(parabola)))(1.0 * noise["x"].action)
    straight = jax.jit(jax.vmap(lambda s: jax.grad(lambda l: make(l).probs @ s)(logits)))(slopes)
    assert np.abs(w @ straight - truth(parabola)).max() > 1e-2


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_reinmax_is_the_algorithm_of_the_paper_sample_by_sample(temperature: float) -> None:
    """Liu et al. (2023), algorithm 2, with softmax and stop_gradient as they write it."""
    logits, stop = np.array([0.4, -0.8, 0.2]), jax.lax.stop_gradient

    def paper(l: Any, hard: Any) -> Any:
        first = jax.nn.softmax(l)
        second = 0.5 * (hard + jax.nn.softmax(l / temperature))
        second = jax.nn.softmax(stop(jnp.log(second) - l) + l)
        both = 2.0 * second - 0.5 * first
        return jnp.tanh(parabola(both - stop(both) + hard))

    actions = np.eye(3)
    by_hand = jax.jit(jax.vmap(jax.value_and_grad(paper), (None, 0)))(logits, actions)
    f = lambda x: jnp.tanh(parabola(x))  # noqa: E731
    ours = estimates(ex.reinmax, pg.OneHotCategorical, f, logits, {"x": taken(actions)}, temperature=temperature)
    for x, y in zip(ours, by_hand, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)
    # One bit is a choice between two, whose logits are l and 0.
    bits = estimates(
        ex.reinmax, pg.Bernoulli, lambda b: jnp.tanh(b[..., 0]), np.array([0.7]), {"x": taken(np.array([[0], [1]]))},
        temperature=temperature,
    )  # fmt: skip
    two = estimates(
        ex.reinmax, lambda l: pg.OneHotCategorical(jnp.concatenate([l, 0.0 * l])), lambda b: jnp.tanh(b[..., 0]),
        np.array([0.7]), {"x": taken(np.eye(2)[::-1])}, temperature=temperature,
    )  # fmt: skip
    np.testing.assert_allclose(bits[0], two[0], atol=1e-15)
    np.testing.assert_allclose(bits[1], two[1], atol=1e-14)


def test_at_a_traced_temperature_of_0_reinmax_has_its_limit() -> None:
    for make, action in ((pg.OneHotCategorical, np.eye(3)[1]), (pg.Bernoulli, np.array([0, 1, 1]))):
        f = lambda x: jnp.sum(jnp.sin(x + np.arange(3)), -1)  # noqa: E731
        at = jax.jit(
            jax.grad(
                lambda l, t, make=make, action=action, f=f: ex.reinmax.given(
                    {"x": taken(action)}, make(l), f, temperature=t
                )
            )
        )
        zero, small = (np.asarray(at(np.array([0.4, -0.8, 0.2]), t)) for t in (0.0, 1e-3))
        assert np.isfinite(zero).all()
        np.testing.assert_allclose(zero, small, atol=1e-12)


# --- all of them --------------------------------------------------------------------------------------------------


def test_identity_36_rebar_is_unbiased_at_any_temperature_and_scale_and_relaxed_samples_have_one_law() -> None:
    """Averaged over the action, the sample drawn given it has the law of the sample drawn before it."""
    logits, f = np.array([0.6]), lambda b: jnp.exp(b[..., 0]) + b[..., 0] ** 2
    noise, w = nodes(ex.rebar, pg.Bernoulli(logits), size=64)
    p = special.expit(0.6)
    exact = p * (1.0 - p) * math.e
    one = jax.grad(lambda l, n, t, s: ex.rebar.given(n, pg.Bernoulli(l), f, temperature=t, scale=s))
    run = jax.jit(jax.vmap(one, (None, 0, None, None)))
    for temperature, scale in ((0.4, 1.0), (1.0, 0.3), (3.0, -2.0), (1.0, 0.0)):
        np.testing.assert_allclose(w @ np.asarray(run(logits, noise, temperature, scale)), [exact], atol=1e-8)
    d, v = pg.Bernoulli(logits), noise["v"]
    given = np.asarray(d.relaxed_given(noise["x"].action, v))[:, 0]
    free = np.asarray(d.relaxed_from(noise["u"]))[:, 0]
    for g in (np.tanh, np.sin, lambda z: 1.0 / (1.0 + z**2)):
        assert w @ g(given) == pytest.approx(w @ g(free), abs=1e-8)
    assert abs(w @ np.tanh(np.where(noise["x"].action[:, 0] == 1, given, free)) - w @ np.tanh(free)) > 1e-2


def test_in_float32_with_logits_of_80_nothing_is_nan() -> None:
    key = jax.random.key(1)
    f = lambda a: jnp.sum(a * jnp.arange(1.0, 4.0, dtype=jnp.float32), -1) ** 2  # noqa: E731
    tried = [
        *((of, pg.Bernoulli, {}) for of in (ex.arm, ex.disarm, ex.measure_valued, ex.reinmax)),
        *((of, pg.OneHotCategorical, {}) for of in (ex.measure_valued, ex.reinmax, mirrored(ex.score_function))),
        (ex.reinmax, pg.OneHotCategorical, {"temperature": 1e-3}),
        *((ex.sum_and_sample, make, {"top": top}) for make in (pg.Bernoulli, pg.OneHotCategorical) for top in (1, 3)),
        *((ex.unordered_set, make, {"num_samples": 2}) for make in (pg.Bernoulli, pg.OneHotCategorical)),
        (ex.unordered_set, pg.OneHotCategorical, {"num_samples": 3}),
        (ex.measure_valued, lambda l: pg.TanhNormal(l, jnp.exp(-l)), {}),
    ]

    def every(logits: Any) -> Any:
        return [jax.value_and_grad(lambda l, r=r, m=m, o=o: r(key, m(l), f, **o))(logits) for r, m, o in tried]

    run = jax.jit(every)
    for logits in ([80.0, -80.0, 0.0], [80.0, 80.0, -80.0], [-80.0, -80.0, 80.0]):
        for (value, grad), (of, *_) in zip(run(jnp.array(logits, jnp.float32)), tried, strict=True):
            assert value.dtype == grad.dtype == jnp.float32
            assert np.isfinite(value), of
            assert np.isfinite(grad).all(), of


def test_an_infinite_value_that_happens_is_shown() -> None:
    """Where f is infinite at an action that was seen, the value is, and the gradient is NaN or infinite."""
    f = lambda a: jnp.where(a[..., 0] == 1, jnp.inf, 1.0)  # noqa: E731
    for of, noise, options in (
        (ex.arm, {"u": np.array([[0.1, 0.9]])}, {}),
        (ex.disarm, {"u": np.array([[0.1, 0.9]])}, {}),
        (ex.measure_valued, {"x": taken(np.array([[1, 0]])), "w": ()}, {}),
        (ex.unordered_set, {"x": np.array([[0, 3]])}, {"num_samples": 2}),
        (ex.sum_and_sample, {"x": np.array([3])}, {"top": 1}),
    ):
        value, grad = estimates(of, pg.Bernoulli, f, np.array([0.1, -0.2]), noise, **options)
        assert value[0] == np.inf
        assert not np.isfinite(grad).all()
