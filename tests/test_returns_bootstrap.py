"""bootstrap_values against evaluating the value function on every next observation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

T, B, F = 7, 11, 3
SIZE = T * B


def value(params: Any, obs: Any) -> Any:
    return jnp.tanh(obs @ params) * 3.0


PARAMS = jnp.array([0.3, -0.8, 0.5])


def trajectory(truncated: Any, terminated: Any = None, shape: tuple[int, ...] = (T, B)) -> pg.Trajectory:
    """Rows that chain: what a step led to is the next row, except where an episode was cut."""
    random = np.random.default_rng(0)
    truncated = np.broadcast_to(truncated, shape)
    terminated = np.zeros(shape, bool) if terminated is None else np.broadcast_to(terminated, shape)
    obs = random.normal(size=(shape[0] + 1, *shape[1:], F)).astype(np.float32)
    elsewhere = random.normal(size=(*shape, F)).astype(np.float32)
    done = (truncated | terminated)[..., None]
    return pg.Trajectory(
        obs=jnp.asarray(obs[:-1]),
        action=jnp.zeros(shape, jnp.int32),
        reward=jnp.zeros(shape),
        next_obs=jnp.asarray(np.where(done, elsewhere, obs[1:])),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        log_prob=jnp.zeros(shape),
        step=jnp.zeros(shape, jnp.int32),
    )


def dense(params: Any, window: pg.Trajectory) -> Any:
    return jnp.where(window.terminated, 0.0, value(params, window.next_obs))


def some(seed: int, chance: float) -> Any:
    return np.random.default_rng(seed).random((T, B)) < chance


PATTERNS = {
    "none": (False, False),
    "all": (True, False),
    "all, terminated too": (True, True),
    "all terminated": (False, True),
    "few": (some(1, 0.05), some(2, 0.1)),
    "half": (some(3, 0.5), some(4, 0.3)),
    "more than a block": (some(5, 0.9), some(6, 0.01)),
    "the last row": (np.arange(T)[:, None] == T - 1, False),
    "the first row": (np.arange(T)[:, None] == 0, False),
    "the last entry": (np.arange(SIZE).reshape(T, B) == SIZE - 1, False),
    "one environment": (np.arange(B)[None] == 4, False),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_equals_the_dense_evaluation(name: str) -> None:
    window = trajectory(*PATTERNS[name])
    values, next_value = pg.bootstrap_values(PARAMS, window, value=value)
    np.testing.assert_allclose(values, value(PARAMS, window.obs), rtol=1e-6)
    np.testing.assert_allclose(next_value, dense(PARAMS, window), rtol=1e-5, atol=1e-6)
    assert np.all(next_value[window.terminated] == 0.0)


@pytest.mark.parametrize("shape", [(1,), (40,), (2, 3, 4), (1, 1), (9, 400)])
def test_any_number_of_batch_axes(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    window = trajectory(random.random(shape) < 0.3, random.random(shape) < 0.2, shape)
    values, next_value = pg.bootstrap_values(PARAMS, window, value=value)
    assert values.shape == next_value.shape == shape
    np.testing.assert_allclose(next_value, dense(PARAMS, window), rtol=1e-5, atol=1e-6)


def test_only_truncated_rows_are_evaluated_again() -> None:
    """The second pass sees no row where none was truncated, and few where few were."""
    seen: list[int] = []

    def counting(params: Any, obs: Any) -> Any:
        jax.debug.callback(lambda _: seen.append(obs.shape[0]), obs[(0,) * obs.ndim])
        return value(params, obs)

    for truncated, most in ((False, 0), (np.arange(B) == 0, 1), (True, SIZE // 32 + 1)):
        seen.clear()
        jax.block_until_ready(pg.bootstrap_values(PARAMS, trajectory(truncated), value=counting))
        jax.effects_barrier()
        assert len(seen) == 2 + most


def test_the_value_carries_gradients_and_the_bootstrap_none() -> None:
    window = trajectory(some(3, 0.5), some(4, 0.3))
    weights = jnp.arange(1.0, SIZE + 1).reshape(T, B)
    through = jax.grad(lambda params: (weights * pg.bootstrap_values(params, window, value=value)[0]).sum())(PARAMS)
    expected = jax.grad(lambda params: (weights * value(params, window.obs)).sum())(PARAMS)
    np.testing.assert_allclose(through, expected, rtol=1e-5)
    assert np.all(through != 0)
    for kind in (window, window.replace(truncation_value=jnp.ones((T, B)))):
        constant = jax.grad(lambda params, kind=kind: pg.bootstrap_values(params, kind, value=value)[1].sum())(PARAMS)
        np.testing.assert_array_equal(constant, 0.0)


def test_vmap_over_parameters_and_over_trajectories_equals_a_loop() -> None:
    params = jnp.stack([PARAMS, -PARAMS, 2 * PARAMS])
    window = trajectory(some(3, 0.5), some(4, 0.3))
    evaluate = lambda params, window: pg.bootstrap_values(params, window, value=value)  # noqa: E731
    looped = [evaluate(p, window) for p in params]
    for actual, *singles in zip(jax.vmap(evaluate, (0, None))(params, window), *looped, strict=True):
        np.testing.assert_allclose(actual, np.stack(singles), rtol=1e-5)
    windows = [trajectory(*PATTERNS[name]) for name in ("none", "few", "all")]
    both = jax.vmap(evaluate)(params, jax.tree.map(lambda *xs: jnp.stack(xs), *windows))
    for actual, *singles in zip(both, *map(evaluate, params, windows), strict=True):
        np.testing.assert_allclose(actual, np.stack(singles), rtol=1e-5, atol=1e-6)


def test_the_kept_truncation_value_takes_the_place_of_next_obs() -> None:
    window = trajectory(some(3, 0.5), some(4, 0.3))
    kept = jnp.where(window.truncated, value(PARAMS, window.next_obs), 0.0)
    light = window.replace(next_obs=None, truncation_value=kept)
    expected = pg.bootstrap_values(PARAMS, window, value=value)
    # After a reset the last observation is that of a new episode; rows that were cut must not use it.
    last_obs = jnp.where((window.terminated | window.truncated)[-1, :, None], 99.0, window.next_obs[-1])
    for actual, desired in zip(
        pg.bootstrap_values(PARAMS, light, value=value, last_obs=last_obs), expected, strict=True
    ):
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"^last_obs is required because this trajectory keeps no next_obs"):
        pg.bootstrap_values(PARAMS, light, value=value)


@pytest.mark.parametrize("keeps_next_obs", [True, False])
def test_the_last_observation_that_is_given_is_the_one_that_is_used(keeps_next_obs: bool) -> None:
    window = trajectory(some(3, 0.2), some(4, 0.2))
    kept = window.replace(truncation_value=jnp.where(window.truncated, value(PARAMS, window.next_obs), 0.0))
    window = window if keeps_next_obs else kept.replace(next_obs=None)
    last_obs = jnp.asarray(np.random.default_rng(9).normal(size=(B, F)), jnp.float32)
    _, next_value = pg.bootstrap_values(PARAMS, window, value=value, last_obs=last_obs)
    done = np.asarray(window.terminated | window.truncated)[-1]
    assert 0 < done.sum() < B
    np.testing.assert_allclose(next_value[-1][~done], value(PARAMS, last_obs)[~done], rtol=1e-5)
    own = pg.bootstrap_values(PARAMS, window, value=value, last_obs=2 * last_obs)[1]
    np.testing.assert_array_equal(own[:-1], next_value[:-1])  # it is seen at the end of the window only,
    np.testing.assert_array_equal(own[-1][done], next_value[-1][done])  # and where no episode ended there


def test_a_kept_value_counts_at_a_truncation_only() -> None:
    """Where nothing ended, where an episode terminated, and where it did both, what is kept there is not looked at."""
    window = trajectory(some(3, 0.4), some(4, 0.4))
    assert (window.truncated & window.terminated).any()
    everywhere = window.replace(truncation_value=jnp.full((T, B), 7.0))
    next_value = pg.bootstrap_values(PARAMS, everywhere, value=value)[1]
    only = np.asarray(window.truncated & ~window.terminated)
    np.testing.assert_array_equal(next_value[only], 7.0)
    np.testing.assert_allclose(next_value[~only], dense(PARAMS, window)[~only], rtol=1e-5, atol=1e-6)


def test_a_truncated_step_is_not_bootstrapped_from_the_observation_it_started_in() -> None:
    window = trajectory(True)
    values, next_value = pg.bootstrap_values(PARAMS, window, value=value)
    assert np.abs(next_value - values).min() > 1e-4
    assert np.abs(next_value[:-1] - values[1:]).min() > 1e-4  # nor from the one after the reset


def test_a_terminal_observation_without_a_value_does_no_harm() -> None:
    window = trajectory(some(3, 0.5), some(4, 0.3))
    broken = window.replace(next_obs=jnp.where(window.terminated[..., None], jnp.nan, window.next_obs))
    for actual, desired in zip(
        pg.bootstrap_values(PARAMS, broken, value=value), pg.bootstrap_values(PARAMS, window, value=value), strict=True
    ):
        np.testing.assert_allclose(actual, desired, rtol=1e-6)


def test_observations_may_be_any_pytree() -> None:
    window = trajectory(some(3, 0.5), some(4, 0.3))
    split = lambda obs: {"a": obs[..., :1], "b": obs[..., 1:]}  # noqa: E731
    join = lambda params, obs: value(params, jnp.concatenate([obs["a"], obs["b"]], -1))  # noqa: E731
    actual = pg.bootstrap_values(
        PARAMS, window.replace(obs=split(window.obs), next_obs=split(window.next_obs)), value=join
    )
    for a, b in zip(actual, pg.bootstrap_values(PARAMS, window, value=value), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_low_precision_values_are_widened() -> None:
    window = trajectory(some(3, 0.5))
    half = lambda params, obs: value(params, obs).astype(jnp.bfloat16)  # noqa: E731
    for actual in pg.bootstrap_values(PARAMS, window, value=half):
        assert actual.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "function", "error", "match"),
    [
        ({}, None, TypeError, "^value must be a function, got NoneType"),
        ({}, lambda p, o: (o @ p)[..., None], ValueError, r"result of value\(params, obs\) must be one number"),
        ({}, lambda p, o: (o @ p).sum(-1), ValueError, r"result of value\(params, obs\) must be one number"),
        ({}, lambda p, o: (o @ p).astype(int), TypeError, r"result of value\(params, obs\) must have a floating dtype"),
        ({"next_obs": None}, value, ValueError, "^trajectory keeps neither next_obs nor truncation_value"),
        (
            {"truncation_value": jnp.zeros((T, B, 1))}, value, ValueError, "^trajectory.truncation_value must have the",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(changes: Any, function: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        pg.bootstrap_values(PARAMS, trajectory(False).replace(**changes), value=function, last_obs=jnp.zeros((B, F)))
