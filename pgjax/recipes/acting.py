"""What acts and judges in a recipe: functions of parameters, whatever framework they come from."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp

from pgjax._types import Environment, Params, Policy, Value
from pgjax.distributions import draw_noise
from pgjax.envs import RunningStatistics, init_statistics, normalize
from pgjax.envs.description import agents_of
from pgjax.networks import default_actor_critic
from pgjax.rollout.policies import apply_policy

Array = jax.Array


class Functions(NamedTuple):
    """What a recipe needs to know of its networks."""

    policy: Policy  # policy(params, obs) -> distribution; a recurrent one (params, obs, memory) -> (.., value, memory)
    value: Value | None  # value(params, obs) -> [...]; of a recurrent policy (params, obs, memory) -> [...]
    init_params: Callable[..., Params]  # init_params(key, obs) or, recurrent, (key, obs, memory)
    policy_state: Any  # memory of a recurrent policy at the start of an episode, leaves [num_envs, ...]; or None


class Normalized(NamedTuple):
    """Parameters of a network, and the statistics by which its observations are standardised: frozen where it acts."""

    network: Params
    statistics: RunningStatistics


def as_functions(
    env: Environment,
    env_params: Any,
    *,
    num_envs: int,
    model: Any = None,
    policy: Policy | None = None,
    value: Value | None = None,
    init_params: Callable[..., Params] | None = None,
    policy_state: Any = None,
    critic: bool = True,
) -> Functions:
    """Make the functions of a Flax module, of the default network, or pass on those that are given.

    Shapes: leaves of policy_state [num_envs, ...].

    Args:
        env: the environment; only the default network looks at it.
        env_params: its parameters.
        num_envs: environments side by side.
        model: a Flax module with the methods `policy` and `value`, and `initial_state(num_envs)` if it is recurrent,
            with several agents `initial_state(num_envs, num_agents)`.
            None and no policy take `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution; a recurrent one takes and gives its memory as
            well, with the value between: policy(params, obs, memory) -> (distribution, value, memory).
        value: in place of a model, value(params, obs) -> [...]; of a recurrent policy value(params, obs, memory).
        init_params: in place of a model, init_params(key, obs) -> params, or init_params(key).
        policy_state: memory of a recurrent policy at the start of an episode.
        critic: whether a value is needed at all.

    Returns:
        The functions; init_params takes (key, obs, memory) and checks what it makes.

    Raises:
        TypeError: if one of policy, value and init_params is missing or is no function, if the model lacks a method,
            or if init_params makes a leaf that is not floating.
        ValueError: if a model and functions are both given.
    """
    given = {"policy": policy, "init_params": init_params, **({"value": value} if critic else {})}
    if all(x is None for x in given.values()):
        model = model or default_actor_critic(env, env_params)
        return _of_model(model, num_envs, agents_of(env), policy_state, critic)
    require_functions(model, given)
    return Functions(policy, value if critic else None, checked_init(init_params), policy_state)  # type: ignore[arg-type]


def _of_model(model: Any, num_envs: int, agents: tuple[int, ...], policy_state: Any, critic: bool) -> Functions:
    methods = ("policy", "value") if critic else ("policy",)
    missing = [name for name in (*methods, "init", "apply") if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"model must be a Flax module with the methods {', '.join(methods)}, {type(model).__name__} lacks "
            f"{', '.join(missing)}. For another framework pass policy=, value= and init_params=."
        )
    if policy_state is None and hasattr(model, "initial_state"):
        policy_state = model.initial_state(num_envs, *agents)
    policy, value = (
        lambda params, obs, *memory, method=method: model.apply(params, obs, *memory, method=method)
        for method in ("policy", "value")
    )
    whole = {} if critic else {"method": "policy"}  # without a critic its parameters are not made either
    init_params = lambda key, obs, *memory: model.init(key, obs, *memory, **whole)  # noqa: E731
    return Functions(policy, value if critic else None, checked_init(init_params), policy_state)


def require_functions(model: Any, given: dict[str, Any]) -> None:
    """Check functions that are given in place of a model.

    Shapes: none are looked at.

    Args:
        model: what must not be given beside them.
        given: all functions that belong together, by name; None where one is missing.

    Raises:
        TypeError: if one is missing or is no function.
        ValueError: if a model is given too.
    """
    if model is not None:
        names = ", ".join(name for name, x in given.items() if x is not None)
        raise ValueError(f"model and {names} are both given. Pass a Flax module, or {', '.join(given)} in its place.")
    for name, x in given.items():
        if not callable(x):
            raise TypeError(f"{name} must be a function, got {type(x).__name__}; {', '.join(given)} come together.")


def checked_init(init_params: Callable[..., Params]) -> Callable[..., Params]:
    """Make an init_params that may be called with (key, obs) or (key, obs, memory), whatever the given one takes of it.

    Shapes: as init_params.

    Args:
        init_params: of (key, obs, memory), (key, obs) or (key).

    Returns:
        The function of (key, obs, memory=None).

    Raises:
        TypeError: by the function, if init_params takes something else, or makes a leaf that is not floating.
    """
    signature = inspect.signature(init_params)

    def init(key: Array, obs: Any, memory: Any = None) -> Params:
        arguments = (key, obs) if memory is None else (key, obs, memory)
        for count in range(len(arguments), 0, -1):
            try:
                signature.bind(*arguments[:count])
            except TypeError:
                continue
            params = init_params(*arguments[:count])
            for path, leaf in jax.tree_util.tree_leaves_with_path(params):
                if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                    raise TypeError(
                        f"params must have floating leaves, init_params made {jnp.result_type(leaf)} at "
                        f"{jax.tree_util.keystr(path)}. Keep what is not trained out of params."
                    )
            return params
        raise TypeError(f"init_params must take (key, obs) or (key), it takes {signature}.")

    return init


def require_feed_forward(functions: Functions) -> Functions:
    """Pass on functions without memory, and refuse others.

    Shapes: none are looked at.

    Args:
        functions: of a model, or given.

    Returns:
        The same functions.

    Raises:
        TypeError: if the policy is recurrent.
    """
    if functions.policy_state is not None:
        raise TypeError("this recipe takes feed-forward policies only: a2c and ppo take recurrent ones as well.")
    return functions


def normalized(functions: Functions) -> Functions:
    """Standardise the observations that policy and value see, by statistics that travel in the parameters.

        policy(Normalized(network, statistics), obs) = policy(network, (obs - mean) / std)

    Shapes: as the functions.

    Args:
        functions: of raw parameters and observations.

    Returns:
        Functions whose params are `Normalized`. The statistics are constants of the gradient and change only where the
        recipe replaces them, so that those that acted are those of the loss.
    """
    policy, value, init_params, policy_state = functions

    def init(key: Array, obs: Any, memory: Any = None) -> Normalized:
        statistics = init_statistics(jax.tree.map(lambda x: x[0], obs))
        return Normalized(init_params(key, normalize(statistics, obs), memory), statistics)

    return Functions(normalizing(policy), None if value is None else normalizing(value), init, policy_state)


def normalizing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Standardise the observations that one function of parameters sees, as `normalized` does for all of a recipe's.

    Shapes: as the function.

    Args:
        function: of (network, obs, ...), obs raw no longer; what follows is passed on: a memory, an action.

    Returns:
        The function of (Normalized(network, statistics), obs, ...), obs raw.
    """
    return lambda params, obs, *more: function(params.network, normalize(params.statistics, obs), *more)


def held_noise(key: Array, params: Params, rollout: Any, *, policy: Policy, num_steps: int) -> Any:
    """Draw the noise of a window whose steps are rolled out one by one, for a policy that holds it for several.

    Args:
        key: a PRNG key; only a part made by `fold_in` is used, so that it may be split as well.
        params: parameters of the policy; only shapes matter.
        rollout: the state of the environments, leaves [B, ...].
        policy: its distribution may have an attribute `hold`, see `distributions.draw_noise`.
        num_steps: T, steps of the window.

    Returns:
        Leaves [T, 1, B, ...], row t the `noise` of a rollout of one step; None where each step draws its own.
    """
    distribution = apply_policy(policy, params, rollout.obs, rollout.policy_state)[0]
    if getattr(distribution, "hold", 1) == 1:
        return None
    noise = draw_noise(distribution, jax.random.fold_in(key, 0), num_draws=num_steps)
    return jax.tree.map(lambda x: x[:, None], noise)


def swap_time(tree: Any) -> Any:
    """Swap the axes of time and of environments, for minibatches of whole sequences.

    Shapes: leaves [T, B, ...]; results [B, T, ...].

    Args:
        tree: any pytree of arrays.

    Returns:
        The same tree, its first two axes swapped.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def read_by(policy: Policy, params: Params, obs: Any, *, policy_state: Any = None) -> Params:
    """Find the leaves of the parameters that a policy reads, by tracing it: the others are a critic's.

    Shapes: as the policy takes them.

    Args:
        policy: feed-forward, or recurrent if policy_state is not None.
        params: its parameters.
        obs: [..., features] observations.
        policy_state: state of a recurrent policy, or None.

    Returns:
        A pytree like params of Python bools: whether the distribution, or the state that a recurrent policy hands on,
        depends on the leaf. Extras do not count.
    """
    leaves = jax.tree.leaves(params)
    structure: Any = jax.tree.structure(params)

    def outputs(leaves: Any, obs: Any, policy_state: Any) -> Any:
        distribution, _, memory = apply_policy(policy, structure.unflatten(leaves), obs, policy_state)
        return jax.tree.leaves((distribution, memory))

    traced = jax.make_jaxpr(outputs)(leaves, obs, policy_state).jaxpr
    found: Params = structure.unflatten(_inputs_read(traced, [True] * len(traced.outvars))[: len(leaves)])
    return found


def _inputs_read(program: Any, wanted: list[bool]) -> list[bool]:
    """Which inputs of a traced program its wanted outputs depend on; that of an inner jit is looked into."""
    needed = {x for x, is_wanted in zip(program.outvars, wanted, strict=True) if is_wanted and not _is_literal(x)}
    for step in reversed(program.eqns):
        results = [x in needed for x in step.outvars]
        if any(results):
            inner = step.params["jaxpr"].jaxpr if step.primitive.name in ("jit", "pjit") else None
            reads = [True] * len(step.invars) if inner is None else _inputs_read(inner, results)
            needed |= {x for x, is_read in zip(step.invars, reads, strict=True) if is_read and not _is_literal(x)}
    return [x in needed for x in program.invars]


def _is_literal(x: Any) -> bool:
    return isinstance(x, jax.extend.core.Literal)


def partition(tree: Params, chosen: Params) -> tuple[Params, Params]:
    """Part a pytree in two, each with None in place of the other's leaves.

    Shapes: leaves as they are.

    Args:
        tree: a pytree.
        chosen: a pytree like it of Python bools.

    Returns:
        The leaves that are chosen, and the rest; `combine` is the way back.
    """
    first = jax.tree.map(lambda x, is_chosen: x if is_chosen else None, tree, chosen)
    second = jax.tree.map(lambda x, is_chosen: None if is_chosen else x, tree, chosen)
    return first, second


def combine(first: Params, second: Params) -> Params:
    """Join the two parts of a pytree that `partition` made.

    Shapes: leaves as they are.

    Args:
        first: a pytree with None in place of some leaves.
        second: the same with None in place of the others.

    Returns:
        The whole.
    """
    return jax.tree.map(lambda x, y: y if x is None else x, first, second, is_leaf=lambda x: x is None)
