"""What every estimator is: a surrogate loss, or the contributions of the trajectories, made into a gradient."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, Protocol, overload, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, RolloutState, Trajectory

Array = jax.Array
P = ParamSpec("P")
DATA = ("trajectory", "state", "data")
"""What the second argument of an estimator may be called."""
FUNCTIONS = {"policy", "value", "critic"}
"""Arguments that are functions wherever they stand, so that anything else can be refused by name."""
Data = Trajectory | RolloutState


class Surrogate(NamedTuple):
    """What an estimator minimises: the gradient of the sum over time and mean over the batch of loss.

    loss(params, data, targets, state) returns [T, ...], or that and a dict of further [T, ...] arrays, whose means come
    back as `GradientInfo.metrics`. Gradients flow into params; targets are constants.
    """

    loss: Callable[[Params, Any, Any, Any], Any]
    targets: Any = None  # constants of the loss, leaves [T, B, ...]
    mask: Array | None = None  # [T, B] bool, steps that count
    state: RolloutState | None = None  # leaves [B, ...], where a recurrent policy starts


class Contributions(NamedTuple):
    """What each trajectory adds to the gradient (descent), for estimators that are no gradient of a loss."""

    grads: Any  # a pytree like params, leaves [B, ...]
    targets: Any = None  # what to report, leaves [T, B, ...]


@struct.dataclass
class GradientInfo:
    """What an estimator saw on the way."""

    loss: Array  # scalar: only its gradient has a meaning; NaN for contributions, which have none
    grad_norm: Array  # scalar, Euclidean norm of the whole gradient
    num_nonfinite: Array  # scalar int32, entries of the gradient that are NaN or infinite
    targets: Any  # the constants of the loss, leaves [T, B, ...]
    metrics: dict[str, Array] = struct.field(default_factory=dict)  # scalars: means over the steps that count


@runtime_checkable
class Estimator(Protocol[P]):
    """A gradient estimator: call it for (gradient, info); its other forms take the same arguments.

    `per_trajectory` returns what each trajectory contributes, leaves [B, ...], whose mean is the gradient, and the info
    of each. `surrogate` returns the scalar whose gradient the estimate is, for Hessians and line searches.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Params, GradientInfo]: ...
    def per_trajectory(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Params, GradientInfo]: ...
    def surrogate(self, *args: P.args, **kwargs: P.kwargs) -> Array: ...


Body = Callable[P, Surrogate] | Callable[P, Contributions]


@overload
def estimator(body: Callable[P, Surrogate], /) -> Estimator[P]: ...
@overload
def estimator(body: Callable[P, Contributions], /) -> Estimator[P]: ...
@overload
def estimator(
    *selects: str, unit_interval: tuple[str, ...] = ()
) -> Callable[[Callable[P, Surrogate] | Callable[P, Contributions]], Estimator[P]]: ...
def estimator(*selects: Any, unit_interval: tuple[str, ...] = ()) -> Any:
    """Turn a function that returns a `Surrogate` or `Contributions` into an estimator.

    The decorated function takes (params, trajectory, *, ...) and returns what is minimised, or what each trajectory
    adds; the estimator takes the same arguments and returns (gradient, info). In place of the trajectory it may take a
    RolloutState, whose columns are on axis 0: the loss then makes the rollout itself. Functions among the
    arguments need no mention; with `pg.bind` they bring arrays along, which are differentiable.

    Args:
        *selects: names of arguments other than functions that select the program, such as integers that set a shape
            and flags. Without any, the decorator may stand without parentheses.
        unit_interval: names of arguments that must lie in [0, 1] when they come as numbers.

    Returns:
        The estimator, or the decorator that makes it.

    Raises:
        TypeError: if a name is not a string, or a function does not take params and the trajectory first.
    """
    if len(selects) == 1 and callable(selects[0]):
        return _make(selects[0], (), ())
    if not all(isinstance(name, str) for name in selects):
        raise TypeError(
            f"the arguments of estimator must be names, got {selects}. Write @estimator or @estimator(...)."
        )
    return lambda body: _make(body, selects, unit_interval)


def _make(body: Callable[..., Any], selects: tuple[str, ...], unit_interval: tuple[str, ...]) -> Any:
    signature = inspect.signature(body)
    first, second = (*signature.parameters, "", "")[:2]
    if first != "params" or second not in DATA:
        raise TypeError(
            f"an estimator must take (params, trajectory, *, ...) or (params, state, *, ...), {body.__name__} takes "
            f"{', '.join(signature.parameters) or 'nothing'}."
        )
    wanted = signature.parameters[second].annotation
    classes = (wanted,) if wanted in (Trajectory, RolloutState) else (Trajectory, RolloutState)
    seen: set[Any] = set()  # shapes whose axes have been looked at
    optional = {name for name, p in signature.parameters.items() if p.default is None}

    def form_of(arguments: dict[str, Any]) -> tuple[Params, Data, Surrogate | Contributions]:
        remedy = f"{body.__name__} takes (params, {second}), in this order."
        _checks.require_instance(second, arguments[second], classes, remedy=remedy)
        return arguments["params"], arguments[second], _form(body, arguments, arguments[second])

    def mean(**arguments: Any) -> tuple[Params, GradientInfo]:
        params, data, form = form_of(arguments)
        batch = batch_shape(data)
        if isinstance(form, Contributions):
            grads = jax.tree.map(lambda x: x.mean(tuple(range(len(batch)))), form.grads)
            return grads, _info(jnp.float32(jnp.nan), grads, form.targets, {})
        total = lambda params: _scaled(_total(form, params, data), math.prod(batch))  # noqa: E731
        (loss, metrics), grads = jax.value_and_grad(total, has_aux=True)(params)
        return grads, _info(loss, grads, form.targets, metrics)

    def per_trajectory(**arguments: Any) -> tuple[Params, GradientInfo]:
        params, data, form = form_of(arguments)
        if isinstance(form, Contributions):
            return form.grads, _info(jnp.full(batch_shape(data), jnp.nan), form.grads, form.targets, {})
        (loss, metrics), grads = _each(form, params, data)
        return grads, _info(loss, grads, form.targets, metrics)

    def surrogate(**arguments: Any) -> Array:
        params, data, form = form_of(arguments)
        if isinstance(form, Contributions):
            raise TypeError(
                f"{body.__name__} has no surrogate: it says what each trajectory adds, not what is minimised."
            )
        return _scaled(_total(form, params, data), math.prod(batch_shape(data)))[0]

    def public(function: Callable[..., Any], name: str, result: Any) -> Any:
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__name__ = body.__name__
        program = compiled(*selects, unit_interval=unit_interval)(function)

        @functools.wraps(body)
        def call(*args: Any, **kwargs: Any) -> Any:
            _look_at_axes(kwargs.get(second, args[1] if len(args) > 1 else None), seen)
            for key in FUNCTIONS & kwargs.keys():
                if kwargs[key] is not None or key not in optional:
                    _checks.require_callable(key, kwargs[key])
            return program(*args, **kwargs)

        call.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
        call.__annotations__ = {**body.__annotations__, "return": result}
        call.__qualname__ = f"{body.__qualname__}.{name}" if name else body.__qualname__
        call.jitted = program.jitted  # type: ignore[attr-defined]
        return call

    estimate = public(mean, "", tuple[Params, GradientInfo])
    estimate.per_trajectory = public(per_trajectory, "per_trajectory", tuple[Params, GradientInfo])
    estimate.surrogate = public(surrogate, "surrogate", Array)
    return estimate


def batch_shape(data: Data) -> tuple[int, ...]:
    """Return the batch axes of what an estimator takes.

    Args:
        data: a trajectory, leaves [T, B, ...], or the state of a rollout, leaves [B, ...].

    Returns:
        The sizes of the axes B.
    """
    return data.step.shape if isinstance(data, RolloutState) else data.reward.shape[1:]


def _form(body: Callable[..., Any], arguments: dict[str, Any], data: Data) -> Surrogate | Contributions:
    """What is minimised, its targets made constants; or what each trajectory adds."""
    _checks.require_differentiable("params", arguments["params"])
    if isinstance(data, Trajectory):
        reward = _checks.as_floating("trajectory.reward", data.reward, ndim_at_least=1)
        _checks.as_boolean("trajectory.terminated", data.terminated, like=reward)
        _checks.as_boolean("trajectory.truncated", data.truncated, like=reward)
    form = body(**arguments)
    name, remedy = f"the result of {body.__name__}", "Return Surrogate(loss, targets) or Contributions(grads)."
    _checks.require_instance(name, form, (Surrogate, Contributions), remedy=remedy)
    form = form._replace(targets=jax.lax.stop_gradient(form.targets))
    if isinstance(form, Contributions):
        for leaf, param in zip(jax.tree.leaves(form.grads), jax.tree.leaves(arguments["params"]), strict=True):
            _checks.require_shape(f"each leaf of {name}", leaf, (*batch_shape(data), *jnp.shape(param)), "[B, ...]")
        return form
    if form.mask is None:
        return form
    mask = _checks.as_boolean("mask", form.mask)
    if isinstance(data, Trajectory):
        _checks.as_boolean("mask", mask, like=reward)
    return form._replace(targets=_finite_where_masked(mask, form.targets), mask=mask)


def _finite_where_masked(mask: Array, tree: Any) -> Any:
    """Put 0 for what is not finite in steps that do not count: 0 times NaN is NaN, in gradients too."""

    def clean(x: Any) -> Any:
        if not (jnp.shape(x)[: mask.ndim] == mask.shape and jnp.issubdtype(jnp.result_type(x), jnp.floating)):
            return x
        counts = mask.reshape(mask.shape + (1,) * (jnp.ndim(x) - mask.ndim))
        return jnp.where(counts | jnp.isfinite(x), x, jnp.zeros_like(x))

    return jax.tree.map(clean, tree)


def _total(form: Surrogate, params: Params, data: Any) -> tuple[Array, dict[str, Array]]:
    """The sum of the loss over the steps that count, and the means of its metrics over them."""
    if form.mask is not None and isinstance(data, Trajectory):
        data = _finite_where_masked(form.mask, data)
    result = form.loss(params, data, form.targets, form.state)
    loss, metrics = result if isinstance(result, tuple) else (result, {})
    shape = data.reward.shape if isinstance(data, Trajectory) else jnp.shape(loss)
    _checks.require_shape("the loss of the estimator", loss, shape, of="trajectory.reward")
    for name, x in metrics.items():
        _checks.require_shape(f"the metric {name}", x, shape, of="the loss")
    metrics = jax.lax.stop_gradient(metrics)
    if form.mask is None:
        return jnp.sum(loss), jax.tree.map(jnp.mean, metrics)
    count = jnp.maximum(form.mask.sum(), 1)
    mask = form.mask
    return jnp.sum(jnp.where(mask, loss, 0.0)), jax.tree.map(lambda x: jnp.where(mask, x, 0).sum() / count, metrics)


def _scaled(total: tuple[Array, Any], batch_size: int) -> tuple[Array, Any]:
    return total[0] / max(batch_size, 1), total[1]


def _each(form: Surrogate, params: Params, data: Data) -> tuple[tuple[Array, Any], Params]:
    """Loss, metrics and gradient of each column by itself."""

    def one(data: Any, targets: Any, mask: Any, state: Any) -> tuple[tuple[Array, Any], Params]:
        if isinstance(data, RolloutState):  # a rollout of one environment still has a batch axis
            data = jax.tree.map(lambda x: x[None], data)
            targets, mask = jax.tree.map(lambda x: x[:, None], (targets, mask))
        column = Surrogate(form.loss, targets, mask, state)
        return jax.value_and_grad(lambda params: _total(column, params, data), has_aux=True)(params)

    columns = 1 if isinstance(data, Trajectory) else 0
    for _ in batch_shape(data):
        one = jax.vmap(one, in_axes=(columns, 1, 1, 0))
    return one(data, form.targets, form.mask, form.state)


def _info(loss: Array, grads: Params, targets: Any, metrics: dict[str, Array]) -> GradientInfo:
    """Norm and bad entries of a gradient, or of each one of many: loss says how many leading axes there are."""
    leaves = [_checks.widened(x) for x in jax.tree.leaves(grads)]
    axes = [tuple(range(loss.ndim, x.ndim)) for x in leaves]
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(x), axis) for x, axis in zip(leaves, axes, strict=True)))
    bad = sum(jnp.sum(~jnp.isfinite(x), axis, dtype=jnp.int32) for x, axis in zip(leaves, axes, strict=True))
    return GradientInfo(loss, norm, jnp.asarray(bad, jnp.int32), targets, metrics)


def _look_at_axes(data: Any, seen: set[Any]) -> None:
    """Raise for a trajectory whose axes are [B, T], as its step tells; once for each shape, because it must be read."""
    step = getattr(data, "step", None)
    if not isinstance(data, Trajectory) or isinstance(step, jax.core.Tracer) or step is None:
        return
    if jnp.ndim(step) < 2 or jnp.shape(step) in seen:
        return
    _checks.require_time_first(step)
    seen.add(jnp.shape(step))
