"""How a rule acts through a distribution, or through a tree of distributions that are independent of each other."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax.distributions import log_prob_of
from pgjax.distributions._base import MAX_OUTCOMES

Array = jax.Array
stop = jax.lax.stop_gradient


class Taken(NamedTuple):
    """An action that was taken, in the place of the noise that it was made of. Leaves [..., *event]."""

    action: Any  # of the distribution's shape
    raw_action: Any = None  # the action before squashing, for distributions that squash; else None


def taken(action: Any, raw_action: Any = None) -> Taken:
    """Make a given action stand for the noise of a distribution, under any law "own".

    ``rule.given({"x": taken(a), ...}, distribution, f)`` is the rule at the action a. That is exact for actions that
    are too rare to have noise of their own in floating point, and for squashed ones.

    Shapes: action [..., *event]; leaves of the result likewise.

    Args:
        action: of the distribution's shape; a tree of them for a tree of distributions.
        raw_action: the action before squashing, for distributions that squash, or None.

    Returns:
        What stands for the noise: a pytree, leaves [..., *event].
    """
    return Taken(action, raw_action)


def is_distribution(x: Any) -> bool:
    """Whether x is a distribution rather than a tree of them."""
    return hasattr(x, "log_prob")


def parts(name: str, distribution: Any, *trees: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """Split a tree of distributions, and trees of the same form, into parts.

    Args:
        name: of the rule that asks, or of whatever else, for messages.
        distribution: a distribution or a tree of them.
        *trees: noise, actions or relaxed samples of the same form.

    Returns:
        (how to put parts together again, for each part a tuple of its distribution and what belongs to it).

    Raises:
        TypeError: if there is something else than distributions in the tree.
        ValueError: if the forms differ.
    """
    components, treedef = jax.tree.flatten(distribution, is_leaf=is_distribution)
    structure: Any = treedef
    for component in components or [distribution]:
        if not is_distribution(component):
            raise TypeError(
                f"{name} needs a distribution, or a tree of them, got {type(component).__name__}. "
                "Wrap logits in Categorical(logits), means in Normal(loc, scale)."
            )
    try:
        others = [structure.flatten_up_to(_by_part(tree)) for tree in trees]
    except ValueError as error:
        raise ValueError(f"{name}: what belongs to a tree of distributions must have its form. {error}") from error
    return structure, list(zip(components, *others, strict=True))


def _by_part(tree: Any) -> Any:
    """Push `Taken` at the top of a tree of actions down to its parts."""
    if isinstance(tree, Taken) and isinstance(tree.action, (dict, list, tuple)):
        raw = tree.raw_action
        if isinstance(tree.action, dict):
            return {key: _by_part(Taken(x, raw and raw.get(key))) for key, x in tree.action.items()}
        rows = [_by_part(Taken(x, raw and raw[i])) for i, x in enumerate(tree.action)]
        return type(tree.action)(*rows) if hasattr(tree.action, "_fields") else type(tree.action)(rows)
    return tree


class Rows(NamedTuple):
    """What f is to give for a distribution."""

    shape: tuple[int, ...] | None  # the axes of the rows; None for distributions from elsewhere
    dtype: Any  # of its parameters


def rows_of(name: str, distribution: Any) -> Rows:
    """Look up the axes of the rows, which are the same for all parts, and the dtype.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.

    Returns:
        The shape [...] of a log-probability, and its dtype.

    Raises:
        ValueError: if the parts differ.
    """
    known = [d for (d,) in parts(name, distribution)[1] if hasattr(d, "event_ndim")]
    shapes = {tuple(d.shape[: len(d.shape) - d.event_ndim]) for d in known}
    if len(shapes) > 1:
        raise ValueError(f"{name}: the parts of a tree of distributions must have the same batch axes, got {shapes}.")
    dtypes = [jax.tree.leaves(d)[0].dtype for d in known]
    return Rows(shapes.pop() if shapes else None, jnp.result_type(jnp.float32, *dtypes))


def evaluate(name: str, f: Callable[[Any], Any], action: Any, rows: Rows) -> Array:
    """Call a function of the action and check that it gives one number for each row.

    Args:
        name: what the function is called, for messages.
        f: the function.
        action: [..., *event].
        rows: of the distribution.

    Returns:
        [...] float; integers and booleans are made floats.

    Raises:
        TypeError: if f is no function, or does not give numbers.
        ValueError: if it does not give one number for each row.
    """
    _checks.require_callable(name, f)
    value = _checks.as_array(f"the result of {name}", f(action))
    if jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == jnp.bool_:
        value = value.astype(rows.dtype)
    value = _checks.as_floating(f"the result of {name}", value)
    if rows.shape is not None and value.shape != rows.shape:
        raise ValueError(
            f"{name} must give one number for each row, shape {list(rows.shape)}, got {list(value.shape)}. "
            "It is called with the actions of all rows at once: sum over the axes of an action, and over no others."
        )
    return value


def sampled(name: str, distribution: Any, noise: Any) -> tuple[Any, Array]:
    """Map noise to the action, as a constant, and its log-probability, which carries gradients.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.
        noise: its own noise, or `Taken`.

    Returns:
        (action [..., *event], log-probability [...], nats).

    Raises:
        ValueError: if the noise does not fit.
    """
    structure, components = parts(name, distribution, noise)
    pairs = [_sampled(d, x) for d, x in components]
    return structure.unflatten([action for action, _ in pairs]), sum(log_prob for _, log_prob in pairs)  # type: ignore[return-value]


def _sampled(d: Any, noise: Any) -> tuple[Any, Array]:
    raw = None
    if isinstance(noise, Taken):
        action, raw = noise
    elif hasattr(d, "raw_from"):
        raw = d.raw_from(noise)
        action = d.squash(raw)
    else:
        action = d.sample_from(noise)
    action, raw = stop((action, raw))
    return action, log_prob_of(d, action, raw)


def differentiable_sample(name: str, distribution: Any, noise: Any) -> Any:
    """Map noise to the action with its gradient at fixed noise.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.
        noise: its own noise, or `Taken`.

    Returns:
        The action, [..., *event].

    Raises:
        TypeError: if the action of a part carries no gradient, or does not determine its noise.
    """
    structure, components = parts(name, distribution, noise)
    require_differentiable(name, distribution)

    def one(d: Any, noise: Any) -> Any:
        return d.sample_from(stop(noise_of_taken(d, noise)) if isinstance(noise, Taken) else noise)

    return structure.unflatten([one(d, x) for d, x in components])


def noise_of_taken(d: Any, noise: Taken) -> Any:
    """Find the noise of one distribution that an action stands for.

    Args:
        d: the distribution.
        noise: the action.

    Returns:
        Noise like that of ``base_noise``.

    Raises:
        TypeError: if the action does not determine it.
    """
    of_raw = noise.raw_action is not None and hasattr(d, "noise_of_raw")
    return d.noise_of_raw(noise.raw_action) if of_raw else d.noise_of(noise.action)


def require_differentiable(name: str, distribution: Any) -> None:
    """Raise unless samples of every part carry gradients.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.

    Raises:
        TypeError: if those of a part do not.
    """
    for (d,) in parts(name, distribution)[1]:
        if not getattr(d, "is_differentiable", False):
            raise TypeError(
                f"{name} makes no sense for {type(d).__name__}: its actions carry no gradient to the parameters. "
                "Use enumerated, score_function, score_leave_one_out or relax."
            )


def require_methods(name: str, distribution: Any, *methods: str, remedy: str) -> None:
    """Raise unless every part has some methods.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.
        *methods: names of methods.
        remedy: the last sentence of the message.

    Raises:
        TypeError: if a part lacks one.
    """
    for (d,) in parts(name, distribution)[1]:
        if not all(hasattr(d, method) for method in methods):
            raise TypeError(f"{name} makes no sense for {type(d).__name__}. {remedy}")


def map_parts(name: str, method: Callable[..., Any], distribution: Any, *trees: Any) -> Any:
    """Apply a function to every part of a tree of distributions and what belongs to it.

    Args:
        name: of the rule, for messages.
        method: of (distribution, *what belongs to it).
        distribution: a distribution or a tree of them.
        *trees: of the same form.

    Returns:
        The results, in the same form.
    """
    structure, components = parts(name, distribution, *trees)
    return structure.unflatten([method(*part) for part in components])


def support(name: str, distribution: Any) -> tuple[Any, Array]:
    """List every action and its probability; for a tree, every combination.

    Args:
        name: of the rule, for messages.
        distribution: a distribution or a tree of them.

    Returns:
        (actions, leaves [K, ..., *event]; probabilities [K, ...]).

    Raises:
        TypeError: if a part cannot be enumerated.
        ValueError: if there are too many combinations.
    """
    structure, components = parts(name, distribution)
    for (d,) in components:
        if getattr(d, "is_differentiable", True):
            raise TypeError(
                f"{name} makes no sense for {type(d).__name__}: its actions are continuous. "
                "Use pathwise or score_function."
            )
    lists = [d.support() for (d,) in components]
    sizes = [probs.shape[0] for _, probs in lists]
    if math.prod(sizes) > MAX_OUTCOMES:
        raise ValueError(
            f"{name}: the distributions have {math.prod(sizes)} combinations of actions, too many to enumerate: at "
            f"most {MAX_OUTCOMES}. Use score_function, score_leave_one_out or relax."
        )
    index = list(product_index(sizes))
    actions = [x[i] for (x, _), i in zip(lists, index, strict=True)]
    probs = math.prod(p[i] for (_, p), i in zip(lists, index, strict=True))
    return structure.unflatten(actions), probs  # type: ignore[return-value]


def product_index(sizes: list[int]) -> Iterable[Any]:
    """For each factor of a product, which of its elements stands where in the list of all combinations.

    Args:
        sizes: of the factors.

    Returns:
        For each factor [prod(sizes)] int; the last factor changes first.
    """
    total, stride = math.prod(sizes), math.prod(sizes)
    for size in sizes:
        stride //= size
        yield np.arange(total) // stride % size
