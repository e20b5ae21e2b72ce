"""The form of every rule: drawn noise, a function of it, and options."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pgjax.expectation.laws import Law, own
from pgjax.expectation.sampling import parts

Array = jax.Array


@jax.tree_util.register_pytree_node_class
class Rule:
    """An estimator of the gradient of E f(x), x ~ p_θ: ``rule(key, distribution, f, **options) -> [...]``.

    Its value is f at a sample, or the exact mean; its gradient with respect to whatever made the distribution is the
    estimate. Made by the decorator `rule`.

    A rule is a pytree: arrays and floats among the options that `using` has fixed are leaves, so that a jitted function
    takes a rule as an argument, and derivatives with respect to its options can be had.

    Rules are not compiled by themselves, since f is as a rule a function made anew: call them inside `jax.jit`.
    """

    def __init__(
        self, function: Callable[..., Array], laws: Mapping[str, Law], options: Mapping[str, Any] | None = None
    ):
        self.function, self.name = function, function.__name__
        self.laws = dict(laws)
        self.options = dict(options or {})
        functools.update_wrapper(self, function)
        given = list(inspect.signature(function).parameters.values())
        key = inspect.Parameter("key", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        kept = [p.replace(default=self.options.get(p.name, p.default)) for p in given if p.name not in self.laws]
        self.__signature__ = inspect.Signature([key, *kept])

    def __call__(self, key: Array, distribution: Any, f: Callable[[Any], Array], **options: Any) -> Array:
        """Draw the noise and apply the rule.

        Args:
            key: a JAX random key; it is consumed.
            distribution: one of `pgjax.distributions`, or a tree of them.
            f: of an action [..., *event], gives [...].
            **options: of the rule.

        Returns:
            [...] float: f at a sample; its gradient is the estimate.
        """
        return self.given(self.draw(key, distribution, **options), distribution, f, **options)

    def draw(self, key: Array, distribution: Any, **options: Any) -> dict[str, Any]:
        """Draw everything random that the rule needs.

        Args:
            key: a JAX random key; it is consumed.
            distribution: its shapes and dtype matter, and nothing else.
            **options: of the rule; of them num_samples matters here.

        Returns:
            The noise: a dict with the names of `laws`; empty for a rule without noise. num_samples leads.

        Raises:
            TypeError: if there is no such option.
        """
        options = self._with(options)
        parts(self.name, distribution)
        keys = jax.random.split(key, max(len(self.laws), 1))
        return {
            name: law.draw(k, distribution, options) for (name, law), k in zip(self.laws.items(), keys, strict=False)
        }

    def given(self, noise: Mapping[str, Any], distribution: Any, f: Callable[[Any], Array], **options: Any) -> Array:
        """Apply the rule to given noise.

        Args:
            noise: a dict as from `draw`; for a law "own" also `taken(action)`.
            distribution: one of `pgjax.distributions`, or a tree of them.
            f: of an action [..., *event], gives [...].
            **options: of the rule.

        Returns:
            [...] float: f at a sample; its gradient is the estimate.

        Raises:
            TypeError: if a name in noise or an option is unknown or missing.
        """
        options = self._with(options)
        if set(noise) != set(self.laws):
            raise TypeError(
                f"{self.name} needs noise named {sorted(self.laws)}, got {sorted(noise)}. "
                f"Draw it with {self.name}.draw(key, distribution)."
            )
        parameters = inspect.signature(self.function).parameters.values()
        empty = inspect.Parameter.empty
        required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is empty]
        missing = [name for name in required if name not in self.laws and name not in options]
        if missing:
            raise TypeError(f"{self.name} needs the option {missing[0]}: {self.name}(..., {missing[0]}=...).")
        return self.function(distribution, f, **noise, **options)

    def using(self, **options: Any) -> "Rule":
        """Fix options.

        Args:
            **options: of the rule. A function that owns arrays is best given as ``bind(function, arrays)``.

        Returns:
            A rule that has these options where a call does not say otherwise.

        Raises:
            TypeError: if there is no such option.
        """
        return Rule(self.function, self.laws, self._with(options))

    def _with(self, options: Mapping[str, Any]) -> dict[str, Any]:
        names = [name for name in inspect.signature(self.function).parameters if name not in self.laws][2:]
        for name in options:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names) or 'none'}."
                raise TypeError(f"{self.name} has no option {name!r}: {hint}")
        return {**self.options, **options}

    def __repr__(self) -> str:
        return f"<rule {self.name}{self.__signature__}>"

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """Take apart for JAX: arrays and floats among the options feed a program, the rest selects it."""
        leaves, structure = jax.tree.flatten(self.options)
        fed = [isinstance(leaf, (jax.Array, np.ndarray, np.generic, float)) for leaf in leaves]
        rest = tuple(None if feeds else (leaf,) for leaf, feeds in zip(leaves, fed, strict=True))
        children = tuple(leaf for leaf, feeds in zip(leaves, fed, strict=True) if feeds)
        return children, (self.function, tuple(self.laws.items()), structure, rest)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Rule":
        """Put together again what `tree_flatten` took apart."""
        function, laws, structure, rest = aux
        fed = iter(children)
        leaves = [next(fed) if slot is None else slot[0] for slot in rest]
        return cls(function, dict(laws), jax.tree.unflatten(structure, leaves))


def rule(**laws: Any) -> Callable[[Callable[..., Array]], Rule]:
    """Make a decorator that turns a function of noise into a rule.

    The function is ``function(distribution, f, *, <names of noise>, <options>) -> [...]``, deterministic. Its docstring
    describes the rule as it is called: key, distribution, f, options.

    Shapes: whatever the laws give for a distribution with batch axes [...]; the rule gives [...].

    Args:
        **laws: for each name of noise its law, one of `pgjax.expectation.laws`, or "own" for the noise that the
            distribution itself samples from.

    Returns:
        A decorator that gives a `Rule`.

    Raises:
        TypeError: if a law is no `Law`.

    Properties:
        The order of the laws is the order in which the key is split.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import rule
        >>> @rule(x="own")
        ... def antithetic(distribution, f, *, x):
        ...     return 0.5 * (f(distribution.sample_from(x)) + f(distribution.sample_from(-x)))
        >>> print(antithetic(jax.random.key(0), Normal(jnp.zeros(1), 2.0), lambda a: 3.0 + a[..., 0]))
        3.0

    References:
        Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, for the estimators in this form.
    """
    found = {name: own if law == "own" else law for name, law in laws.items()}
    for name, law in found.items():
        if not isinstance(law, Law):
            raise TypeError(f'the law of {name} must be a Law or "own", got {type(law).__name__}.')

    def wrap(function: Callable[..., Array]) -> Rule:
        return Rule(function, found)

    return wrap
