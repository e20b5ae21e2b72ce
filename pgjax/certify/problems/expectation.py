"""An expectation E f(x) to certify rules on: its exact value and gradient by a sum, or by quadrature over actions."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._types import Params
from pgjax.certify.problems._float64 import exactly
from pgjax.distributions import Bernoulli, Normal

Array = jax.Array
Grid = tuple[Any, Any]  # actions [N, *event], the volume that each stands for [N]

DEVIATIONS, STEPS = 12.0, 161  # of the grid over a normal action: the trapezoidal rule is exact to rounding there
ENDS, NODES = 3.6, 181  # of the grid over a bounded action, where tanh-sinh is


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectationProblem:
    """The expectation of a function of an action under a distribution with parameters: see `expectation_problem`.

    Shapes: P parameters.

    Args:
        name: what it is called in tables.
        distribution: params -> a distribution of `pgjax.distributions`, one row.
        f: (params, action [..., *event]) -> [...] float.
        params: in float64.
        num_nodes: nodes for each continuous number in the noise of a rule; None for the defaults.
    """

    name: str
    distribution: Callable[[Params], Any]
    f: Callable[[Params, Any], Array]
    params: Params
    num_nodes: int | Mapping[str, int] | None

    takes_rules = True
    num_steps = None

    @property
    def directions(self) -> tuple[str, ...]:
        """What is known: the gradient of E f, and where actions can be listed that of log E exp f."""
        return ("expectation", *(("exponentiated",) if "finitely many actions" in self.offers else ()))

    @exactly
    def offers(self) -> frozenset[str]:
        """What rules may rely on: see `Candidate`."""
        parts = parts_of(self.distribution(self.params))
        discrete = [is_discrete(part) for part in parts]
        found = {
            "finitely many actions": all(discrete),
            "smooth samples": not any(discrete),
            "normal samples": all(isinstance(part, Normal) for part in parts) and len(parts) == 1,
            "relaxed samples": all(hasattr(part, "relaxed_from") for part in parts),
            "soft samples": all(hasattr(part, "soften") for part in parts),
            "yes-or-no actions": all(isinstance(part, Bernoulli) for part in parts),
        }
        return frozenset(name for name, offered in found.items() if offered)

    def changed(self, change: Array, params: Params, action: Any) -> Array:
        """Compute f, or another function of the action as a control, as an argument says.

        Args:
            change: scalar, 0 for f itself.
            params: the parameters.
            action: [..., *event].

        Returns:
            [...] float, f plus change times another function.
        """
        value = self.f(params, action)
        rows = [jnp.asarray(x, float).reshape(*value.shape, -1) for x in jax.tree.leaves(action)]
        each = jnp.concatenate(rows, axis=-1)
        return value + change * jnp.cos(1.0 + each @ jnp.arange(1.0, each.shape[-1] + 1.0))

    @exactly
    def _grids(self) -> list[Grid | None]:
        """For each part of the distribution points that cover its actions; None where they can be listed."""
        parts = parts_of(self.distribution(self.params))
        return [None if is_discrete(part) else action_grid(part) for part in parts]

    def expectation(self, params: Params) -> Array:
        """Compute E f(x) without sampling.

        Args:
            params: the parameters.

        Returns:
            Scalar float; differentiable.
        """
        return self._mean(params, lambda value: value)

    def exponentiated(self, params: Params) -> Array:
        """Compute log E exp f(x) without sampling.

        Args:
            params: the parameters.

        Returns:
            Scalar float; differentiable.
        """
        return jnp.log(self._mean(params, jnp.exp))

    def _mean(self, params: Params, of_value: Callable[[Array], Array]) -> Array:
        """E of a function of f."""
        distribution = self.distribution(params)
        listed = [_outcomes(part, grid) for part, grid in zip(parts_of(distribution), self._grids, strict=True)]
        index = np.indices([len(probs) for _, probs in listed]).reshape(len(listed), -1)
        probs = jnp.prod(jnp.stack([p[i] for (_, p), i in zip(listed, index, strict=True)]), axis=0)
        structure = jax.tree.structure(distribution, is_leaf=is_distribution)
        actions = jax.tree.unflatten(structure, [a[i] for (a, _), i in zip(listed, index, strict=True)])
        return jnp.sum(probs * of_value(jax.vmap(lambda action: self.f(params, action))(actions)))

    @exactly
    def objective(self) -> float:
        """Scalar: E f(x)."""
        return float(jax.jit(self.expectation)(self.params))

    @exactly
    def known(self) -> dict[str, Any]:
        """The directions that are known, [P], by name."""
        of = {"expectation": self.expectation, "exponentiated": self.exponentiated}
        gradients = {name: jax.jit(jax.grad(of[name]))(self.params) for name in self.directions}
        return {name: np.asarray(ravel_pytree(gradient)[0]) for name, gradient in gradients.items()}

    def direction(self, name: str | None = None) -> Array:
        """Compute one of the directions that are known here.

        Args:
            name: one of `directions`: None for the first of them.

        Returns:
            [P] float, params raveled.

        Raises:
            ValueError: if there is no such direction.
        """
        name = self.directions[0] if name is None else name
        if name not in self.directions:
            raise ValueError(f"direction must be one of {self.directions} on this problem, got {name!r}.")
        return jnp.asarray(self.known[name])


def is_distribution(x: Any) -> bool:
    """Tell a distribution from a tree of them.

    Args:
        x: either.

    Returns:
        Whether it is a distribution.
    """
    return hasattr(x, "log_prob")


def parts_of(distribution: Any) -> list[Any]:
    """List the parts of a tree of distributions.

    Args:
        distribution: a distribution or a tree of them.

    Returns:
        The distributions.
    """
    return jax.tree.leaves(distribution, is_leaf=is_distribution)


def is_discrete(part: Any) -> bool:
    """Tell whether the actions of a distribution can be listed.

    Args:
        part: a distribution.

    Returns:
        Whether they can.
    """
    return hasattr(part, "support") and not part.is_differentiable


def _outcomes(part: Any, grid: Grid | None) -> tuple[Array, Array]:
    """Actions [N, *event] of a distribution and their probabilities [N]."""
    if grid is None:
        return part.support()
    return grid[0], grid[1] * jnp.exp(jax.vmap(part.log_prob)(grid[0]))


def action_grid(distribution: Any) -> Grid:
    """Cover the actions of a continuous distribution with points, so that integrals over its density become sums.

    Shapes: result [N, D] and [N].

    Args:
        distribution: a Normal, or a distribution with bounds `low` and `high`; one row.

    Returns:
        (actions, volumes): [N, D] and [N] float.

    Raises:
        TypeError: if the distribution is neither.
    """
    if isinstance(distribution, Normal):
        loc, scale = np.broadcast_arrays(np.asarray(distribution.loc), np.asarray(distribution.scale))
        points = np.linspace(-DEVIATIONS, DEVIATIONS, STEPS)
        axes = [(m + s * points, np.full(STEPS, s * (points[1] - points[0]))) for m, s in zip(loc, scale, strict=True)]
    elif hasattr(distribution, "low") and hasattr(distribution, "high"):
        shape = distribution.mode().shape
        bounds = (np.broadcast_to(np.asarray(x), shape) for x in (distribution.low, distribution.high))
        axes = [_tanh_sinh(low, high) for low, high in zip(*bounds, strict=True)]
    else:
        raise TypeError(
            f"distribution must have a support(), or be a Normal, or have bounds, got {type(distribution).__name__}."
        )
    actions, parts = (np.asarray(list(itertools.product(*each))) for each in zip(*axes, strict=True))
    return jnp.asarray(actions), jnp.asarray(np.prod(parts, axis=1))


def _tanh_sinh(low: float, high: float) -> tuple[Any, Any]:
    """Points and volumes of an interval; they crowd at the ends, where a density may rise or fall steeply."""
    t = np.linspace(-ENDS, ENDS, NODES)
    inner, width = np.pi / 2.0 * np.sinh(t), t[1] - t[0]
    volume = (high - low) / 2.0 * width * np.pi / 2.0 * np.cosh(t) / np.cosh(inner) ** 2
    x = low + (high - low) / (1.0 + np.exp(-2.0 * inner))
    inside = (x > low) & (x < high)
    return x[inside], volume[inside]


def expectation_problem(
    name: str,
    distribution: Callable[[Params], Any],
    f: Callable[[Params, Any], Array],
    *,
    params: Params,
    num_nodes: int | Mapping[str, int] | None = None,
) -> ExpectationProblem:
    """Build a problem to certify rules on, in float64: the gradient of E f(params, x), x ~ distribution(params).

    Shapes: P parameters; f gives [...] for actions [..., *event].

    Args:
        name: what it is called in tables.
        distribution: params -> a distribution without batch axes: one with a `support()`, a Normal, or one with
            bounds.
        f: (params, action) -> [...] float; it may depend on the parameters beside the action, or not.
        params: a pytree of floats.
        num_nodes: nodes for each continuous number in the noise of a rule, or a dict from names of noise to such, as
            in `pgjax.expectation.nodes`; None for the defaults of the laws.

    Returns:
        The problem.

    Raises:
        TypeError: if distribution or f is not a function.
        ValueError: if f does not give one number for an action without batch axes.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> from pgjax import exact
        >>> problem = exact.expectation_problem(
        ...     "square", lambda params: pg.Normal(params, 0.5), lambda params, x: x[..., 0] ** 2, params=jnp.ones(1))
        >>> print(f"{problem.objective:.6f}", problem.direction().round(6))
        1.250000 [2.]
    """
    _checks.require_callable("distribution", distribution)
    _checks.require_callable("f", f)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), params)
        problem = ExpectationProblem(name, distribution, f, params, num_nodes)
        modes = lambda: jax.tree.map(lambda d: d.mode(), distribution(params), is_leaf=is_distribution)  # noqa: E731
        value = jax.eval_shape(lambda: f(params, modes()))
        _checks.require_shape("the result of f for one action", value, ())
    return problem
