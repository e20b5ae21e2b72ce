"""What recipes for several agents share: how many there are, and that parameters have a row for each."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.envs.description import agents_of, single_params


def axes_of(env: Any, env_params: Any) -> tuple[int, int]:
    """Count the agents of an environment, and the axes of what they see together.

    Shapes: Python ints.

    Args:
        env: the environment.
        env_params: its parameters.

    Returns:
        The number of agents, and how many axes the first leaf of an observation of all of them has.

    Raises:
        ValueError: if env has no axis of agents, or more than one.
    """
    agents = agents_of(env)
    if len(agents) != 1:
        raise ValueError(
            f"env.agents must be (A,), one axis of agents, got {agents}. Take ddpg for one agent, and "
            "envs.from_jaxmarl for an environment of JaxMARL."
        )
    one = single_params(env, env_params)
    return agents[0], jax.tree.leaves(jax.eval_shape(lambda: env.reset(jax.random.key(0), one)[0]))[0].ndim


def require_one_agent(env: Any) -> None:
    """Check that an environment has no axis of agents, for recipes whose losses are means over a batch of one agent's.

    Args:
        env: the environment.

    Raises:
        ValueError: if it has one.
    """
    if agents := agents_of(env):
        raise ValueError(
            f"env must have one agent, got agents of the axes {agents}. Take maddpg for several, or a recipe that "
            "learns from whole windows, such as ppo, whose agents share one network."
        )


def require_agents(params: Any, *lead: int) -> None:
    """Check that parameters have a row for each agent.

    Shapes: leaves [*lead, ...].

    Args:
        params: what init_params made.
        lead: the number of agents, and the lengths of what axes follow.

    Raises:
        ValueError: if a leaf has other leading axes.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.shape(leaf)[: len(lead)] != lead:
            rows = " times ".join(map(str, lead[1:]))
            raise ValueError(
                f"init_params made {list(jnp.shape(leaf))} at {jax.tree_util.keystr(path)}, which must have a row for "
                f"each of the {lead[0]} agents{f', of {rows} each' if rows else ''}. Map over a key for each agent."
            )
