"""Processes as environments: their dynamics are those of the process, and their ends are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from ..processes import close, episodic, garnet, numpy


def play(env, actions, keys):
    """A loop over env.step for each column of actions [T, B]; every leaf [T, B]."""
    params = env.default_params

    def episode(actions, key):
        key, key_reset = jax.random.split(key)

        def step(carry, row):
            obs, state = carry
            action, key = row
            after, state, reward, terminated, truncated, info = env.step(key, state, action, params)
            return (after, state), (obs, reward, terminated, truncated, info["final_observation"])

        start = env.reset(key_reset, params)
        return jax.lax.scan(step, start, (actions, jax.random.split(key, len(actions))))[1]

    return numpy(
        jax.jit(jax.vmap(episode, (1, 0), 1))(actions, jax.random.split(jax.random.key(keys), actions.shape[1]))
    )


def column(env, steps):
    """One episode after the other under action 0, every leaf [T]."""
    return [x[:, 0] for x in play(env, np.zeros((steps, 1), int), 0)]


def frequencies(probs, hits):
    """Whether counts of draws fit probabilities: five standard deviations each."""
    n = hits.sum(-1, keepdims=True)
    return np.abs(hits - n * probs) <= 5 * np.sqrt(np.maximum(n * probs * (1 - probs), 0)) + 1e-9


def test_tabular_environment_draws_from_its_process():
    mdp, _, _ = garnet(0, 0.9, None, 3, 2)
    mdp = mdp.replace(initial=np.array([0.5, 0.2, 0.3]))
    transition = np.asarray(mdp.transition)
    actions = np.random.default_rng(5).integers(2, size=(400, 64))
    obs, reward, terminated, truncated, final = play(exact.TabularEnvironment(mdp, time_limit=7), actions, 2)
    assert obs.dtype == reward.dtype == np.float32
    state, after = np.argmax(obs, -1), np.argmax(final, -1)
    close(reward, np.asarray(mdp.reward, np.float32)[state, actions])
    hits = np.zeros((3, 2, 3))
    np.add.at(hits, (state, actions, after), 1)
    assert frequencies(transition, hits).all()
    assert (hits[transition == 0] == 0).all()
    assert not terminated.any()
    assert (truncated == (np.arange(400) % 7 == 6)[:, None]).all()
    # After a cut the next observation is a first state; elsewhere it is where the step led.
    cut = truncated[:-1]
    assert (state[1:][~cut] == after[:-1][~cut]).all()
    starts = np.bincount(state[1:][cut], minlength=3)
    assert frequencies(np.asarray(mdp.initial), starts[None]).all()


def test_the_horizon_terminates_and_a_time_limit_truncates():
    mdp, _, _ = garnet(0, 0.9, 3, 3, 2)
    cuts = [False, False, True] * 2 + [False]
    _, _, terminated, truncated, _ = column(exact.TabularEnvironment(mdp), 7)
    assert terminated.tolist() == cuts
    assert not truncated.any()
    endless = mdp.replace(horizon=None)
    _, _, terminated, truncated, _ = column(exact.TabularEnvironment(endless, time_limit=3), 7)
    assert truncated.tolist() == cuts
    assert not terminated.any()
    _, _, terminated, truncated, _ = column(exact.TabularEnvironment(mdp, time_limit=3), 7)
    assert (terminated == truncated).all()


def test_terminal_states_terminate():
    mdp, _, _ = episodic(0)
    _, _, terminated, _, final = column(exact.TabularEnvironment(mdp), 200)
    assert (terminated == (final[:, -1] == 1)).all()
    assert 50 < terminated.sum() < 150


@pytest.mark.parametrize("name", exact.tabular_problems())
def test_every_problem_runs_as_an_environment(name):
    mdp = exact.tabular_problems()[name]()
    env = exact.TabularEnvironment(mdp, time_limit=5)
    params = env.default_params
    assert env.num_actions == mdp.num_actions == env.action_space(params).n
    assert env.observation_space(params).shape == (mdp.num_states,)
    space = env.observation_space(params)
    assert (np.asarray(space.low) <= 0).all()
    assert (np.asarray(space.high) >= 1).all()

    def two_steps(key):
        obs, state = env.reset(key, params)
        return obs, state, env.step(key, state, env.action_space(params).sample(key), params)

    obs, state, (after, later, *rest, info) = jax.eval_shape(two_steps, jax.random.key(0))
    spec = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert spec(obs) == spec(after) == spec(info["final_observation"]) == ((mdp.num_states,), np.dtype("float32"))
    assert spec(state) == spec(later)
    assert [x.shape for x in rest] == [()] * 3


def test_another_process_can_be_passed_as_parameters():
    env = exact.TabularEnvironment(exact.two_state())
    params = env.default_params
    doubled = params.replace(mdp=params.mdp.replace(reward=2 * np.asarray(params.mdp.reward)))
    _, state = env.reset(jax.random.key(0), params)
    rewards = [float(env.step(jax.random.key(1), state, 0, p)[2]) for p in (params, doubled)]
    assert rewards == [1.0, 2.0]


@pytest.mark.parametrize(
    ("limits", "terminated", "truncated"),
    [
        ({"terminate_at": 3}, [0, 0, 1, 0, 0, 1], [0] * 6),
        ({"truncate_at": 2}, [0] * 6, [0, 1, 0, 1, 0, 1]),
        ({"terminate_at": 3, "truncate_at": 3}, [0, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1]),
        ({"terminate_at": 4, "truncate_at": 3}, [0] * 6, [0, 0, 1, 0, 0, 1]),
    ],
)
def test_counter_counts(limits, terminated, truncated):
    env = exact.CounterEnvironment(**limits)
    obs, reward, *ends, final = column(env, 6)
    assert ends[0].astype(int).tolist() == terminated
    assert ends[1].astype(int).tolist() == truncated
    length = min(limits.values())
    close(reward, np.arange(6) % length)
    close(obs[:, 0], reward)
    close(final[:, 0], reward + 1)
    assert env.action_space().n == env.num_actions == 2
    assert env.observation_space().shape == (1,)


def test_parameters_and_states_are_pytrees():
    params = exact.TabularEnvironment(exact.two_state(), time_limit=4).default_params
    assert isinstance(params, exact.TabularParams)
    assert len(jax.tree.leaves(params)) == 5
    counter = exact.CounterEnvironment(terminate_at=2).default_params
    assert counter == exact.CounterParams(terminate_at=2, truncate_at=int(jnp.iinfo(jnp.int32).max))
    assert len(jax.tree.leaves(exact.TabularState(time=0, state=1))) == 2


def test_bad_limits_are_refused_by_name():
    with pytest.raises(ValueError, match="time_limit must be at least 1"):
        exact.TabularEnvironment(exact.two_state(), time_limit=0)
    with pytest.raises(TypeError, match="terminate_at must be a Python int"):
        exact.CounterEnvironment(terminate_at=2.0)
