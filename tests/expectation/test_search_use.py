"""How searches are used: any pytree in any chunks, keys, memory, what f gives beside its value, what is refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex

from .search_cases import KEY, SIGMA, THETA, close, quadratic

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
