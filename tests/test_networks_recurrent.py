"""The recurrent actor-critic: against NumPy, and its value before, inside, and after a window."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

import pgjax as pg
from pgjax.networks import DiscretePolicy, GaussianPolicy, RecurrentActorCritic

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY, B, T = jax.random.key(0), 3, 7
MODEL = RecurrentActorCritic(DiscretePolicy(2), hidden=6, features=(8,))


def policy(params: Any, obs: Any, *memory: Any) -> Any:
    return MODEL.apply(params, obs, *memory, method="policy")


def value(params: Any, obs: Any, *memory: Any) -> Any:
    return MODEL.apply(params, obs, *memory, method="value")


def by_hand(params: Any, obs: Any, memory: Any) -> tuple[Any, Any, Any]:
    """Logits, value and next memory in NumPy, from the equations of the gated recurrent unit."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    linear = lambda layer, x: x @ layer["kernel"] + layer.get("bias", 0.0)  # noqa: E731
    sigmoid = lambda x: 1.0 / (1.0 + np.exp(-x))  # noqa: E731
    x, g = np.tanh(linear(p["dense"]["Dense_0"], obs)), p["memory"]
    reset = sigmoid(linear(g["ir"], x) + linear(g["hr"], memory))
    update = sigmoid(linear(g["iz"], x) + linear(g["hz"], memory))
    new = np.tanh(linear(g["in"], x) + reset * linear(g["hn"], memory))
    after = (1.0 - update) * new + update * memory
    logits = linear(p["head"]["Head_0"]["Dense_0"], after)
    return logits, linear(p["critic"]["Dense_0"], after)[..., 0], after


@pytest.fixture(scope="module")
def params() -> Any:
    """Parameters far from their start, so that every one of them matters."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: MODEL.init(KEY, jnp.ones(2), MODEL.initial_state()))
    return jax.tree.map(lambda x: rng.normal(0.0, 0.7, x.shape).astype(np.float32), shapes)


def test_policy_and_value_read_the_memory_that_has_taken_in_the_observation(params: Any) -> None:
    rng = np.random.default_rng(1)
    obs, memory = (rng.normal(size=(B, n)).astype(np.float32) for n in (2, 6))
    distribution, extras, after = jax.jit(policy)(params, obs, memory)
    logits, expected, next_memory = by_hand(params, obs, memory)
    np.testing.assert_allclose(distribution.logits, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(extras, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after, next_memory, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(value)(params, obs, memory), expected, rtol=1e-5, atol=1e-6)


def test_memory_starts_from_zeros_and_stays_float32_so_that_a_scan_can_hold_it() -> None:
    np.testing.assert_array_equal(MODEL.initial_state(3), np.zeros((3, 6), np.float32))
    model = RecurrentActorCritic(GaussianPolicy(1), hidden=6, features=(8,), dtype=jnp.bfloat16)
    start = model.initial_state()

    def run() -> Any:
        params = model.init(KEY, jnp.ones(4), start)
        return jax.lax.scan(lambda c, x: (model.apply(params, x, c)[2], None), start, jnp.ones((3, 4)))[0]

    assert jax.eval_shape(run).dtype == jnp.float32


@pytest.fixture(scope="module")
def windows(params: Any) -> Any:
    """Two windows in a row of an environment that both terminates and truncates, and the states around them."""
    env = probes.Probe("constant", length=10**6, limit=3, chance=0.15)

    @jax.jit
    def run(params: Any) -> Any:
        state = pg.init_rollout(KEY, env, env.default_params, num_envs=B, policy_state=MODEL.initial_state(B))
        steps = []
        for seed in (1, 2):
            options = {"policy": policy, "env": env, "env_params": env.default_params, "num_steps": T}
            after, window = pg.rollout(jax.random.key(seed), params, state, **options, truncation_value=value)
            distribution, values = pg.unroll_policy(
                params, window, state.policy_state, policy=policy, start_policy_state=state.start_policy_state
            )
            last = value(params, after.obs, after.policy_state)
            steps.append((window, distribution.log_prob(window.action), values, last))
            state = after
        return steps

    return jax.tree.map(np.asarray, run(params))


def test_the_values_of_a_window_are_its_extras_and_those_of_the_unrolled_policy(windows: Any, params: Any) -> None:
    memory = np.zeros((B, 6))
    for window, log_prob, values, _ in windows:
        np.testing.assert_allclose(values, window.extras, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_prob, window.log_prob, rtol=1e-5, atol=1e-6)
        for t in range(T):
            _, expected, memory = by_hand(params, window.obs[t], memory)
            np.testing.assert_allclose(window.extras[t], expected, rtol=1e-4, atol=1e-5)
            memory = np.where(window.done[t][:, None], 0.0, memory)


def test_what_follows_the_window_is_worth_what_the_next_window_says(windows: Any) -> None:
    (_, _, _, last), (following, *_) = windows
    np.testing.assert_allclose(last, following.extras[0], rtol=1e-5, atol=1e-6)


def test_what_follows_a_truncated_step_is_seen_with_the_memory_before_the_restart(windows: Any, params: Any) -> None:
    window = windows[0][0]
    assert window.truncated.any()
    assert window.terminated.any()
    memory, expected = np.zeros((B, 6)), np.zeros((T, B))
    for t in range(T):
        memory = by_hand(params, window.obs[t], memory)[2]
        next_obs = window.obs[t] + [1.0, 0.0]  # the probe shows the time, which goes on, and a cue, which stays
        expected[t] = np.where(window.truncated[t], by_hand(params, next_obs, memory)[1], 0.0)
        memory = np.where(window.done[t][:, None], 0.0, memory)
    np.testing.assert_allclose(window.truncation_value, expected, rtol=1e-4, atol=1e-5)


def test_what_was_seen_first_moves_the_value_of_the_last_step_and_of_no_other_environment(params: Any) -> None:
    obs = np.random.default_rng(2).normal(size=(5, B, 2)).astype(np.float32)

    @jax.jit
    def unroll(obs: Any) -> Any:
        return jax.lax.scan(lambda m, x: policy(params, x, m)[:0:-1], MODEL.initial_state(B), obs)[1]

    changed = obs.copy()
    changed[0, 1] += 1.0
    before, after = np.asarray(unroll(obs)), np.asarray(unroll(changed))
    assert before[4, 1] != after[4, 1]
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
