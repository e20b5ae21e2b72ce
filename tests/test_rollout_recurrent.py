"""Recurrent policies: set back where an episode starts, carried across rollouts, replayed exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import collect, start

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B, D = 9, 3, 2
ENV = probes.Probe("constant", length=4, limit=10**6, chance=0.1)
INITIAL = jnp.arange(1.0, 1 + B * D).reshape(B, D)  # differs from zero, and from environment to environment
PARAMS = {"mix": jnp.array([[0.5, -0.3], [0.2, 0.8]]), "see": jnp.array([[1.0, 0.3], [-0.4, 0.7]])}


def recurrent(params: Any, obs: Any, hidden: Any) -> Any:
    hidden = jnp.tanh(hidden @ params["mix"] + obs @ params["see"])
    return pg.Categorical(hidden), {"hidden": hidden}, hidden


def without_extras(params: Any, obs: Any, hidden: Any) -> Any:
    distribution, _, hidden = recurrent(params, obs, hidden)
    return distribution, hidden


def two_rollouts(policy: Any = recurrent, **kwargs: Any) -> list[Any]:
    """States before, between and after, and both windows."""
    state = start(ENV, num_envs=B, policy_state=INITIAL)
    options = {"policy": policy, "params": PARAMS, "num_steps": T, **kwargs}
    middle, first = collect(ENV, state=state, seed=1, **options)
    last, second = collect(ENV, state=middle, seed=2, **options)
    return [state, first, middle, second, last]


@pytest.fixture(scope="module")
def played() -> list[Any]:
    return two_rollouts()


def test_equals_a_loop_in_python(played: list[Any]) -> None:
    _, first, middle, second, last = played
    joined = jax.tree.map(lambda *xs: np.concatenate(xs), first, second)
    params = {name: np.asarray(x, np.float64) for name, x in PARAMS.items()}
    hidden = initial = np.asarray(INITIAL, np.float64)
    for t in range(2 * T):
        if t == T:
            np.testing.assert_allclose(middle.policy_state, hidden, rtol=1e-5)
        hidden = np.tanh(hidden @ params["mix"] + joined.obs[t] @ params["see"])
        np.testing.assert_allclose(joined.extras["hidden"][t], hidden, rtol=1e-5)
        logits = hidden - np.log(np.exp(hidden).sum(-1, keepdims=True))
        np.testing.assert_allclose(joined.log_prob[t], logits[np.arange(B), joined.action[t]], rtol=1e-4, atol=1e-5)
        hidden = np.where(joined.done[t][:, None], initial, hidden)
    np.testing.assert_allclose(last.policy_state, hidden, rtol=1e-5)
    assert joined.done.any()
    assert not first.done[-1].all()  # an episode runs on from one rollout into the next


def test_unrolling_reproduces_the_rollout(played: list[Any]) -> None:
    for before, window in ((played[0], played[1]), (played[2], played[3])):
        distribution, extras = pg.unroll_policy(
            PARAMS, window, before.policy_state, policy=recurrent, start_policy_state=before.start_policy_state
        )
        # The same operations in another program: equal up to the last bit of a transcendental.
        np.testing.assert_allclose(distribution.log_prob(window.action), window.log_prob, rtol=1e-6)
        np.testing.assert_allclose(extras["hidden"], window.extras["hidden"], rtol=1e-5)


def test_unrolling_is_exact_where_the_arithmetic_is() -> None:
    def dyadic(params: Any, obs: Any, hidden: Any) -> Any:
        hidden = 0.5 * hidden + obs
        return pg.Categorical(hidden), hidden, hidden

    before, first, middle, second, _ = two_rollouts(dyadic)
    for state, window in ((before, first), (middle, second)):
        distribution, hidden = pg.unroll_policy(
            PARAMS, window, state.policy_state, policy=dyadic, start_policy_state=state.start_policy_state
        )
        np.testing.assert_array_equal(hidden, window.extras)
        np.testing.assert_array_equal(jax.jit(lambda d, a: d.log_prob(a))(distribution, window.action), window.log_prob)


def test_unrolling_in_the_middle_of_an_episode_needs_the_state(played: list[Any]) -> None:
    window = played[3]
    wrong, _ = pg.unroll_policy(PARAMS, window, INITIAL, policy=recurrent, start_policy_state=INITIAL)
    running = np.asarray(window.step[0] > 0)
    assert running.any()
    assert np.all((wrong.log_prob(window.action) != window.log_prob)[0][running])


def test_unrolling_is_differentiable_through_time(played: list[Any]) -> None:
    before, window = played[0], played[1]

    def total(params: Any) -> Any:
        distribution, _ = pg.unroll_policy(
            params, window, before.policy_state, policy=without_extras, start_policy_state=before.start_policy_state
        )
        return distribution.log_prob(window.action).sum()

    grads = jax.grad(total)(PARAMS)
    step = jax.tree.map(lambda x: 1e-3 * jnp.ones_like(x), PARAMS)
    sides = [total(jax.tree.map(lambda x, d, s=s: x + s * d, PARAMS, step)) for s in (1, -1)]
    expected = sum(jax.tree.leaves(jax.tree.map(lambda g: 1e-3 * g.sum(), grads)))
    np.testing.assert_allclose((sides[0] - sides[1]) / 2, expected, rtol=2e-3)


def test_a_value_kept_on_the_spot_sees_the_state_after_the_step(played: list[Any]) -> None:
    env = probes.Probe("constant", length=10**6, limit=4)
    value = lambda params, obs, hidden: obs[..., 0] + hidden.sum(-1)  # noqa: E731
    state = start(env, num_envs=B, policy_state=INITIAL)
    options = {"policy": recurrent, "params": PARAMS, "num_steps": T, "state": state}
    _, window = collect(env, truncation_value=value, **options)
    expected = np.where(window.truncated, 4.0 + window.extras["hidden"].sum(-1), 0.0)
    np.testing.assert_allclose(window.truncation_value, expected, rtol=1e-6)
    assert window.truncated.sum() == 2 * B


def test_extras_may_be_left_out(played: list[Any]) -> None:
    _, first, _, second, _ = two_rollouts(without_extras)
    for window, reference in ((first, played[1]), (second, played[3])):
        assert window.extras is None
        np.testing.assert_array_equal(window.action, reference.action)
        np.testing.assert_allclose(window.log_prob, reference.log_prob, rtol=1e-6)


def test_the_state_keeps_its_type_whatever_the_network_computes_in() -> None:
    def half(params: Any, obs: Any, hidden: Any) -> Any:
        distribution, hidden = without_extras(params, obs, hidden)
        return distribution, hidden.astype(jnp.bfloat16)

    before, window, middle, *_ = two_rollouts(half)
    assert middle.policy_state.dtype == jnp.float32
    again, _ = pg.unroll_policy(
        PARAMS, window, before.policy_state, policy=half, start_policy_state=before.start_policy_state
    )
    np.testing.assert_allclose(again.log_prob(window.action), window.log_prob, rtol=1e-6)


def test_evaluation_sets_the_state_back_too() -> None:
    def counting(params: Any, obs: Any, hidden: Any) -> Any:
        """Acts by whether its state says what the observation says, so that one wrong reset shows in the return."""
        right = hidden[..., 0] == obs[..., 0]
        return pg.Categorical(jnp.where(right[..., None], jnp.array([[-99.0, 99.0]]), 0.0)), hidden + 1.0

    env = probes.Probe("action", length=4, chance=0.3)
    result = pg.evaluate(
        jax.random.key(0), None, policy=counting, env=env, env_params=None, num_episodes=B,
        policy_state=jnp.zeros((B, 1)),
    )  # fmt: skip
    np.testing.assert_array_equal(result.episode_return, result.episode_length)
    _, window = collect(env, policy=counting, state=start(env, num_envs=B, policy_state=jnp.zeros((B, 1))), num_steps=T)
    np.testing.assert_array_equal(window.reward, 1.0)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (lambda p, o, h: pg.Categorical(h), r"^policy must return \(distribution, policy_state\) or .*got Categorical"),
        (lambda p, o, h: (pg.Categorical(h), 1, 2, h), "got Categorical, int, int, "),
        (lambda p, o, h: (h, pg.Categorical(h)), "where the distribution has log_prob"),
        (
            lambda p, o, h: (pg.Categorical(h), (h, h)),
            "^the policy_state that policy returns must have the tree struct",
        ),
        (lambda p, o, h: (pg.Categorical(h), h[:, :1]), r"^the policy_state that policy .* \[3, 2\], got \[3, 1\]"),
    ],
)
def test_bad_recurrent_policies_are_named(policy: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        collect(ENV, policy=policy, state=start(ENV, num_envs=B, policy_state=INITIAL), num_steps=2)
