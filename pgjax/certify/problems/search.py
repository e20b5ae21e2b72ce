"""A function of parameters to certify searches on: its exact gradient, and that of the same function smoothed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._types import Params
from pgjax.certify.problems._float64 import exactly
from pgjax.certify.problems.expectation import ExpectationProblem
from pgjax.distributions import Normal
from pgjax.exact.enumeration import gauss_hermite

Array = jax.Array

FINEST, IN_ALL = 64, 2**13  # nodes of the quadrature for one parameter, and for all of them together
PROBES, ROUNDING = 32, 1e-10  # points at which f is held against its second-order polynomial


@dataclasses.dataclass(frozen=True, eq=False)
class SearchProblem(ExpectationProblem):
    """The gradient of a function f of parameters, and of f smoothed by normal perturbations: see `search_problem`.

    Actions stand for perturbed parameters: a search is certified as a rule on Normal(θ, σ).

    Shapes: P parameters, or 2 P with the scale among them.

    Args:
        name: what it is called in tables.
        distribution: params -> Normal(θ [P], σ).
        f: (params, x [..., P]) -> [...] float; params play no part.
        params: θ in float64, or {"loc": θ, "scale": σ} where the scale is searched too.
        num_nodes: nodes for each number in the noise of a search.
        free_scale: whether σ is one of the parameters.
    """

    free_scale: bool = False

    @property
    def directions(self) -> tuple[str, ...]:
        """What is known: "plain", the gradient of f, and "smoothed", that of E f(θ + σε); the scale has the latter."""
        return ("smoothed",) if self.free_scale else ("plain", "smoothed")

    @exactly
    def offers(self) -> frozenset[str]:
        """What searches may rely on: see `Candidate`."""
        found = {"search of the mean": not self.free_scale, "search of mean and scale": self.free_scale}
        found["quadratic f"] = self._is_quadratic()
        return frozenset(name for name, offered in found.items() if offered)

    def _is_quadratic(self) -> bool:
        """Hold f against its polynomial of second order at θ, at points a few scales away."""
        at, scale = (np.asarray(x) for x in dataclasses.astuple(self.distribution(self.params))[:2])
        f = lambda x: self.f(self.params, x)  # noqa: E731
        steps = scale * np.random.default_rng(0).normal(size=(PROBES, len(at)))
        slope, curvature = np.asarray(jax.grad(f)(at)), np.asarray(jax.hessian(f)(at))
        values = np.asarray(jax.vmap(f)(at + steps))
        near = float(f(at)) + steps @ slope + 0.5 * np.einsum("ni,ij,nj->n", steps, curvature, steps)
        return bool(np.max(np.abs(values - near)) <= ROUNDING * max(1.0, np.max(np.abs(values))))

    def expectation(self, params: Params) -> Array:
        """Compute E f(θ + σε) by quadrature.

        Args:
            params: the parameters.

        Returns:
            Scalar float; differentiable.
        """
        distribution: Any = self.distribution(params)
        number = distribution.loc.shape[0]
        nodes, weights = gauss_hermite(max(2, min(FINEST, int(IN_ALL ** (1.0 / number)))), (number,))
        at = lambda z: self.f(params, distribution.loc + distribution.scale * z)  # noqa: E731
        return jnp.sum(weights * jax.lax.map(at, nodes, batch_size=4096))

    @exactly
    def objective(self) -> float:
        """Scalar: f(θ), or E f(θ + σε) where the scale is searched too."""
        if self.free_scale:
            return float(jax.jit(self.expectation)(self.params))
        return float(self.f(self.params, ravel_pytree(self.params)[0]))

    @exactly
    def known(self) -> dict[str, Any]:
        """The directions by name, [P] or [2 P]."""
        smoothed = np.asarray(ravel_pytree(jax.jit(jax.grad(self.expectation))(self.params))[0])
        if self.free_scale:
            return {"smoothed": smoothed}
        at = ravel_pytree(self.params)[0]
        return {"plain": np.asarray(jax.grad(lambda x: self.f(self.params, x))(at)), "smoothed": smoothed}


def search_problem(
    name: str,
    f: Callable[[Params], Array],
    *,
    params: Params,
    scale: float,
    free_scale: bool = False,
    num_nodes: int | None = None,
) -> SearchProblem:
    """Build a problem to certify searches on, in float64: the gradient of f, and that of E f(θ + σε), ε normal.

    Shapes: P parameters.

    Args:
        name: what it is called in tables.
        f: params -> scalar, minimised, smooth; for instance minus the exact return of a policy.
        params: θ, a pytree of floats, few: nodes are the product over all of them.
        scale: σ of evolution strategies, and ε of differences, a positive number in the units of the parameters.
        free_scale: whether the scale of each parameter is searched too, as by `pgpe`.
        num_nodes: nodes for each number in the noise of a search; None for the default, 64.

    Returns:
        The problem. The searches of `registry` that fit it are ``[c for c in registry() if c.fits(problem)]``.

    Raises:
        TypeError: if f is not a function.
        ValueError: if scale is not positive, or f does not give one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> problem = exact.search_problem("cube", lambda x: jnp.sum(x**3), params=jnp.ones(1), scale=0.5)
        >>> print(problem.direction("plain"), problem.direction("smoothed").round(6))
        [3.] [3.75]
    """
    _checks.require_callable("f", f)
    _checks.require_positive("scale", scale, remedy="It is the size of the perturbations.")
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), params)
        start, back = ravel_pytree(params)

        def black_box(params: Params, x: Array) -> Array:
            if x.ndim > 1:
                return jax.vmap(lambda row: black_box(params, row))(x)
            return jnp.asarray(f(back(x)))

        def distribution(params: Params) -> Normal:
            if free_scale:
                return Normal(ravel_pytree(params["loc"])[0], ravel_pytree(params["scale"])[0])
            at = ravel_pytree(params)[0]
            return Normal(at, jnp.full_like(at, scale))

        every = {"loc": params, "scale": jax.tree.map(lambda x: jnp.full_like(x, scale), params)}
        problem = SearchProblem(name, distribution, black_box, every if free_scale else params, num_nodes, free_scale)
        _checks.require_shape("the result of f", jax.eval_shape(lambda: black_box(params, start)), ())
    return problem
