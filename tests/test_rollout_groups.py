"""Groups that share a start state: what is repeated, what parts, and how the axes are split."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
G, N, T = 2, 3, 12
ENV, PARAMS = gymnax.make("CartPole-v1")


def policy(params, obs):
    return pg.Categorical(obs[..., :2] * params)


def test_members_of_a_group_share_their_start_and_then_differ() -> None:
    state = pg.init_rollout(jax.random.key(0), ENV, PARAMS, num_envs=G)
    starts = pg.repeat_states(state, num_repeats=N)
    for one, many in zip(jax.tree.leaves(state), jax.tree.leaves(starts), strict=True):
        assert many.shape == (G * N, *one.shape[1:])
        for g in range(G):
            np.testing.assert_array_equal(many[g * N : (g + 1) * N], np.broadcast_to(one[g], (N, *one.shape[1:])))
    _, trajectory = pg.rollout(jax.random.key(1), 1.0, starts, policy=policy, env=ENV, env_params=PARAMS, num_steps=T)
    groups = pg.as_groups(trajectory, num_repeats=N)
    assert groups.obs.shape == (T, G, N, 4)
    np.testing.assert_array_equal(groups.obs[0], np.broadcast_to(state.obs[:, None], (G, N, 4)))
    np.testing.assert_array_equal(groups.reward[:, 1, 2], trajectory.reward[:, 1 * N + 2])
    assert np.abs(state.obs[0] - state.obs[1]).max() > 1e-3  # other groups start elsewhere
    action = np.asarray(groups.action)
    for g in range(G):
        assert len({tuple(action[:, g, n]) for n in range(N)}) == N  # and no two members do the same
    totals = groups.reward.sum(0)
    np.testing.assert_array_equal(pg.as_groups(trajectory.reward.sum(0), num_repeats=N, axis=0), totals)


def test_bad_groups_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"state must be a RolloutState, got .* Start with init_rollout"):
        pg.repeat_states(3, num_repeats=2)  # type: ignore[arg-type]
    state = pg.init_rollout(jax.random.key(0), ENV, PARAMS, num_envs=1)
    with pytest.raises(ValueError, match="num_repeats must be at least 1, got 0"):
        pg.repeat_states(state, num_repeats=0)
    with pytest.raises(ValueError, match="num_repeats=3 must divide the 4 environments"):
        pg.as_groups(jnp.ones((2, 4)), num_repeats=3)
