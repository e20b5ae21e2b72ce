"""Default networks: every environment that gymnax registers, and spaces that it has no environment for."""

from types import SimpleNamespace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

import pgjax as pg
from pgjax.networks import (
    ActorCritic,
    BetaPolicy,
    ConvActorCritic,
    DiscretePolicy,
    Features,
    GaussianPolicy,
    RecurrentActorCritic,
    StateDependentPolicy,
    TanhGaussianPolicy,
    default_actor_critic,
    default_recurrent_actor_critic,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile", "foreign_ranks")
NAMES = [name for name in gymnax.registered_envs if "MNIST" not in name]  # that one downloads its data
KEY, T, B = jax.random.key(0), 3, 2


def shapes_of_a_rollout(model: Any, env: Any, env_params: Any) -> Any:
    """Trace initialisation, policy, value and a rollout: (last value, state, trajectory)."""
    policy = lambda params, obs, *memory: model.apply(params, obs, *memory, method="policy")  # noqa: E731
    value = lambda params, obs, *memory: model.apply(params, obs, *memory, method="value")  # noqa: E731
    memory = model.initial_state(B) if hasattr(model, "initial_state") else None

    def run(key: Any) -> Any:
        state = pg.init_rollout(key, env, env_params, num_envs=B, policy_state=memory)
        seen = lambda state: (state.obs,) if memory is None else (state.obs, state.policy_state)  # noqa: E731
        params = model.init(key, *seen(state))
        after, window = pg.rollout(
            key, params, state, policy=policy, env=env, env_params=env_params, num_steps=T, truncation_value=value
        )
        return value(params, *seen(after)), after, window

    return jax.eval_shape(run, KEY)


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_environment_has_a_feed_forward_and_a_recurrent_default(name: str) -> None:
    env, env_params = gymnax.make(name)
    box = isinstance(env.action_space(env_params), spaces.Box)
    models = [default_actor_critic(env, env_params, head=h) for h in ("tanh_normal", "beta", None)[0 if box else 2 :]]
    for model in (*models, default_recurrent_actor_critic(env, env_params)):
        last_value, _, window = shapes_of_a_rollout(model, env, env_params)
        assert last_value.shape == (B,)
        assert window.reward.shape == window.log_prob.shape == window.truncation_value.shape == (T, B)
        assert window.action.shape == (T, B, *env.action_space(env_params).shape)
        assert {last_value.dtype, window.log_prob.dtype, window.truncation_value.dtype} == {jnp.float32.dtype}
        assert (window.extras is None) == (not isinstance(model, RecurrentActorCritic))
    assert isinstance(models[0], ConvActorCritic) == ("MinAtar" in name or "Pong" in name)


def test_planes_are_convolved_by_the_recurrent_default_too() -> None:
    env, env_params = gymnax.make("Breakout-MinAtar")
    model = default_recurrent_actor_critic(env, env_params, hidden=5)
    params = jax.eval_shape(lambda: model.init(KEY, jnp.ones((10, 10, 4)), model.initial_state()))["params"]
    assert params["convolutions"]["Conv_0"]["kernel"].shape == (3, 3, 4, 16)
    assert params["memory"]["hn"]["kernel"].shape == (5, 5)


def test_equal_arguments_give_equal_networks_and_others_reach_the_layers() -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    for make in (default_actor_critic, default_recurrent_actor_critic):
        assert make(env, env_params) == make(env, env_params)
        assert hash(make(env, env_params, head="beta")) == hash(make(env, env_params, head="beta"))
        model = make(env, env_params, features=(3,), activation=jax.nn.relu, dtype=jnp.bfloat16)
        assert (model.features, model.activation, model.dtype) == ((3,), jax.nn.relu, jnp.bfloat16)
        assert make(env, env_params, features=()).features == ()
    assert default_recurrent_actor_critic(env, env_params, hidden=7).hidden == 7
    planes = default_actor_critic(
        *gymnax.make("Asterix-MinAtar"), features=(3,), activation=jnp.tanh, dtype=jnp.float16
    )
    assert (planes.features, planes.activation, planes.dtype) == ((3,), jnp.tanh, jnp.float16)


@struct.dataclass
class Seen:
    """An observation of parts."""

    where: Any
    count: Any


class Shaped:
    """An environment that shows `obs` and asks for actions of `space`; only what a default network looks at."""

    def __init__(self, obs: Any, space: Any, seen: Any = None) -> None:
        self.obs, self.space, self.seen = obs, space, seen

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        return self.obs, 0

    def action_space(self, params: Any) -> Any:
        return self.space

    def observation_space(self, params: Any) -> Any:
        return self.seen


FIVE = spaces.Discrete(5)
PARTS = {"where": spaces.Box(0, 1, (2,)), "count": FIVE}
OBSERVATIONS = {
    "whole number": (np.int32(3), FIVE, ((0, 5),)),
    "whole number, already one-hot": (np.ones(5, np.float32), FIVE, ((1, None),)),
    "number": (np.float32(0.5), spaces.Box(0, 1, ()), ((0, None),)),
    "number without a space": (np.int32(3), None, ((0, None),)),
    "picture": (np.ones((9, 8), np.float32), spaces.Box(0, 1, (9, 8)), ((2, None),)),
    "small planes": (np.ones((2, 9, 3), np.float32), spaces.Box(0, 1, (2, 9, 3)), ((3, None),)),
    "four axes": (np.ones((4, 4, 4, 2), np.float32), None, ((4, None),)),
    "dict": ({"where": np.ones(2), "count": np.int32(1)}, spaces.Dict(PARTS), ((0, 5), (1, None))),
    "dataclass": (Seen(np.ones(2), np.int32(1)), spaces.Dict(PARTS), ((1, None), (0, 5))),
    "tuple": ((np.ones((2, 2)), np.int32(1)), spaces.Tuple((spaces.Box(0, 1, (2, 2)), FIVE)), ((2, None), (0, 5))),
    "nested": ({"a": (np.int32(0),)}, spaces.Dict({"a": spaces.Tuple((FIVE,))}), ((0, 5),)),
    "dict without a space": ({"where": np.ones(2), "count": np.int32(1)}, None, ((0, None), (1, None))),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_of_any_form_become_one_vector(name: str) -> None:
    obs, seen, leaves = OBSERVATIONS[name]
    model = default_actor_critic(Shaped(obs, FIVE, seen), None)
    assert isinstance(model, ActorCritic)
    assert model.encode == Features(leaves)
    # As a rollout shows it: floating, with batch axes.
    batch = jax.tree.map(lambda x: np.stack([np.asarray(x, np.float32)] * 3), obs)
    distribution, value = jax.eval_shape(lambda: model.init_with_output(KEY, batch)[0])
    assert (distribution.logits.shape, value.shape) == ((3, 5), (3,))


def test_cases_of_a_discrete_observation_are_told_apart() -> None:
    model = default_actor_critic(*gymnax.make("FrozenLake-misc"))
    values = jax.jit(lambda obs: model.init_with_output(KEY, obs)[0][1])(jnp.arange(16.0))
    assert len(np.unique(values)) == 16


def box(low: Any, high: Any, shape: tuple[int, ...] = (2,)) -> Shaped:
    return Shaped(np.ones(3, np.float32), spaces.Box(low, high, shape))


def test_bounds_of_each_component_reach_the_head() -> None:
    env, low, high = box(np.array([-2.0, 0.0]), np.array([2.0, 1.0])), (-2.0, 0.0), (2.0, 1.0)
    assert default_actor_critic(env, None, head="tanh_normal").head == TanhGaussianPolicy(2, low=low, high=high)
    assert default_actor_critic(env, None, head="beta").head == BetaPolicy(2, low=low, high=high)
    normal = GaussianPolicy(2, -np.log(2.0), low=low, high=high)
    assert default_actor_critic(env, None).head == default_actor_critic(env, None, head="normal").head == normal
    assert default_recurrent_actor_critic(env, None, head="beta").head == BetaPolicy(2, low=low, high=high)
    assert default_actor_critic(box(-1, 1), None, head="beta").head == BetaPolicy(2, low=(-1.0,) * 2, high=(1.0,) * 2)


def test_a_gaussian_needs_no_bounds_and_others_ask_for_them() -> None:
    for low, high in ((-np.inf, 1.0), (np.array([-1.0, 0.0]), np.array([1.0, np.inf])), (1.0, 1.0)):
        assert default_actor_critic(box(low, high), None).head == GaussianPolicy(2)
        assert default_actor_critic(box(low, high), None, head="state_dependent").head == StateDependentPolicy(2)
        for head in ("tanh_normal", "beta"):
            with pytest.raises(ValueError, match=f"head='{head}' needs finite bounds, low below high, got .*normal"):
                default_actor_critic(box(low, high), None, head=head)


def test_environments_with_different_bounds_share_the_widest_box() -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    rows = env_params.replace(max_torque=jnp.array([1.0, 3.0]))
    model = default_actor_critic(env, rows, head="beta")
    assert model.head == BetaPolicy(1, low=(-3.0,), high=(3.0,))
    assert shapes_of_a_rollout(model, env, rows)[2].action.shape == (T, B, 1)


def test_a_network_is_made_under_jit_as_outside_but_not_of_traced_bounds() -> None:
    env, env_params = gymnax.make("PointRobot-misc")
    made = []
    jax.eval_shape(lambda: made.append(default_actor_critic(env, env_params, head="beta")))
    assert made == [default_actor_critic(env, env_params, head="beta")]
    with pytest.raises(ValueError, match="env_params must be concrete where they set the bounds"):
        jax.eval_shape(lambda p: default_actor_critic(env, p, head="beta") and 0, env_params)


def test_spaces_of_other_libraries_are_told_by_their_attributes() -> None:
    head = lambda **space: default_actor_critic(Shaped(np.ones(3), SimpleNamespace(**space)), None).head  # noqa: E731
    assert head(n=4, shape=()) == head(n=4) == DiscretePolicy(4)
    assert head(nvec=np.array([2, 3]), shape=(2,)) == DiscretePolicy((2, 3))
    assert type(head(n=4, shape=(4,))).__name__ == "BernoulliPolicy"
    for space in ({"n": 4, "start": 1}, {"n": 4, "shape": (2, 2)}, {"nvec": np.ones((2, 2))}, {"shape": (3,)}):
        with pytest.raises(TypeError, match="head is required: there is no default"):
            head(**space)


def test_a_head_that_does_not_fit_is_refused_by_name_and_a_module_is_taken_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"head must be one of 'categorical' for the action space .*got 'beta'"):
        default_actor_critic(*gymnax.make("CartPole-v1"), head="beta")
    with pytest.raises(
        ValueError, match=r"head must be one of 'normal', 'tanh_normal', 'beta', 'deterministic', 'state.* got 'gauss'"
    ):
        default_recurrent_actor_critic(*gymnax.make("Pendulum-v1"), head="gauss")
    for shape in ((), (2, 3)):
        with pytest.raises(TypeError, match=r"head is required: there is no default .*Box.*one vector"):
            default_actor_critic(box(-1.0, 1.0, shape), None)
        assert default_actor_critic(box(-1.0, 1.0, shape), None, head=DiscretePolicy(9)).head == DiscretePolicy(9)
