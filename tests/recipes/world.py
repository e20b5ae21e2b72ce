"""A small world in which every law of a recipe can be seen, and a policy and a critic that are tables.

Each environment is of one kind, told by its row of env_params:

    endless     reward 1 in one cell for ever, cut by a limit of 2 steps: worth 1/(1-γ)
    finite      reward 1 in two cells, then the end: worth 1 + γ, then 1
    choice      action 1 in the first cell earns 1 in the second, or at once; action 0 earns -1; then the end
    lottery     a cell is drawn at each start; it pays its sign at each step and ends with probability 0.3
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

import pgjax as pg

Array = jax.Array

ENDLESS, FINITE, CHOICE, LOTTERY = range(4)
FIRST_CELL = (0, 1, 3, 5)  # of each kind
NUM_CELLS, NUM_ACTIONS = 7, 2
NUM_ENVS, NUM_STEPS = 8, 5
CHOICE_CELL = FIRST_CELL[CHOICE]


@struct.dataclass
class WorldState(environment.EnvState):
    time: Any
    drawn: Any  # 0 or 1, at the start of an episode
    choice: Any  # the last action


@struct.dataclass
class WorldParams(environment.EnvParams):
    max_steps_in_episode: Any = 10**6
    kind: Any = FINITE
    pays_at_once: Any = False


class World(environment.Environment[WorldState, WorldParams]):
    @property
    def default_params(self) -> WorldParams:
        return WorldParams()

    def reset_env(self, key: Array, params: WorldParams) -> tuple[Array, WorldState]:
        drawn = jax.random.bernoulli(key).astype(jnp.int32)
        state = WorldState(time=jnp.int32(0), drawn=drawn, choice=jnp.int32(0))
        return self.get_obs(state, params), state

    def step_env(
        self, key: Array, state: WorldState, action: Any, params: WorldParams
    ) -> tuple[Array, WorldState, Array, Array, dict[Any, Any]]:
        after = WorldState(time=state.time + 1, drawn=state.drawn, choice=jnp.asarray(action, jnp.int32))
        choice = jnp.where(params.pays_at_once, after.choice, state.choice)
        paid = jnp.where(state.time == jnp.where(params.pays_at_once, 0, 1), 2.0 * choice - 1.0, 0.0)
        reward = jnp.stack([jnp.float32(1.0), jnp.float32(1.0), paid, 2.0 * state.drawn - 1.0])[params.kind]
        second = after.time >= 2
        ends = jnp.stack([jnp.bool_(False), second, second, jax.random.bernoulli(key, 0.3)])[params.kind]
        return self.get_obs(after, params), after, reward, ends, {}

    def get_obs(self, state: WorldState, params: Any = None, key: Array | None = None) -> Array:
        later = jnp.minimum(state.time, 1)
        cell = jnp.stack([jnp.int32(0), later, later, state.drawn])[params.kind] + jnp.asarray(FIRST_CELL)[params.kind]
        return jax.nn.one_hot(cell, NUM_CELLS)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(NUM_ACTIONS)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (NUM_CELLS,))


def world(pays_at_once: bool = False) -> tuple[World, WorldParams]:
    """The world and one row of parameters for each environment: two of each kind."""
    kind = jnp.arange(NUM_ENVS, dtype=jnp.int32) // 2
    limit = jnp.where(kind == ENDLESS, 2, 10**6)
    return World(), WorldParams(max_steps_in_episode=limit, kind=kind, pays_at_once=pays_at_once)


def brief() -> tuple[World, WorldParams]:
    """The same, all episodes cut after two steps: for those who learn from whole ones."""
    env, env_params = world()
    return env, env_params.replace(max_steps_in_episode=jnp.full(NUM_ENVS, 2))


class Tables(NamedTuple):
    actor: Any  # [cells, actions] logits
    critic: Any  # [cells] values


def policy(params: Tables, obs: Array) -> pg.Categorical:
    return pg.Categorical(obs @ params.actor)


def flattened(hyper: Any, params: Tables, obs: Array) -> pg.Categorical:
    """π^(1/τ), up to a constant."""
    return pg.Categorical(obs @ params.actor / hyper.behaviour_temperature)


def value(params: Tables, obs: Array) -> Array:
    return obs @ params.critic


def auxiliary(params: Tables, obs: Array) -> Array:
    """A value that is read off the table of the policy, by weights that pull the logits apart."""
    return obs @ params.actor @ jnp.array([1.0, -0.5])


def init_params(key: Array) -> Tables:
    actor_key, critic_key = jax.random.split(key)
    return Tables(
        0.3 * jax.random.normal(actor_key, (NUM_CELLS, NUM_ACTIONS)), 0.3 * jax.random.normal(critic_key, (NUM_CELLS,))
    )


def init_sharp(key: Array) -> Tables:
    """The same, the policy nearly deterministic."""
    tables = init_params(key)
    return tables._replace(actor=8.0 * tables.actor)


class Layers(NamedTuple):
    """The same tables as kernels of Flax's dense layers."""

    actor: Any  # [cells, actions]
    kernel: Any  # [cells, 1]

    @property
    def critic(self) -> Any:
        """The values, [cells]."""
        return self.kernel[..., 0]


def layers_policy(params: Layers, obs: Array) -> pg.Categorical:
    return pg.Categorical(nn.Dense(NUM_ACTIONS, use_bias=False).apply({"params": {"kernel": params.actor}}, obs))


def layers_value(params: Layers, obs: Array) -> Any:
    return nn.Dense(1, use_bias=False).apply({"params": {"kernel": params.kernel}}, obs)[..., 0]


def init_layers(key: Array) -> Layers:
    tables = init_params(key)
    return Layers(tables.actor, tables.critic[:, None])


def true_value(discount: float) -> np.ndarray:
    """What the first three cells are worth, whatever is done in them."""
    return np.array([1 / (1 - discount), 1 + discount, 1.0])


class ContinuousWorld(World):
    """The same with one action in [-1, 1]: where action 1 earned 1 and action 0 earned -1, an action earns itself."""

    def reset_env(self, key: Array, params: WorldParams) -> tuple[Array, WorldState]:
        obs, state = super().reset_env(key, params)
        return obs, state.replace(choice=jnp.float32(0.5))

    def step_env(
        self, key: Array, state: WorldState, action: Any, params: WorldParams
    ) -> tuple[Array, WorldState, Array, Array, dict[Any, Any]]:
        _, after, reward, ends, info = super().step_env(key, state, 0, params)
        after = after.replace(choice=0.5 * (action[0] + 1.0))  # of which 2 · choice - 1 is paid
        choice = jnp.where(params.pays_at_once, after.choice, state.choice)
        paid = (params.kind == CHOICE) & (state.time == jnp.where(params.pays_at_once, 0, 1))
        reward = jnp.where(paid, 2.0 * choice - 1.0, reward)
        return self.get_obs(after, params), after, reward, ends, info

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))


def continuous() -> tuple[ContinuousWorld, WorldParams]:
    """The continuous world, what is chosen paid at once: the mean of a batch is over cells that hardly ever matter."""
    return ContinuousWorld(), world(pays_at_once=True)[1]


def deterministic(actor: Array, obs: Array) -> Any:
    """tanh of a table: actor [cells, 1]."""
    return pg.exploration.Deterministic(jnp.tanh(obs @ actor))


def action_value(critic: Array, obs: Array, action: Array) -> Array:
    """Quadratics in the action: critic [E, cells, 3], values [E, ...]."""
    powers = jnp.concatenate([jnp.ones_like(action), action, action**2], axis=-1)
    return jnp.einsum("...s,esk,...k->e...", obs, critic, powers)


def init_quadratics(key: Array, obs: Any, num_critics: int = 1) -> tuple[Array, Array]:
    """(actor, critic) for `deterministic` and `action_value`."""
    actor_key, critic_key = jax.random.split(key)
    return (
        0.3 * jax.random.normal(actor_key, (NUM_CELLS, 1)),
        0.3 * jax.random.normal(critic_key, (num_critics, NUM_CELLS, 3)),
    )


def squashed(actor: Array, obs: Array) -> pg.TanhNormal:
    """A normal squashed into [-1, 1]: actor [cells, 2], its location and the logarithm of its scale."""
    row = obs @ actor
    return pg.TanhNormal(row[..., :1], jnp.exp(row[..., 1:]))


def init_squashed(key: Array, obs: Any) -> tuple[Array, Array]:
    """(actor, critics) for `squashed` and `action_value`, two critics."""
    actor_key, key = jax.random.split(key)
    actor = 0.3 * jax.random.normal(actor_key, (NUM_CELLS, 2)) - jnp.array([[0.0, 0.5]])
    return actor, init_quadratics(key, obs, num_critics=2)[1]


def logits(actor: Array, obs: Array) -> pg.Categorical:
    """A table of logits: actor [cells, actions]."""
    return pg.Categorical(obs @ actor)


def action_values(critic: Array, obs: Array) -> Array:
    """Tables of the values of all actions: critic [E, cells, actions], values [E, ..., actions]."""
    return jnp.einsum("...s,esa->e...a", obs, critic)


def init_logits(key: Array, obs: Any) -> tuple[Array, Array]:
    """(actor, critics) for `logits` and `action_values`, two critics."""
    actor_key, critic_key = jax.random.split(key)
    return (
        0.3 * jax.random.normal(actor_key, (NUM_CELLS, NUM_ACTIONS)),
        0.3 * jax.random.normal(critic_key, (2, NUM_CELLS, NUM_ACTIONS)),
    )


NUM_AGENTS = 2
HELPS = (0.5, -0.5)  # what each agent gains by the other's action where it is paid for its own


class TwoAgentsWorld(ContinuousWorld):
    """The same for two agents: where an action earned itself, it does, and so does the other's, helping one only.

    The second agent sees the cells in reverse order, so that whose observation is whose can be told.
    """

    agents = (NUM_AGENTS,)

    def step_env(
        self, key: Array, state: WorldState, action: Any, params: WorldParams
    ) -> tuple[Array, WorldState, Array, Array, dict[Any, Any]]:
        obs, after, reward, ends, info = super().step_env(key, state, action[0], params)
        paid = (params.kind == CHOICE) & (state.time == 0)
        both = action[:, 0] + jnp.asarray(HELPS) * action[::-1, 0]
        return obs, after, jnp.where(paid, both, reward), ends, info

    def get_obs(self, state: WorldState, params: Any = None, key: Array | None = None) -> Array:
        cell = super().get_obs(state, params)
        return jnp.stack([cell, cell[::-1]])


def two_agents() -> tuple[TwoAgentsWorld, WorldParams]:
    """The world of two agents, who are paid at once."""
    return TwoAgentsWorld(), continuous()[1]


def cell_of_both(obs: Array) -> Array:
    """The cell, by what both agents see [..., A, cells]: one-hot if they see the same."""
    return 0.5 * (obs[..., 0, :] + obs[..., 1, ::-1])


def joint_value(critic: Array, obs: Array, action: Array) -> Array:
    """Quadratics in the actions of both: critic [E, cells, 6], obs [..., A, cells], action [..., A, 1]."""
    a, b = action[..., 0, 0], action[..., 1, 0]
    powers = jnp.stack([jnp.ones_like(a), a, b, a * a, a * b, b * b], -1)
    return jnp.einsum("...s,esk,...k->e...", cell_of_both(obs), critic, powers)


def init_joint_quadratics(key: Array, obs: Any) -> tuple[Array, Array]:
    """(actors, critics) for `deterministic` and `joint_value`, with the leading axis of the agents."""
    actor_key, critic_key = jax.random.split(key)
    return (
        0.3 * jax.random.normal(actor_key, (NUM_AGENTS, NUM_CELLS, 1)),
        0.3 * jax.random.normal(critic_key, (NUM_AGENTS, 1, NUM_CELLS, 6)),
    )
