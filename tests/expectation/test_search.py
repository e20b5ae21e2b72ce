"""Searches over parameters: closed forms on quadratic functions, the score function, and loops."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation as ex
from pgjax.expectation import _probes

from .search_cases import CURVATURE, HEIGHT, KEY, SIGMA, SLOPE, THETA, close, quadratic, quartic


def of_noise(search: Callable[[], Any], noise: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a search gives for each of many sets of noise [M, N, P]."""

    def one(rows: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(_probes.Probes, "noise", lambda self, index: rows[index])
            return search()

    return jax.jit(jax.vmap(one))(jnp.asarray(noise))


def normal_nodes(count: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes of `num` standard normal numbers [count^num, num], and weights."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    w = w / w.sum()
    return np.array(list(itertools.product(x, repeat=num))), np.prod(list(itertools.product(w, repeat=num)), axis=1)


def moments(grads: Any, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean, and mean of the squared length."""
    return weights @ np.asarray(grads), float(weights @ np.square(grads).sum(1))


# --- moments ----------------------------------------------------------------------------------------------------------


def test_identity_23_second_moments_of_evolution_strategies_on_a_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    noise, weights = normal_nodes(4, 2)  # exact up to degree 7
    trace, square, d = np.trace(CURVATURE), np.trace(CURVATURE @ CURVATURE), 2
    length = SLOPE @ SLOPE

    def found(**kwargs: Any) -> tuple[np.ndarray, float]:
        search = lambda: ex.evolution_strategy(KEY, THETA, quadratic, num_pairs=1, scale=SIGMA, **kwargs)[0]  # noqa: E731
        return moments(of_noise(search, noise[:, None], monkeypatch), weights)

    def one_sided(height: float) -> float:
        return (
            d * height**2
            + SIGMA**2 * (d + 2) * length
            + SIGMA**4 * (d + 4) * (trace**2 + 2 * square) / 4
            + SIGMA**2 * (d + 2) * height * trace
        ) / SIGMA**2

    forward = (d + 2) * length + SIGMA**2 * (d + 4) * (trace**2 + 2 * square) / 4
    for kwargs, second in (
        ({"antithetic": False}, one_sided(HEIGHT)),
        ({"antithetic": False, "baseline": 0.3}, one_sided(HEIGHT - 0.3)),
        ({"antithetic": False, "baseline": HEIGHT}, forward),
        ({}, (d + 2) * length),
    ):
        mean, got = found(**kwargs)
        close(mean, SLOPE)
        close(got, second)
    assert abs(one_sided(HEIGHT) - forward) > 1.0


def test_evolution_strategies_are_unbiased_for_the_smoothed_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """E f(θ + σε) = θ0⁴ + 6 θ0² σ0² + 3 σ0⁴ + θ0 (θ1² + σ1²), with a scale for each parameter."""
    noise, weights = normal_nodes(4, 2)
    scale = np.array([0.3, 0.8])
    (a, b), (s, r) = THETA, scale
    smoothed = [4 * a**3 + 12 * a * s**2 + b**2 + r**2, 2 * a * b]
    for antithetic in (True, False):
        search = lambda anti=antithetic: ex.evolution_strategy(  # noqa: E731
            KEY, THETA, quartic, num_pairs=1, scale=scale, antithetic=anti
        )[0]
        mean, _ = moments(of_noise(search, noise[:, None], monkeypatch), weights)
        close(mean, smoothed)
    assert np.abs(smoothed - np.asarray(jax.jit(jax.grad(quartic))(jnp.asarray(THETA)))).max() > 0.1


def test_pgpe_is_unbiased_for_mean_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    noise, weights = normal_nodes(4, 2)
    scale = np.array([0.3, 0.8])
    (a, b), (s, r) = THETA, scale
    wanted = [4 * a**3 + 12 * a * s**2 + b**2 + r**2, 2 * a * b], [12 * a**2 * s + 12 * s**3, 2 * a * r]
    for baseline in (0.0, 2.5):
        search = lambda b=baseline: ex.pgpe(KEY, THETA, quartic, num_pairs=1, scale=scale, baseline=b)[0]  # noqa: E731
        for found, true in zip(of_noise(search, noise[:, None], monkeypatch), wanted, strict=True):
            close(weights @ np.asarray(found), true)
    # Pairs of one parameter, with the mean over the other pair as the baseline; its own would halve the gradient.
    rows, pair_weights = normal_nodes(5, 2)
    line = lambda x: quadratic(jnp.array([1.0, 0.5]) * x + THETA)  # noqa: E731
    search = lambda: ex.pgpe(KEY, jnp.zeros(1), line, num_pairs=2, scale=SIGMA)[0]  # noqa: E731
    mean, spread = of_noise(search, rows[:, :, None], monkeypatch)
    along = np.array([1.0, 0.5])
    close(pair_weights @ np.asarray(mean), [SLOPE @ along])
    close(pair_weights @ np.asarray(spread), [SIGMA * along @ CURVATURE @ along])


def test_spsa_over_all_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbiased on a quadratic, with variance (P - 1)‖g‖²; on a sum of cubes the bias is ε² in each entry."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))
    uniform = np.full(4, 0.25)

    def found(f: Any) -> tuple[np.ndarray, float]:
        search = lambda: ex.spsa(KEY, THETA, f, epsilon=0.2)[0]  # noqa: E731
        return moments(of_noise(search, signs[:, None], monkeypatch), uniform)

    mean, square = found(quadratic)
    close(mean, SLOPE)
    close(square, 2 * SLOPE @ SLOPE)
    close(found(lambda x: jnp.sum(x**3))[0], 3 * THETA**2 + 0.04)
    slope = np.array([1.0, 10.0, 100.0])
    grads, _ = jax.vmap(lambda key: ex.spsa(key, jnp.zeros(3), lambda x: slope @ x, epsilon=0.2))(
        jax.random.split(KEY, 64)
    )
    drawn = np.sign(grads)
    close(np.abs(grads), np.abs(drawn @ slope)[:, None] * np.ones(3))
    assert len({tuple(row) for row in drawn * drawn[:, 2:]}) == 4  # signs relative to the last one, whose term leads


def test_finite_differences_err_as_taylor_says() -> None:
    cubes = lambda x: jnp.sum(x**3)  # noqa: E731

    @jax.jit
    def run(x: Any, epsilon: Any) -> Any:
        of = functools.partial(ex.finite_difference, x, epsilon=epsilon)
        return of(cubes), of(cubes, one_sided=True), of(quadratic)

    for steps in (np.array([0.1, 0.1]), np.array([0.1, 0.3])):
        (central, info), (forward, forward_info), (square, _) = run(THETA, steps)
        close(central, 3 * THETA**2 + steps**2)
        close(info.value, np.sum(THETA**3) + np.mean(3 * THETA * steps**2))
        close(forward, 3 * THETA**2 + 3 * THETA * steps + steps**2)
        close(forward_info.value, np.mean([np.sum(THETA**3), *(np.sum((THETA + e) ** 3) for e in np.diag(steps))]))
        close(square, SLOPE)


# --- one thing, two names ---------------------------------------------------------------------------------------------


def test_the_one_sided_form_is_the_score_function_on_a_normal_over_the_parameters() -> None:
    x, keys = jnp.asarray(THETA), jax.random.split(KEY, 5)
    for baseline in (0.0, 1.3):

        def both(key: Any, baseline: Any = baseline) -> Any:
            def draw(j: int) -> Any:
                f = lambda y: y[j] - x[j]  # noqa: E731
                return ex.evolution_strategy(key, x, f, num_pairs=1, scale=SIGMA, antithetic=False)[1].value / SIGMA

            noise = {"x": jnp.stack([draw(0), draw(1)])}
            f = lambda y: quadratic(y) + jnp.tanh(y[0])  # noqa: E731
            by_score = jax.value_and_grad(
                lambda loc: ex.score_function.given(noise, pg.Normal(loc, SIGMA), f, baseline=baseline)
            )(x)
            by_search = ex.evolution_strategy(key, x, f, num_pairs=1, scale=SIGMA, antithetic=False, baseline=baseline)
            return by_score, (by_search[1].value, by_search[0])

        for ours, theirs in zip(*jax.vmap(both)(keys), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14)
            assert len(np.unique(ours)) == np.size(ours)


def test_the_mean_of_pgpe_is_the_antithetic_evolution_strategy() -> None:
    kwargs = {"num_pairs": 6, "scale": SIGMA}
    (mean, _), _ = ex.pgpe(KEY, THETA, quartic, **kwargs)
    noise = noise_of(6)
    values = both_sides(noise)
    close(mean, (values[:, 0] - values[:, 1]) @ noise / (2 * 6 * SIGMA))
    close(ex.evolution_strategy(KEY, THETA, quartic, **kwargs)[0], mean)


# --- shaping, ARS -----------------------------------------------------------------------------------------------------


def utilities(order: int, n: int) -> float:
    raw = [max(0.0, np.log(n / 2 + 1) - np.log(k)) for k in range(1, n + 1)]
    return 1 / n - raw[order] / sum(raw)


def test_shaping_goes_by_ranks_alone() -> None:
    values = jnp.array([3.0, -1.0, 40.0, 0.5, -7.0])
    order = [3, 1, 4, 2, 0]
    for shaping, table in ((ex.centered_ranks, lambda k, n: k / (n - 1) - 0.5), (ex.nes_utilities, utilities)):
        close(shaping(values), [table(k, 5) for k in order])
        close(shaping(jnp.exp(values)), shaping(values))
        close(jnp.sum(shaping(values)), 0.0)
        close(shaping(jnp.array([1.0, 5.0, 5.0, 5.0])), [table(0, 4), *[np.mean([table(k, 4) for k in (1, 2, 3)])] * 3])
        close(shaping(jnp.array([2.0, jnp.nan, jnp.inf])), [table(0, 3), *[np.mean([table(k, 3) for k in (1, 2)])] * 2])
        close(shaping(jnp.full(3, 2.0)), 0.0)
        close(shaping(jnp.ones(1)), 0.0)


def noise_of(num: int) -> np.ndarray:
    """The noise of a search, [N, 2]: that of pair i comes from the key folded with i."""
    one = lambda i: jax.random.normal(jax.random.fold_in(KEY, i), (2,), float)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(num)))


def both_sides(noise: np.ndarray) -> np.ndarray:
    return np.array([[quartic(THETA + sign * SIGMA * e) for sign in (1, -1)] for e in noise])


@pytest.mark.parametrize("shaping", [ex.centered_ranks, ex.nes_utilities])
def test_evolution_strategies_with_ranks_agree_with_loops(shaping: Any) -> None:
    n = 5
    noise = noise_of(n)
    values = both_sides(noise)
    u = np.asarray(shaping(jnp.asarray(values.ravel()))).reshape(n, 2)
    wanted = sum((u[i, 0] - u[i, 1]) * noise[i] for i in range(n)) / (2 * n * SIGMA)
    kwargs = {"num_pairs": n, "scale": SIGMA, "shaping": shaping}
    found = jax.jit(
        lambda key, x: [
            ex.evolution_strategy(key, x, quartic, **kwargs)[0],
            ex.evolution_strategy(key, x, lambda y: jnp.exp(3 * quartic(y)), **kwargs)[0],
            ex.evolution_strategy(key, x, quartic, **kwargs, antithetic=False)[0],
        ]
    )(KEY, THETA)
    close(found[0], wanted)
    close(found[1], wanted)
    close(found[2], np.asarray(shaping(jnp.asarray(values[:, 0]))) @ noise / (n * SIGMA))


def test_ars_agrees_with_a_loop() -> None:
    n, top = 7, 3
    noise = noise_of(n)
    values = both_sides(noise)
    order = sorted(range(n), key=lambda i: min(values[i]))
    out = THETA + SIGMA * noise[order[-1]]
    holes = lambda x: jnp.where(jnp.abs(x[0] - out[0]) < 1e-9, jnp.nan, quartic(x))  # noqa: E731
    kwargs = {"num_pairs": n, "scale": SIGMA}
    three, seven, moved, with_hole = jax.jit(
        lambda key, x: [
            ex.ars(key, x, quartic, **kwargs, num_top=top),
            ex.ars(key, x, quartic, **kwargs, num_top=n),
            ex.ars(key, x, lambda y: 5.0 + 3.0 * quartic(y), **kwargs, num_top=top, chunk_size=2),
            ex.ars(key, x, holes, **kwargs, num_top=top),
        ]
    )(KEY, THETA)
    for (step, info), best in ((three, order[:top]), (seven, order)):
        wanted = sum((values[i, 0] - values[i, 1]) * noise[i] for i in best) / (len(best) * np.std(values[best]))
        close(step, wanted)
        close(info.value, values.mean())
    close(moved[0], three[0])
    close(with_hole[0], three[0])
    assert int(with_hole[1].num_nonfinite) == 1


# --- regression, and what comes beside a value ------------------------------------------------------------------------


def test_a_regression_is_the_gradient_of_a_quadratic_from_as_many_pairs_as_parameters_on(x64: None) -> None:
    """Whatever the directions: in spsa and in an evolution strategy they leave a variance."""
    at = jnp.asarray(THETA + 0.7)
    wanted = SLOPE + CURVATURE @ (0.7 * np.ones(2))
    for pairs in (2, 3, 7):
        grads, _ = ex.regressed_difference(KEY, at, quadratic, epsilon=0.3, num_pairs=pairs)
        close(grads, wanted, rtol=1e-9)
        assert np.abs(ex.spsa(KEY, at, quadratic, epsilon=0.3, num_pairs=pairs)[0] - wanted).max() > 1e-2
    one, _ = ex.regressed_difference(KEY, at, quadratic, epsilon=0.3, num_pairs=1)
    direction = np.asarray(one) / np.linalg.norm(one)
    close(one, direction * (direction @ wanted))  # the shortest that fits: the slope along the one direction


def test_a_regression_solves_the_normal_equations(x64: None) -> None:
    spread = {"a": 0.2, "b": jnp.array([0.1, 0.5])}
    params = {"a": jnp.array([0.3]), "b": jnp.array([0.4, -1.0])}
    f = lambda p: jnp.sin(p["a"]).sum() * jnp.exp(p["b"][0]) + p["b"][1] ** 3  # noqa: E731
    probes = _probes.Probes("", params, f, spread, "epsilon", KEY, 9)
    directions = np.stack([probes.noise(jnp.int32(i)) for i in range(9)]) * np.array([0.2, 0.1, 0.5])
    start = np.array([0.3, 0.4, -1.0])
    of = lambda x: float(f({"a": jnp.asarray(x[:1]), "b": jnp.asarray(x[1:])}))  # noqa: E731
    differences = np.array([of(start + d) - of(start - d) for d in directions]) / 2
    wanted = np.linalg.solve(directions.T @ directions, directions.T @ differences)
    grads, _ = ex.regressed_difference(KEY, params, f, epsilon=spread, num_pairs=9, chunk_size=2)
    close(np.concatenate([grads["a"], grads["b"]]), wanted, rtol=1e-9)
