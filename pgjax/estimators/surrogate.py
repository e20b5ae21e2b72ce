"""What every estimator is: a surrogate loss, made into a gradient and into the gradients of its trajectories."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.tree_util import Partial

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, RolloutState, Trajectory

Array = jax.Array


class Surrogate(NamedTuple):
    """What an estimator minimises: the gradient of the sum over time and mean over the batch of loss."""

    loss: Callable[[Params, Trajectory, Any, Any], Array]  # (params, trajectory, targets, state) -> [T, ...]
    targets: Any  # constants of the loss, leaves [T, B, ...]
    mask: Array | None = None  # [T, B] bool, steps that count
    state: RolloutState | None = None  # leaves [B, ...], where a recurrent policy starts


@struct.dataclass
class GradientInfo:
    """What an estimator saw on the way."""

    loss: Array  # scalar: only its gradient has a meaning
    grad_norm: Array  # scalar, Euclidean norm of the whole gradient
    num_nonfinite: Array  # scalar int32, entries of the gradient that are NaN or infinite
    targets: Any  # the constants of the loss, leaves [T, B, ...]


class Estimator:
    """A gradient estimator: call it for (gradient, info), or its `per_trajectory` for what each trajectory adds."""

    def __init__(self, surrogate: Callable[..., Surrogate], static: tuple[str, ...], unit: tuple[str, ...]):
        functools.update_wrapper(self, surrogate)
        names = tuple(inspect.signature(surrogate).parameters)
        if names[:2] != ("params", "trajectory"):
            raise TypeError(
                f"an estimator must take (params, trajectory, *, ...), {surrogate.__name__} takes {', '.join(names)}."
            )

        def mean(params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
            form = _form(surrogate, params, trajectory, kwargs)
            batch_size = max(trajectory.reward[0].size, 1)

            def total(params: Params) -> Array:
                return _total(form, params, trajectory) / batch_size

            loss, grads = jax.value_and_grad(total)(params)
            return grads, _info(loss, grads, form.targets)

        def each(params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
            form = _form(surrogate, params, trajectory, kwargs)

            def one(trajectory: Trajectory, targets: Any, mask: Any, state: Any) -> tuple[Array, Params]:
                column = Surrogate(form.loss, targets, mask, state)
                return jax.value_and_grad(lambda params: _total(column, params, trajectory))(params)

            for _ in trajectory.reward.shape[1:]:
                one = jax.vmap(one, in_axes=(1, 1, 1, 0))
            loss, grads = one(trajectory, form.targets, form.mask, form.state)
            return grads, _info(loss, grads, form.targets)

        static = (*static, *(name for name in ("policy", "value") if name in names and name not in static))
        self._defaults = {n: p.default for n, p in inspect.signature(surrogate).parameters.items()}
        self._mean = compiled(*static, unit_interval=unit)(mean)
        self._each = compiled(*static, unit_interval=unit)(each)

    def __call__(self, params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
        return self._mean(params, trajectory, **self._prepare(kwargs))

    def _prepare(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out numbers that equal their default, so that a 0 stays one, and let a baseline be a function."""
        left_out = {n for n, x in kwargs.items() if type(x) in (int, float) and x == self._defaults.get(n)}
        kwargs = {name: x for name, x in kwargs.items() if name not in left_out}
        baseline = kwargs.get("baseline")
        # Wrapped, a function is a pytree without leaves, and jit takes it as well as an array.
        wrap = callable(baseline) and not isinstance(baseline, Partial)
        return {**kwargs, "baseline": Partial(baseline)} if wrap else kwargs

    def per_trajectory(self, params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
        """Return the gradient that each trajectory contributes: leaves [B, ...], whose mean is the estimate.

        Shapes: trajectory leaves [T, B, ...]; gradient leaves [B, ...].

        Args:
            params: parameters to differentiate with respect to.
            trajectory: the window; each column is one trajectory.
            **kwargs: as for the estimator itself.

        Returns:
            The contributions, a pytree like params with leading batch axes, and the info, whose loss, grad_norm and
            num_nonfinite are [B].

        Raises:
            TypeError: as the estimator itself.
            ValueError: as the estimator itself.
        """
        return self._each(params, trajectory, **self._prepare(kwargs))


def estimator(*static: str, unit_interval: tuple[str, ...] = ()) -> Callable[[Callable[..., Surrogate]], Estimator]:
    """Return a decorator that turns a function returning a `Surrogate` into an estimator.

    The decorated function takes (params, trajectory, *, ...) and returns what is minimised; the estimator takes the
    same arguments and returns (gradient, info). `policy` and `value` are static by their names.

    Args:
        *static: names of further arguments that select the program.
        unit_interval: names of arguments that must lie in [0, 1] when they come as numbers.

    Returns:
        The decorator.

    Raises:
        TypeError: if a name is not a string; by the decorator, if a function does not take (params, trajectory) first.
    """
    if not all(isinstance(name, str) for name in static):
        raise TypeError(f"static must be names of arguments, got {static}. Write @estimator() with parentheses.")
    return lambda surrogate: Estimator(surrogate, static, unit_interval)


def _form(surrogate: Callable[..., Surrogate], params: Params, trajectory: Trajectory, kwargs: Any) -> Surrogate:
    """What is minimised, its targets made constants."""
    remedy = "Estimators take (params, trajectory), in this order."
    _checks.require_instance("trajectory", trajectory, Trajectory, remedy=remedy)
    reward = _checks.as_floating("trajectory.reward", trajectory.reward, ndim_at_least=1)
    _checks.as_boolean("trajectory.terminated", trajectory.terminated, like=reward)
    _checks.as_boolean("trajectory.truncated", trajectory.truncated, like=reward)
    form = surrogate(params, trajectory, **kwargs)
    _checks.require_instance(
        f"the result of {surrogate.__name__}", form, Surrogate, remedy="Return Surrogate(loss, targets)."
    )
    targets = jax.lax.stop_gradient(form.targets)
    if form.mask is None:
        return form._replace(targets=targets)
    mask = _checks.as_boolean("mask", form.mask, like=reward)
    # Zero times NaN is NaN: what does not count must be finite before it meets a gradient of 0.
    finite = lambda x: jnp.where(mask, x, 0) if x.shape == mask.shape else x  # noqa: E731
    return form._replace(targets=jax.tree.map(finite, targets), mask=mask)


def _total(form: Surrogate, params: Params, trajectory: Trajectory) -> Array:
    loss = form.loss(params, trajectory, form.targets, form.state)
    _checks.require_shape("the loss of the estimator", loss, trajectory.reward.shape, of="trajectory.reward")
    return jnp.sum(loss if form.mask is None else jnp.where(form.mask, loss, 0.0))


def _info(loss: Array, grads: Params, targets: Any) -> GradientInfo:
    """Norm and bad entries of a gradient, or of each one of many: loss says how many leading axes there are."""
    leaves = [_checks.widened(x) for x in jax.tree.leaves(grads)]
    axes = [tuple(range(loss.ndim, x.ndim)) for x in leaves]
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(x), axis) for x, axis in zip(leaves, axes, strict=True)))
    bad = sum(jnp.sum(~jnp.isfinite(x), axis, dtype=jnp.int32) for x, axis in zip(leaves, axes, strict=True))
    return GradientInfo(loss, norm, jnp.asarray(bad, jnp.int32), targets)
