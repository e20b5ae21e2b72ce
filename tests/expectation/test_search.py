"""Searches over parameters: closed forms on quadratic functions, the score function, loops, and what users may do."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex
from pgjax.expectation import _probes

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
KEY = jax.random.key(3)
THETA, SLOPE = np.array([0.4, -0.7]), np.array([1.5, -0.6])
CURVATURE, HEIGHT, SIGMA = np.array([[0.9, 0.4], [0.4, -1.3]]), 0.8, 0.3


def quadratic(x: Any) -> Any:
    d = x - THETA
    return HEIGHT + SLOPE @ d + 0.5 * d @ CURVATURE @ d


def quartic(x: Any) -> Any:
    return x[0] ** 4 + x[0] * x[1] ** 2


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


# --- use --------------------------------------------------------------------------------------------------------------

SEARCHES = {
    "finite_difference": lambda key, x, f, **kw: ex.finite_difference(x, f, epsilon=0.1, **kw),
    "finite_difference, one-sided": lambda key, x, f, **kw: ex.finite_difference(
        x, f, epsilon=0.1, one_sided=True, **kw
    ),
    "spsa": lambda key, x, f, **kw: ex.spsa(key, x, f, epsilon=0.1, num_pairs=5, **kw),
    "evolution_strategy": lambda key, x, f, **kw: ex.evolution_strategy(key, x, f, num_pairs=5, scale=0.1, **kw),
    "evolution_strategy, ranks": lambda key, x, f, **kw: ex.evolution_strategy(
        key, x, f, num_pairs=5, scale=0.1, shaping=ex.centered_ranks, **kw
    ),
    "evolution_strategy, utilities, one-sided": lambda key, x, f, **kw: ex.evolution_strategy(
        key, x, f, num_pairs=5, scale=0.1, shaping=ex.nes_utilities, antithetic=False, **kw
    ),
    "pgpe": lambda key, x, f, **kw: ex.pgpe(key, x, f, num_pairs=5, scale=0.1, **kw),
    "ars": lambda key, x, f, **kw: ex.ars(key, x, f, num_pairs=5, num_top=3, scale=0.1, **kw),
}
TREE = {"w": np.array([[0.1, -0.4, 0.3], [0.7, 0.2, -0.5]]), "b": np.float64(0.6)}


def tree_f(params: Any) -> Any:
    return jnp.sum(jnp.sin(3.0 * params["w"])) * params["b"] + jnp.sum(params["w"]) ** 2


@pytest.mark.parametrize("name", SEARCHES)
def test_any_pytree_any_chunk_under_jit_and_vmap(name: str) -> None:
    keys = jnp.stack([KEY, jax.random.key(9)])
    trees = jax.tree.map(lambda x: jnp.stack([x, x + 0.1]), TREE)
    alone = jax.jit(lambda key, x: SEARCHES[name](key, x, tree_f))
    one, two = (alone(keys[i], jax.tree.map(lambda x, i=i: x[i], trees)) for i in range(2))
    assert [x.shape for x in jax.tree.leaves(one[0])] == [(), (2, 3)] * (2 if name == "pgpe" else 1)
    assert min(np.abs(x).max() for x in jax.tree.leaves(one[0])) > 1e-3
    both = jax.jit(jax.vmap(lambda key, x: SEARCHES[name](key, x, tree_f, chunk_size=2)))(keys, trees)
    jax.tree.map(lambda many, first, second: close(many, np.stack([first, second])), both, one, two)


def test_identity_40_a_constant_has_no_gradient() -> None:
    run = lambda key, x, c: {name: search(key, x, lambda _: c) for name, search in SEARCHES.items()}  # noqa: E731
    for name, (grads, info) in jax.jit(run)(KEY, TREE, jnp.asarray(0.1)).items():
        assert all(np.abs(x).max() < 1e-15 for x in jax.tree.leaves(grads)), name
        close(info.value, 0.1)
    counted = ex.evolution_strategy(KEY, THETA, lambda x: x[0] > 0, num_pairs=1, scale=1e-3)[1]
    assert counted.value.dtype == jnp.float64
    close(counted.value, 1.0)


def largest(jaxpr: Any) -> int:
    """Entries of the largest array that a program makes, those of its loops included."""
    sizes = [1]
    for equation in jaxpr.eqns:
        sizes += [int(np.prod(x.aval.shape)) for x in equation.outvars if hasattr(x.aval, "shape")]
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                sizes.append(largest(inner))
    return max(sizes)


@pytest.mark.parametrize("name", ["evolution_strategy", "pgpe", "ars", "spsa"])
def test_the_memory_does_not_grow_with_the_number_of_pairs(name: str) -> None:
    size = 500

    def program(num: int, chunk: int | None) -> int:
        width = {"epsilon": 0.1} if name == "spsa" else {"scale": 0.1}
        more = {"num_top": num} if name == "ars" else {}
        search = lambda key, x: getattr(ex, name)(  # noqa: E731
            key, x, lambda y: jnp.sum(y**2), num_pairs=num, chunk_size=chunk, **width, **more
        )
        return largest(jax.make_jaxpr(search)(KEY, jnp.zeros(size)).jaxpr)

    vectors = 2 if name == "pgpe" else 1  # for mean and scale
    assert program(64, 2) == program(128, 2) <= 2 * 2 * vectors * size
    assert program(64, None) >= 64 * size


def test_both_sides_of_a_pair_share_a_key_and_pairs_do_not() -> None:
    def noisy(key: Any, x: Any) -> Any:
        return 1e3 * jax.random.normal(key) + quadratic(x)

    @jax.jit
    def run(key: Any, x: Any) -> Any:
        seen: list[Any] = []

        def keep(values: Any) -> Any:
            seen.append(values)
            return values

        grads = [
            ex.evolution_strategy(key, x, f, num_pairs=4, scale=SIGMA, keyed=True, shaping=keep)[0]
            for f in (noisy, lambda key, x: quadratic(x))
        ]
        others = (
            ex.pgpe(key, x, noisy, num_pairs=3, scale=SIGMA, keyed=True)[0][0],
            ex.spsa(key, x, noisy, epsilon=SIGMA, keyed=True)[0],
        )
        return grads, seen[0].reshape(-1, 2) - seen[1].reshape(-1, 2), others

    (with_noise, without), added, others = run(KEY, THETA)
    np.testing.assert_allclose(with_noise, without, rtol=1e-9)
    np.testing.assert_allclose(added[:, 0], added[:, 1], rtol=1e-9)
    assert len(np.unique(np.round(added[:, 0], 3))) == 4
    assert max(np.abs(x).max() for x in others) < 20.0  # a new key on each side would add about a thousand


def test_what_is_not_finite_is_counted_and_not_hidden_but_for_ranks() -> None:
    broken = lambda x: jnp.where(x[0] > THETA[0], jnp.nan, quadratic(x))  # noqa: E731
    grads, info = ex.evolution_strategy(KEY, THETA, broken, num_pairs=5, scale=SIGMA)
    assert np.isnan(grads).all()
    assert int(info.num_nonfinite) == 5
    ranked, info = ex.evolution_strategy(KEY, THETA, broken, num_pairs=5, scale=SIGMA, shaping=ex.centered_ranks)
    assert np.isfinite(ranked).all()
    assert ranked[0] > 0  # away from where f is not a number
    assert int(info.num_nonfinite) == 5


def test_low_precision_parameters_are_perturbed_in_float32() -> None:
    seen = set()

    def f(params: Any) -> Any:
        seen.add(params["x"].dtype)
        return jnp.sum(params["x"])

    for dtype in (jnp.bfloat16, jnp.float32):
        (mean, spread), _ = ex.pgpe(KEY, {"x": jnp.ones(2, dtype)}, f, num_pairs=2, scale=1e-3)
        assert mean["x"].dtype == spread["x"].dtype == jnp.float32
    assert seen == {jnp.dtype(jnp.float32)}


def test_rollouts_with_common_random_numbers_have_the_gradient_of_their_path() -> None:
    """f is the mean cost of a batch of rollouts from one key; its exact gradient goes through the system."""
    system, _ = exact.scalar_lqr()
    env = exact.LQREnvironment(system)
    smooth = env.with_transition_gradients()
    policy = lambda gain, obs: pg.Normal(-obs * gain, 0.5)  # noqa: E731

    def cost(gain: Any, env: Any) -> Any:
        start, run = jax.random.split(KEY)
        state = pg.init_rollout(start, env, env.default_params, num_envs=16)
        _, t = pg.rollout(run, gain, state, policy=policy, env=env, env_params=env.default_params, num_steps=5)
        return -jnp.mean(jnp.sum(t.reward * pg.discount_weight(t.step, system.discount), 0))

    gain = jnp.float32(0.4)
    found, info = jax.jit(lambda x: ex.finite_difference(x, lambda y: cost(y, env), epsilon=0.03))(gain)
    by_path = jax.jit(jax.grad(lambda x: cost(x, smooth)))(gain)
    np.testing.assert_allclose(found, by_path, rtol=2e-3)
    assert abs(float(found)) > 0.5
    assert int(info.num_nonfinite) == 0


def test_what_makes_no_sense_is_refused_by_name() -> None:
    x = jnp.zeros(2)
    f = lambda x: jnp.sum(x)  # noqa: E731
    es = functools.partial(ex.evolution_strategy, KEY, x, num_pairs=2, scale=0.1)
    with pytest.raises(ValueError, match=r"^f must give one number, got shape \[2\]\. Take the mean"):
        es(lambda x: x)
    with pytest.raises(TypeError, match=r"^f must be a function"):
        es(3.0)
    with pytest.raises(ValueError, match=r"^baseline has no effect with antithetic=True"):
        es(f, baseline=1.0)
    with pytest.raises(ValueError, match=r"^baseline has no effect"):
        es(f, baseline=1.0, antithetic=False, shaping=ex.centered_ranks)
    with pytest.raises(ValueError, match=r"^the result of shaping must have shape"):
        es(f, shaping=lambda v: v[:1])
    with pytest.raises(TypeError, match=r"^shaping must be a function"):
        es(f, shaping="ranks")
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^scale must be positive"):
            ex.pgpe(KEY, x, f, num_pairs=2, scale=bad)
    with pytest.raises(ValueError, match=r"^epsilon must be positive, got 0"):
        ex.finite_difference(x, f, epsilon=0)
    with pytest.raises(ValueError, match=r"^each leaf of scale must be a scalar or have shape \[2\], got \[3\]"):
        ex.ars(KEY, x, f, num_pairs=2, num_top=1, scale=jnp.ones(3))
    with pytest.raises(ValueError, match=r"^scale must be a scalar or a pytree like params"):
        ex.ars(KEY, x, f, num_pairs=2, num_top=1, scale={"x": 0.1})
    with pytest.raises(ValueError, match=r"^num_top must be at most num_pairs=2, got 3"):
        ex.ars(KEY, x, f, num_pairs=2, num_top=3, scale=0.1)
    with pytest.raises(ValueError, match=r"^num_pairs must be at least 2 without a baseline"):
        ex.pgpe(KEY, x, f, num_pairs=1, scale=0.1)
    with pytest.raises(TypeError, match=r"^num_pairs must be a Python int"):
        ex.spsa(KEY, x, f, epsilon=0.1, num_pairs=2.0)
    with pytest.raises(ValueError, match=r"^chunk_size must be at least 1"):
        ex.spsa(KEY, x, f, epsilon=0.1, chunk_size=0)
    with pytest.raises(TypeError, match=r"^key is required"):
        ex.spsa(None, x, f, epsilon=0.1)
    with pytest.raises(TypeError, match=r"^params must have a floating dtype"):
        ex.finite_difference(jnp.zeros(2, int), f, epsilon=0.1)
    with pytest.raises(ValueError, match=r"^params holds no array"):
        ex.finite_difference({}, f, epsilon=0.1)
    with pytest.raises(ValueError, match=r"^values must have shape \[n\]"):
        ex.centered_ranks(jnp.ones((2, 2)))


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


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_what_f_gives_beside_its_value_comes_back_for_each_value(chunk_size: int | None) -> None:
    at = jnp.asarray(THETA)
    both = lambda x: (quadratic(x), {"x": x})  # noqa: E731
    settings: dict[str, Any] = {"chunk_size": chunk_size}
    calls = [
        (ex.evolution_strategy, (KEY,), {"num_pairs": 3, "scale": 0.2}, 2),
        (ex.evolution_strategy, (KEY,), {"num_pairs": 3, "scale": 0.2, "antithetic": False}, 1),
        (ex.pgpe, (KEY,), {"num_pairs": 3, "scale": 0.2}, 2),
        (ex.ars, (KEY,), {"num_pairs": 3, "num_top": 2, "scale": 0.2}, 2),
        (ex.spsa, (KEY,), {"num_pairs": 3, "epsilon": 0.2}, 2),
        (ex.regressed_difference, (KEY,), {"num_pairs": 3, "epsilon": 0.2}, 2),
        (ex.finite_difference, (), {"epsilon": 0.2}, 2),
        (ex.finite_difference, (), {"epsilon": 0.2, "one_sided": True}, 1),
    ]
    for search, key, more, sides in calls:
        plain, info = search(*key, at, quadratic, **more, **settings)
        grads, told = search(*key, at, both, **more, **settings, has_aux=True)
        jax.tree.map(np.testing.assert_array_equal, plain, grads)
        assert info.aux is None
        assert told.aux["x"].shape[1:] == (sides, 2)
        values = jax.jit(jax.vmap(jax.vmap(quadratic)))(told.aux["x"])
        np.testing.assert_allclose(values.mean(), told.value, rtol=1e-6)
    with pytest.raises(TypeError, match=r"with has_aux=True f must give \(value, aux\)"):
        ex.spsa(KEY, at, quadratic, epsilon=0.1, has_aux=True)
