"""Environments of other forms: wrappers, older ones, foreign policies, and episodes that begin elsewhere."""

import copy
import pickle
import types
import warnings
from dataclasses import FrozenInstanceError
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from flax import linen, nnx
from gymnax.environments import spaces
from probes import coin, collect, start

import pgjax as pg
from pgjax.envs import (
    DiscretizedAction,
    FiveValueAdapter,
    FlattenObservation,
    OneHotObservation,
    PooledReset,
    TimeLimit,
    Wrapper,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")
FROZEN_LAKE, LAKE_PARAMS = gymnax.make("FrozenLake-misc")
NEVER_ENDS = probes.Probe("constant", length=10**6)


def linear(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params)


def test_an_environment_of_no_known_class_works() -> None:
    _, window = collect(probes.Bare(), num_steps=9)
    assert window.reward.dtype == window.obs.dtype == jnp.float32
    np.testing.assert_array_equal(window.next_obs, window.obs + 1)
    np.testing.assert_array_equal(window.truncated, window.next_obs == 3)
    assert not window.terminated.any()
    # Exact, not "up to rounding": the observation after a cut is that of a fresh start.
    np.testing.assert_array_equal((window.next_obs[:-1] == window.obs[1:]) | window.done[:-1], True)
    assert set(np.unique(window.obs[1:][window.done[:-1]])) == {0.0, 1.0}


def test_observations_may_be_any_pytree() -> None:
    env = probes.PytreeProbe("constant", length=3)
    _, window = collect(env)
    assert {name: (x.shape, x.dtype.name) for name, x in window.obs.items()} == {
        "time": ((6, 4), "float32"),
        "cue": ((6, 4, 1), "float32"),
    }
    np.testing.assert_array_equal(window.next_obs["time"], window.step + 1)
    value = lambda params, obs: obs["time"] + obs["cue"][..., 0]  # noqa: E731
    _, next_value = pg.bootstrap_values(None, window, value=value)
    expected = np.where(window.terminated, 0.0, value(None, window.next_obs))
    np.testing.assert_allclose(next_value, expected)


def test_flattened_observations_hold_the_leaves_in_order() -> None:
    env = FlattenObservation(probes.PytreeProbe("constant", length=3))
    _, window = collect(env)
    assert window.obs.shape == (6, 4, 2)
    assert window.obs.dtype == jnp.float32
    np.testing.assert_array_equal(window.obs[..., 1], window.step)
    np.testing.assert_array_equal(window.next_obs[..., 1], window.step + 1)
    assert env.observation_space(None).shape == (2,)


def test_one_hot_observations_of_frozen_lake() -> None:
    env = OneHotObservation(FROZEN_LAKE)
    _, window = collect(env, LAKE_PARAMS, policy=linear, params=jnp.zeros((16, 4)), num_steps=40)
    assert window.obs.shape == (40, 4, 16)
    for obs in (window.obs, window.next_obs):
        np.testing.assert_array_equal(obs.sum(-1), 1.0)
    np.testing.assert_array_equal(window.obs[0].argmax(-1), 0)
    assert len(np.unique(np.asarray(window.next_obs).argmax(-1))) > 4
    assert env.observation_space(LAKE_PARAMS).shape == (16,)
    assert OneHotObservation(FROZEN_LAKE, 20).reset(jax.random.key(0), LAKE_PARAMS)[0].shape == (20,)


def test_a_discretised_action_is_a_point_of_the_box_and_the_default_network_chooses_among_them() -> None:
    pendulum, params = gymnax.make("Pendulum-v1")
    env = DiscretizedAction(pendulum, 5)
    assert env.action_space(params).nvec == (5,)
    points = [env.decode(jnp.array([k]), params)[0] for k in range(5)]
    np.testing.assert_allclose(points, [-2.0, -1.0, 0.0, 1.0, 2.0], rtol=1e-6)
    _, state = env.reset(jax.random.key(0), params)
    for k, torque in ((0, -2.0), (3, 1.0)):
        for method in ("step", "step_env"):
            got = getattr(env, method)(jax.random.key(1), state, jnp.array([k]), params)
            want = getattr(pendulum, method)(jax.random.key(1), state, jnp.array([torque]), params)
            jax.tree.map(np.testing.assert_array_equal, got, want)
    model = pg.networks.default_actor_critic(env, params)
    start = pg.init_rollout(jax.random.key(0), env, params, num_envs=3)
    distribution = model.apply(model.init(jax.random.key(1), start.obs), start.obs, method="policy")
    assert isinstance(distribution, pg.MultiCategorical)
    assert distribution.shape == (3, 1)
    drawn = jax.vmap(env.action_space(params).sample)(jax.random.split(jax.random.key(2), 100))
    assert set(np.unique(drawn)) == set(range(5))


def test_only_a_bounded_vector_is_discretised() -> None:
    cartpole, params = gymnax.make("CartPole-v1")
    unbounded = types.SimpleNamespace(action_space=lambda params: spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ValueError, match=r"^DiscretizedAction needs an environment whose action is a bounded vector"):
        DiscretizedAction(cartpole, 5).action_space(params)
    with pytest.raises(ValueError, match=r"^DiscretizedAction needs finite bounds, got -inf"):
        DiscretizedAction(unbounded, 5).action_space(params)
    with pytest.raises(ValueError, match=r"^num_choices must be at least 2, got 1"):
        DiscretizedAction(cartpole, 1)


def test_a_time_limit_truncates_and_leaves_terminations_alone() -> None:
    _, window = collect(TimeLimit(NEVER_ENDS, 4))
    np.testing.assert_array_equal(window.truncated, window.step == 3)
    assert not window.terminated.any()
    np.testing.assert_array_equal(window.next_obs[..., 0], window.step + 1)
    _, window = collect(TimeLimit(probes.TERMINATES, 9))
    np.testing.assert_array_equal(window.terminated, window.step == 3)
    assert not window.truncated.any()
    _, window = collect(TimeLimit(probes.TRUNCATES, 9))  # its own limit of 4 still holds
    np.testing.assert_array_equal(window.truncated, window.step == 3)


def test_starts_come_from_the_pool_and_all_of_them_are_used() -> None:
    env = PooledReset(gymnax.make("CartPole-v1")[0], size=3)
    params = gymnax.make("CartPole-v1")[1].replace(max_steps_in_episode=2)
    state, window = collect(env, params, num_steps=60)
    pool = np.asarray(state.env_state.pool_obs)  # [B, size, 4]
    starts = np.asarray(window.obs)[np.asarray(window.step) == 0].reshape(-1, 4, 4)  # [episode, B, 4]
    for b in range(4):
        drawn = [int(np.flatnonzero((pool[b] == first).all(-1))[0]) for first in starts[:, b]]
        assert set(drawn) == {0, 1, 2}
    np.testing.assert_array_equal(window.truncated, window.step == 1)
    assert len(np.unique(pool.reshape(-1, 4), axis=0)) == 12


def test_a_pool_of_one_repeats_its_start() -> None:
    env = PooledReset(probes.TERMINATES, size=1)
    _, window = collect(env, num_steps=16, num_envs=16)
    assert np.all(window.obs[..., 1] == window.obs[:1, :, 1])
    assert np.ptp(window.obs[0, :, 1]) > 0


def test_an_older_environment_is_adapted() -> None:
    """It reports one `done`; the adapter knows which ends are the limit's, and gives the true last observation."""
    _, window = collect(FiveValueAdapter(probes.FiveValues()), num_steps=9)
    np.testing.assert_array_equal(window.terminated, window.next_obs == 3)
    assert not window.truncated.any()
    np.testing.assert_array_equal(window.next_obs, window.obs + 1)
    _, window = collect(FiveValueAdapter(probes.FiveValues(), max_steps=3), num_steps=9)
    np.testing.assert_array_equal(window.truncated, window.step == 2)  # those that began at 0
    np.testing.assert_array_equal(window.terminated, (window.next_obs == 3) & (window.step < 2))
    assert window.truncated.any()
    assert window.terminated.any()


def test_the_limit_of_an_older_environment_is_read_off_its_parameters() -> None:
    _, window = collect(FiveValueAdapter(probes.FiveValues()), probes.ProbeParams(max_steps_in_episode=3), num_steps=9)
    assert window.truncated.any()
    np.testing.assert_array_equal(window.truncated, window.step == 2)


NESTED = {
    "limit outside one-hot": lambda: TimeLimit(OneHotObservation(FROZEN_LAKE), 5),
    "one-hot outside limit": lambda: OneHotObservation(TimeLimit(FROZEN_LAKE, 5)),
    "limit in limit": lambda: OneHotObservation(TimeLimit(TimeLimit(FROZEN_LAKE, 5), 7)),
    "limit around limit": lambda: OneHotObservation(TimeLimit(TimeLimit(FROZEN_LAKE, 7), 5)),
    "pool outside": lambda: PooledReset(OneHotObservation(TimeLimit(FROZEN_LAKE, 5)), 2),
    "pool inside": lambda: TimeLimit(PooledReset(OneHotObservation(FROZEN_LAKE), 2), 5),
}


@pytest.mark.parametrize("name", NESTED)
def test_wrappers_nest_in_any_order(name: str) -> None:
    """The lake always starts in its corner, so that all orders give the same kind of window."""
    env = NESTED[name]()
    _, window = collect(env, LAKE_PARAMS, policy=linear, params=jnp.zeros((16, 4)), num_steps=12)
    for obs in (window.obs, window.next_obs):
        assert obs.shape == (12, 4, 16)
        np.testing.assert_array_equal(obs.sum(-1), 1.0)  # one-hot, not an index spread over 16 places
    np.testing.assert_array_equal(window.truncated, window.step == 4)
    np.testing.assert_array_equal((window.next_obs[:-1] == window.obs[1:]).all(-1) | window.done[:-1], True)
    assert window.truncated.any()


def test_a_wrapped_older_environment_can_be_limited() -> None:
    _, window = collect(TimeLimit(FiveValueAdapter(probes.FiveValues()), 2), num_steps=9)
    np.testing.assert_array_equal(window.truncated, window.step == 1)
    np.testing.assert_array_equal(window.terminated, window.next_obs == 3)


def test_wrappers_are_values() -> None:
    make = lambda: TimeLimit(PooledReset(probes.TERMINATES, 2), 5)  # noqa: E731
    assert hash(make()) == hash(make())
    assert make() == make() != TimeLimit(PooledReset(probes.TERMINATES, 3), 5)
    assert copy.deepcopy(make()) == pickle.loads(pickle.dumps(make())) == make()
    with pytest.raises(FrozenInstanceError):
        make().max_steps = 3
    with pytest.raises(AttributeError, match="nonsense"):
        _ = make().nonsense
    assert make().default_params == probes.TERMINATES.default_params
    assert Wrapper(probes.TERMINATES).action_space().n == 2


def test_without_parameters_the_environment_s_own_are_used() -> None:
    for wrap in (Wrapper, lambda env: TimeLimit(env, 99), PooledReset, FlattenObservation):
        _, window = collect(wrap(probes.TERMINATES), None)
        np.testing.assert_array_equal(window.terminated, window.step == 3)


def test_a_state_may_hold_random_keys() -> None:
    class Keyed(probes.Bare):
        def reset(self, key: Any, params: Any) -> Any:
            obs, state = super().reset(key, params)
            return obs, (state, key)

        def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            after, count, *rest = super().step(key, state[0], action, params)
            return after, (count, jax.random.fold_in(state[1], 1)), *rest

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            last = state[0] + 1
            return last, (last, jax.random.fold_in(state[1], 1)), jnp.float32(1), jnp.bool_(False), {}

    for env in (Keyed(), TimeLimit(Keyed(), 3)):
        state, window = collect(env)
        assert jnp.issubdtype(jax.tree.leaves(state.env_state)[1].dtype, jax.dtypes.prng_key)
        assert window.truncated.any()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: TimeLimit(probes.TERMINATES, 0), ValueError, "^max_steps must be at least 1"),
        (lambda: TimeLimit(probes.TERMINATES, 2.0), TypeError, "^max_steps must be a Python int"),
        (lambda: TimeLimit(probes.Bare()), TypeError, "^TimeLimit needs env.step_env, .* Bare has none"),
        (lambda: PooledReset(probes.TERMINATES, 0), ValueError, "^size must be at least 1"),
        (lambda: PooledReset(probes.Bare()), TypeError, "^PooledReset needs env.step_env"),
        (lambda: FiveValueAdapter(probes.Bare()), TypeError, "^FiveValueAdapter needs env.step_env"),
        (lambda: FiveValueAdapter(probes.FiveValues(), 0), ValueError, "^max_steps must be at least 1"),
        (lambda: OneHotObservation(FROZEN_LAKE, 0), ValueError, "^num_values must be at least 1"),
        (
            lambda: start(OneHotObservation(probes.TERMINATES, 3)),
            TypeError,
            "^the observation of env must be",
        ),
        (lambda: OneHotObservation(probes.TERMINATES).observation_space(), ValueError, "^num_values is required"),
    ],
)
def test_bad_wrappers_are_named(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


# Policies and distributions from elsewhere.


def test_a_linen_module_and_an_nnx_module_act_alike() -> None:
    dense = linen.Dense(2)
    params = dense.init(jax.random.key(0), jnp.zeros(2))
    module = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    module.kernel[...], module.bias[...] = params["params"]["kernel"], params["params"]["bias"]
    graph, split = nnx.split(module)
    act = lambda params, obs: pg.Categorical(dense.apply(params, obs))  # noqa: E731
    act_nnx = lambda params, obs: pg.Categorical(nnx.merge(graph, params)(obs))  # noqa: E731
    windows = [
        collect(probes.TERMINATES, policy=policy, params=p)[1] for policy, p in ((act, params), (act_nnx, split))
    ]
    np.testing.assert_array_equal(windows[0].action, windows[1].action)
    np.testing.assert_allclose(windows[0].log_prob, windows[1].log_prob, rtol=1e-6)
    assert np.ptp(windows[0].log_prob) > 0


class OnlyWhatIsNeeded:
    """A distribution of another library: not a pytree, its key under another name."""

    def __init__(self, logit: Any):
        self.logit = logit

    def sample(self, *, seed: Any) -> Any:
        return jax.random.bernoulli(seed, jax.nn.sigmoid(self.logit)).astype(jnp.int32)

    def log_prob(self, action: Any) -> Any:
        return jax.nn.log_sigmoid(jnp.where(action == 1, self.logit, -self.logit))


def test_a_foreign_distribution_acts_and_replays() -> None:
    policy = lambda params, obs: OnlyWhatIsNeeded(params * obs[..., 1])  # noqa: E731
    _, window = collect(probes.TERMINATES, policy=policy, params=1.5, num_steps=64)
    np.testing.assert_allclose(window.log_prob, policy(1.5, window.obs).log_prob(window.action), rtol=1e-5)
    cue, heads = np.asarray(window.obs[..., 1]), np.asarray(window.action)
    for sign in (-1, 1):
        assert abs(heads[cue == sign].mean() - 1 / (1 + np.exp(-1.5 * sign))) < 0.15
    _, given = collect(probes.TERMINATES, policy=policy, params=1.5, num_steps=64, actions=window.action)
    np.testing.assert_allclose(given.log_prob, window.log_prob, rtol=1e-6)
    with pytest.raises(TypeError, match=r"^OnlyWhatIsNeeded has no sample_from"):
        collect(probes.TERMINATES, policy=policy, noise=jnp.zeros((6, 4)))


@pytest.mark.usefixtures("foreign_ranks")
def test_distrax_distributions_act() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distrax = pytest.importorskip("distrax")
    _, window = collect(probes.TERMINATES, policy=lambda p, o: distrax.Categorical(coin(p, o).logits), params=0.7)
    np.testing.assert_allclose(window.log_prob, coin(0.7, window.obs).log_prob(window.action), rtol=1e-5)
    result = pg.evaluate(
        jax.random.key(0), 0.7, policy=lambda p, o: distrax.Categorical(coin(p, o).logits), env=probes.TERMINATES,
        env_params=None, num_episodes=2, greedy=True,
    )  # fmt: skip
    np.testing.assert_array_equal(result.episode_return, 4.0)
    normal = lambda p, o: distrax.Normal(o, 1.0)  # noqa: E731  one log-probability for each component
    with pytest.raises(ValueError, match=r"^the log_prob that policy gives must be one number for each environment"):
        collect(probes.TERMINATES, policy=normal)


def test_the_parameters_of_one_environment_are_taken_out_of_rows() -> None:
    env, env_params = gymnax.make("CartPole-v1")
    rows = env_params.replace(gravity=jnp.array([9.8, 1.6, 3.7]))
    one = pg.envs.single_params(env, rows)
    assert float(one.gravity) == pytest.approx(9.8)
    assert jax.tree.map(jnp.ndim, one) == jax.tree.map(jnp.ndim, env_params)
    assert pg.envs.single_params(env, None) == env.default_params


class Camera:
    """Frames of uint8 and a flag, under parameters of its own."""

    default_params = {"light": jnp.float32(1.0)}  # noqa: RUF012

    def reset(self, key: jax.Array, params: Any) -> Any:
        return {"frame": (params["light"] * jnp.ones(3)).astype(jnp.uint8), "flag": params["light"] > 0}, jnp.int32(0)


def test_the_dtypes_of_observations_are_those_before_the_cast() -> None:
    wanted = {"frame": jnp.dtype("uint8"), "flag": jnp.dtype("bool")}
    assert pg.envs.observation_dtype(Camera()) == wanted
    assert pg.envs.observation_dtype(Camera(), {"light": jnp.ones(4)}) == wanted  # one row for each environment
    assert pg.envs.observation_dtype(*gymnax.make("CartPole-v1")) == jnp.float32
