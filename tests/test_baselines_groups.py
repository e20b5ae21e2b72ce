"""RLOO, GRPO and relatives over every group of a bandit, and the greedy baseline on an environment."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ACTION_REWARD, Probe

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
REWARD, LOGITS = np.array([1.0, 0.2, -0.7]), np.array([0.2, -0.5, 0.4])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum()
SCORE = np.eye(3) - PROBS
TRUTH = (PROBS * REWARD) @ SCORE


def groups(size: int) -> tuple[Any, Any, Any]:
    """Returns [3^N, N], scores [3^N, N, 3] and probabilities of all groups."""
    index = np.indices((3,) * size).reshape(size, -1).T
    return REWARD[index], SCORE[index], PROBS[index].prod(1)


def moments(advantages: Any, score: Any, law: Any) -> tuple[Any, float]:
    """Mean and trace of the covariance of 1/N Σ A_i ψ_i."""
    each = np.einsum("gn,gnp->gp", np.asarray(advantages), score) / score.shape[1]
    mean = law @ each
    return mean, float(law @ np.square(each - mean).sum(1))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [2, 3, 5])
def test_identity_07_leave_one_out_is_the_sample_covariance(size: int) -> None:
    g, score, _ = groups(size)
    advantages = g - np.asarray(pg.leave_one_out(g))
    close(advantages, size / (size - 1) * (g - g.mean(1, keepdims=True)))
    each = np.einsum("gn,gnp->gp", advantages, score) / size
    for k in range(0, len(g), 7):
        for p in range(3):
            close(each[k, p], np.cov(g[k], score[k, :, p])[0, 1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [2, 3, 5])
def test_identity_08_the_mean_with_self_shrinks_and_leave_one_out_does_not(size: int) -> None:
    g, score, law = groups(size)
    close(moments(g - np.asarray(pg.batch_mean(g)), score, law)[0], (size - 1) / size * TRUTH)
    close(moments(g - np.asarray(pg.leave_one_out(g)), score, law)[0], TRUTH)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [2, 3, 5])
def test_identity_09_the_variance_of_leave_one_out(size: int) -> None:
    g, score, law = groups(size)
    got = moments(g - np.asarray(pg.leave_one_out(g)), score, law)[1]
    centred, square, signal = REWARD - PROBS @ REWARD, np.square(SCORE).sum(1), TRUTH @ TRUTH
    own = PROBS @ (square * centred**2) - signal
    price = signal + (PROBS @ centred**2) * (PROBS @ square)
    close(got, own / size + price / (size * (size - 1)))
    assert abs(got - own / size) > 1e-3  # without the price of not knowing the mean


@pytest.mark.usefixtures("x64")
def test_identity_37_constants_and_units_of_the_reward() -> None:
    """With a fixed number of steps r + c keeps the mean of what is unbiased; k r scales it; GRPO sees neither."""
    g, score, law = groups(3)
    plain = moments(g, score, law)[0]
    close(moments(g + 3.0, score, law)[0], plain)
    others = g - np.asarray(pg.leave_one_out(g))
    close(g + 3.0 - np.asarray(pg.leave_one_out(g + 3.0)), others)  # and each sample, where a mean is subtracted
    close(5 * g - np.asarray(pg.leave_one_out(5 * g)), 5 * others)
    standardised = pg.grpo_advantages(g, eps=1e-300)
    close(pg.grpo_advantages(7.0 * g - 2.0, eps=1e-300), standardised, atol=1e-11)
    assert np.abs(pg.grpo_advantages(7.0 * g, eps=0.5) - pg.grpo_advantages(g, eps=0.5)).max() > 0.1


@pytest.mark.usefixtures("x64")
def test_identity_40_equal_rewards_give_no_advantage() -> None:
    for constant in (0.0, 0.1, 1e6 + 0.1):
        for dtype in (np.float32, np.float64):
            g = jnp.full((4, 3), constant, dtype)
            for advantages in (g - pg.leave_one_out(g), g - pg.batch_mean(g), pg.grpo_advantages(g)):
                np.testing.assert_array_equal(advantages, 0.0)
    _, score, law = groups(3)
    np.testing.assert_allclose(moments(np.full((27, 3), 2.5), score, law)[0], 0.0, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_dividing_by_the_deviation_turns_the_gradient() -> None:
    g, score, law = groups(3)
    advantages = np.asarray(pg.grpo_advantages(g))
    deviation = g.std(1, ddof=1, keepdims=True)
    close(advantages, (g - g.mean(1, keepdims=True)) / (deviation + 1e-4), atol=1e-11)
    mean = moments(advantages, score, law)[0]
    cosine = mean @ TRUTH / np.linalg.norm(mean) / np.linalg.norm(TRUTH)
    np.testing.assert_allclose(cosine, 0.99992, atol=0.51e-5)
    unbiased = moments(g - np.asarray(pg.leave_one_out(g)), score, law)[0]
    assert 1 - unbiased @ TRUTH / np.linalg.norm(unbiased) / np.linalg.norm(TRUTH) < 1e-14
    # Dividing by the length besides: a member that lasted twice as long counts half.
    length = np.tile([1, 2, 4], (27, 1))
    close(pg.grpo_advantages(g, length), advantages / length)
    assert np.abs(np.linalg.norm(mean) - np.linalg.norm(TRUTH)) > 0.1


@pytest.mark.usefixtures("x64")
def test_groups_know_neither_the_order_of_members_nor_one_another() -> None:
    random = np.random.default_rng(0)
    g, order = random.normal(size=(4, 5)), random.permutation(5)
    for function in (pg.leave_one_out, pg.batch_mean, pg.grpo_advantages):
        got = np.asarray(function(g))
        close(function(g[:, order]), got[:, order])
        close(function(np.moveaxis(g, -1, 0), axis=0).T, got)
        shifted = np.asarray(function(g + np.array([[5.0], [0.0], [0.0], [0.0]])))
        close(shifted[1:], got[1:])
        close(shifted[0] - got[0], 0.0 if function is pg.grpo_advantages else 5.0)
        windows = np.asarray(function(np.stack([g, 2 * g]), axis=-1))  # [T, G, N]
        close(windows[0], got)
    assert float(jnp.abs(jax.grad(lambda g: jnp.sum(pg.grpo_advantages(g)[:, 0]))(jnp.asarray(g))).max()) == 0.0


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"return_ must hold groups of at least 2 along axis -1, got shape \[4, 1\]"):
        pg.grpo_advantages(jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="return_ must hold at least 2 trajectories"):
        pg.leave_one_out(jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="length must have the shape of return_"):
        pg.grpo_advantages(jnp.ones((4, 2)), jnp.ones(4))


def test_the_greedy_baseline_is_the_return_of_the_mode() -> None:
    """Reward 1 for action 1 and -1 for action 0: the mode knows the sign of the cue, whatever is sampled."""
    env = Probe("action", length=3)
    policy = lambda scale, obs: pg.Categorical(jnp.stack([-scale * obs[..., 1], scale * obs[..., 1]], -1))  # noqa: E731
    state = pg.init_rollout(jax.random.key(0), env, env.default_params, num_envs=6)
    arguments: dict[str, Any] = {"policy": policy, "env": env, "env_params": env.default_params, "discount": 0.5}
    cue = np.asarray(state.obs[:, 1])
    assert set(cue) == {-1.0, 1.0}
    for steps in (3, 8):  # an episode that begins after it is not counted
        got = pg.greedy_baseline(jax.random.key(1), 0.1, state, num_steps=steps, **arguments)
        np.testing.assert_allclose(got, cue * 1.75, rtol=1e-6)
    np.testing.assert_allclose(
        pg.greedy_baseline(jax.random.key(1), 0.1, state, num_steps=2, **arguments), cue * 1.5, rtol=1e-6
    )
    extras = lambda scale, obs: (policy(scale, obs), obs)  # noqa: E731
    np.testing.assert_allclose(
        pg.greedy_baseline(jax.random.key(1), 0.1, state, num_steps=3, **{**arguments, "policy": extras}), cue * 1.75
    )

    class Modeless:
        def sample(self, key: Any) -> Any:
            return jnp.zeros(6, int)

        def log_prob(self, action: Any) -> Any:
            return jnp.zeros(6)

    without = {**arguments, "policy": lambda scale, obs: Modeless(), "env": ACTION_REWARD}
    with pytest.raises(TypeError, match=r"greedy_baseline needs a distribution with a method mode\(\), got Modeless"):
        pg.greedy_baseline(jax.random.key(1), 0.1, state, num_steps=1, **without)
