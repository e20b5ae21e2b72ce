"""fold against loops over the steps of each column, at both kinds of end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
N_STEPS, N = 4, 6
CRITIC = np.array([0.7, -1.3])


def window(seed: int, *shape: int, ends: float = 0.3) -> pg.Trajectory:
    random = np.random.default_rng(seed)
    normal = lambda *more: jnp.asarray(random.normal(size=(*shape, *more)))  # noqa: E731
    mask = lambda: jnp.asarray(random.random(shape) < ends)  # noqa: E731
    return pg.Trajectory(
        obs={"a": normal(2), "b": normal()},
        action=jnp.asarray(random.integers(5, size=(*shape, 3))),
        reward=normal(),
        next_obs={"a": normal(2), "b": normal()},
        terminated=mask(),
        truncated=mask(),
        log_prob=normal(),
        step=jnp.zeros(shape, int),
    )


def by_hand(window: pg.Trajectory, discount: Any) -> dict[str, Any]:
    """One column at a time, one step at a time."""
    w = jax.tree.map(np.asarray, window)
    columns = {name: [] for name in ("reward", "discount", "end")}
    for b in range(w.reward.shape[1]):
        total, weight = 0.0, 1.0
        for t in range(w.reward.shape[0]):
            total += weight * w.reward[t, b]
            weight *= np.broadcast_to(discount, w.reward.shape)[t, b]
            if w.terminated[t, b] or w.truncated[t, b]:
                break
        columns["reward"].append(total)
        columns["discount"].append(0.0 if w.terminated[t, b] else weight)
        columns["end"].append(t)
    return {name: np.array(column) for name, column in columns.items()}


@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]))
def test_fold_equals_the_loop(seed: int, ends: float) -> None:
    rows = window(seed, N_STEPS, N, ends=ends)
    rates = np.random.default_rng(seed).uniform(0.3, 1.0, size=(N_STEPS, N))
    for discount in (0.9, rates):
        got, want = pg.fold(rows, discount=discount), by_hand(rows, discount)
        np.testing.assert_allclose(got.reward, want["reward"], rtol=1e-12)
        np.testing.assert_allclose(got.discount, want["discount"], rtol=1e-12)
        for leaf, all_rows in zip(jax.tree.leaves(got.next_obs), jax.tree.leaves(rows.next_obs), strict=True):
            np.testing.assert_array_equal(leaf, np.asarray(all_rows)[want["end"], np.arange(N)])
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[0]), got.obs, rows.obs)
        np.testing.assert_array_equal(got.action, rows.action[0])
        assert got.action.dtype == rows.action.dtype


def test_a_folded_window_makes_the_n_step_target() -> None:
    rows = window(1, N_STEPS, N)
    value = lambda obs: obs["a"] @ CRITIC + obs["b"]  # noqa: E731
    folded = pg.fold(rows, discount=0.9)
    ends = {"terminated": rows.terminated, "truncated": rows.truncated, "discount": 0.9}
    want = pg.n_step_returns(rows.reward, value(rows.next_obs), n=N_STEPS, **ends)[0]
    np.testing.assert_allclose(folded.reward + folded.discount * value(folded.next_obs), want, rtol=1e-12)


def test_the_four_ends_of_a_transition() -> None:
    """Not ended, terminated, truncated, both: after one step, with γ = 1/2."""
    obs, first = jnp.arange(3.0)[:, None] * jnp.ones(4)[None], jnp.arange(3)[:, None] == 0
    rows = pg.Trajectory(
        obs, obs, jnp.ones((3, 4)), obs + 10.0, first & jnp.array([[False, True, False, True]]),
        first & jnp.array([[False, False, True, True]]), obs, jnp.zeros((3, 4), int),
    )  # fmt: skip
    folded = pg.fold(rows, discount=0.5)
    np.testing.assert_array_equal(folded.reward, [1.75, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(folded.discount, [0.125, 0.0, 0.5, 0.0])
    np.testing.assert_array_equal(folded.next_obs, [12.0, 10.0, 10.0, 10.0])


def test_what_follows_the_first_end_does_not_matter_and_gets_no_gradient() -> None:
    rows = window(2, N_STEPS, N, ends=0.0)
    rows = rows.replace(terminated=rows.terminated.at[1].set(True))
    broken = rows.replace(
        reward=rows.reward.at[2:].set(jnp.nan), next_obs=jax.tree.map(lambda x: x.at[2:].set(jnp.inf), rows.next_obs)
    )
    jax.tree.map(np.testing.assert_array_equal, pg.fold(broken, discount=0.9), pg.fold(rows, discount=0.9))

    def loss(reward: Any, discount: Any) -> Any:
        folded = pg.fold(broken.replace(reward=reward), discount=discount)
        return folded.reward.sum() + folded.discount.sum()

    by_reward, by_discount = jax.grad(loss, argnums=(0, 1))(broken.reward, 0.9)
    np.testing.assert_allclose(by_reward, np.array([1.0, 0.9, 0.0, 0.0])[:, None] * np.ones(N))
    np.testing.assert_allclose(by_discount, rows.reward[1].sum())


def test_one_step_and_agents_fold_alike() -> None:
    rows = window(3, 1, N)
    folded = pg.fold(rows, discount=0.9)
    np.testing.assert_array_equal(folded.reward, rows.reward[0])
    np.testing.assert_allclose(folded.discount, np.where(rows.terminated[0], 0.0, 0.9))
    agents = window(4, N_STEPS, 3, 2)
    together = pg.fold(agents, discount=0.9)
    alone = [pg.fold(jax.tree.map(lambda x, a=a: x[:, :, a], agents), discount=0.9) for a in range(2)]
    jax.tree.map(lambda x, *ys: np.testing.assert_array_equal(x, np.stack(ys, 1)), together, *alone)


def test_folding_traces_once_vmaps_and_keeps_dtypes() -> None:
    rows = window(6, N_STEPS, N)
    folded = [pg.fold(window(0, N_STEPS, N), discount=0.0)]
    programs = pg.fold.jitted._cache_size()
    folded += [pg.fold(window(seed, N_STEPS, N), discount=0.1 * seed) for seed in (1, 2)]
    assert pg.fold.jitted._cache_size() == programs
    windows = jax.tree.map(lambda *xs: jnp.stack(xs), *(window(seed, N_STEPS, N) for seed in range(3)))
    together = jax.vmap(lambda w, discount: pg.fold(w, discount=discount))(windows, 0.1 * jnp.arange(3.0))
    jax.tree.map(lambda x, *ys: np.testing.assert_allclose(x, np.stack(ys), rtol=1e-12), together, *folded)
    low = jax.eval_shape(lambda w: pg.fold(w, discount=0.9), rows.replace(reward=rows.reward.astype(jnp.bfloat16)))
    assert low.reward.dtype == low.discount.dtype == jnp.float32
    images = rows.replace(obs=jnp.zeros((N_STEPS, N, 2), jnp.uint8), next_obs=jnp.ones((N_STEPS, N, 2), jnp.uint8))
    assert pg.fold(images, discount=0.9).next_obs.dtype == jnp.uint8


def test_bad_windows_are_named() -> None:
    rows = window(5, N_STEPS, N)
    with pytest.raises(ValueError, match=r"^window keeps no next_obs: the observation at the end of each transition"):
        pg.fold(rows.replace(next_obs=None, truncation_value=rows.reward), discount=0.9)
    with pytest.raises(TypeError, match=r"^window must be a Trajectory, got dict"):
        pg.fold({"reward": rows.reward}, discount=0.9)
    with pytest.raises(ValueError, match=r"^discount must lie in \[0, 1\], got 99"):
        pg.fold(rows, discount=99.0)
    with pytest.raises(ValueError, match=r"^discount must be a scalar or have shape \[4, 6\], got \[6\]"):
        pg.fold(rows, discount=jnp.ones(N))
    with pytest.raises(TypeError, match=r"^terminated must be boolean"):
        pg.fold(rows.replace(terminated=1.0 - rows.terminated), discount=0.9)
    with pytest.raises(ValueError, match=r"^every leaf of window.next_obs must start with the shape of window.reward"):
        pg.fold(rows.replace(next_obs=rows.next_obs["a"][:, :-1]), discount=0.9)
