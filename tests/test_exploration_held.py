"""Choices whose noise is held for several steps: their law, when it is drawn, and what it reaches."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.distributions import draw_noise, tempered
from pgjax.exploration import HeldCategorical
from pgjax.networks import DiscretePolicy, default_actor_critic

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(3)
LOGITS = jnp.array([[0.3, -1.0, 0.8], [0.0, 2.0, -0.5]])


def test_one_action_by_itself_is_that_of_a_categorical() -> None:
    held, plain = HeldCategorical(LOGITS, hold=4), pg.Categorical(LOGITS)
    other, plain_other = HeldCategorical(LOGITS[::-1], hold=4), pg.Categorical(LOGITS[::-1])
    np.testing.assert_array_equal(held.sample(KEY), plain.sample(KEY))
    np.testing.assert_array_equal(held.mode(), plain.mode())
    np.testing.assert_array_equal(held.entropy(), plain.entropy())
    np.testing.assert_array_equal(held.log_prob(jnp.array([2, 0])), plain.log_prob(jnp.array([2, 0])))
    np.testing.assert_array_equal(held.kl_divergence(other), plain.kl_divergence(plain_other))
    masked = HeldCategorical(LOGITS, jnp.array([False, True, True]), hold=4)
    np.testing.assert_array_equal(masked.probs[:, 0], 0.0)
    flatter = tempered(held, 2.0)
    assert isinstance(flatter, HeldCategorical)
    assert flatter.hold == 4
    np.testing.assert_allclose(flatter.logits, LOGITS / 2.0)


def test_a_number_is_shared_by_as_many_steps_as_it_says_and_each_has_the_right_frequencies() -> None:
    rows = HeldCategorical(jnp.broadcast_to(LOGITS[0], (8192, 3)), hold=3)
    noise = draw_noise(rows, KEY, num_draws=7)
    actions = np.stack([np.asarray(rows.sample_from(noise[t])) for t in range(7)])
    same = (actions[1:] == actions[:-1]).all(axis=1)
    np.testing.assert_array_equal(same, [True, True, False, True, True, False])
    for t in (0, 3, 6):
        frequency = np.bincount(actions[t], minlength=3) / 8192
        np.testing.assert_allclose(frequency, rows.probs[0], atol=5 * 0.5 / np.sqrt(8192))
    # Steps of two windows are independent: the joint frequencies are products.
    joint = np.histogram2d(actions[0], actions[3], bins=3)[0] / 8192
    np.testing.assert_allclose(joint, np.outer(rows.probs[0], rows.probs[0]), atol=5 * 0.5 / np.sqrt(8192))


def test_a_rollout_holds_it_for_each_environment_by_itself_and_reaches_what_trembling_does_not() -> None:
    env, env_params = gymnax.make("MountainCar-v0")

    def play(hold: int) -> pg.Trajectory:
        state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=256)
        policy = lambda params, obs: HeldCategorical(jnp.zeros((*obs.shape[:-1], 3)), hold=hold)  # noqa: E731
        return pg.rollout(KEY, (), state, policy=policy, env=env, env_params=env_params, num_steps=200)[1]

    held, plain = play(25), play(1)
    assert not np.asarray(plain.terminated).any()
    assert np.asarray(held.terminated).any(axis=0).mean() > 0.05
    blocks = np.asarray(held.action).reshape(8, 25, 256)
    assert (blocks == blocks[:, :1]).all()
    assert len(np.unique(blocks[:, 0].T, axis=0)) > 200  # of 256 environments with 3**8 sequences


def test_the_state_tells_of_the_number_so_later_actions_of_a_window_are_no_draws() -> None:
    """The caveat of the docstring, where the state is the last action: given it, the next action is no choice."""
    rows = HeldCategorical(jnp.zeros((512, 2)), hold=2)
    noise = draw_noise(rows, KEY, num_draws=3)
    first, second, third = (np.asarray(rows.sample_from(noise[t])) for t in range(3))
    np.testing.assert_array_equal(second, first)
    assert 0.3 < third[first == 0].mean() < 0.7


def test_the_head_makes_it_and_refuses_what_it_cannot() -> None:
    env, env_params = gymnax.make("MountainCar-v0")
    head = DiscretePolicy(3, hold=16)
    model = default_actor_critic(env, env_params, head=head)
    obs = jnp.zeros((4, 2))
    distribution = model.apply(model.init(KEY, obs), obs, method="policy")
    assert isinstance(distribution, HeldCategorical)
    assert distribution.hold == 16
    plain = default_actor_critic(env, env_params)
    assert type(plain.apply(plain.init(KEY, obs), obs, method="policy")) is pg.Categorical
    with pytest.raises(ValueError, match="hold must be at least 1, got 0"):
        HeldCategorical(LOGITS, hold=0)
    several = DiscretePolicy((2, 3), hold=2)
    with pytest.raises(ValueError, match="hold is only defined for a single number of actions, got 2"):
        several.init(KEY, obs)
