"""Tabular Markov decision processes.

A policy is its table of probabilities ``probs[S, A]``. A state is *terminal* when every action keeps it
where it is and pays nothing; an episode ends on entering one, so the undiscounted episodic objective
is ``discount=1`` with terminal states. With ``horizon=H`` an episode ends after H steps.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._pytree import concrete, static, validated_pytree

Array = jax.Array


@validated_pytree
class TabularMDP:
    """A Markov decision process with finitely many states and actions.

    Shapes: transition [S, A, S]; reward [S, A]; initial [S]; discount scalar.

    Args:
        transition: [S, A, S] float, Pr(s' | s, a).
        reward: [S, A] float, expected reward of taking a in s, reward units.
        initial: [S] float, distribution of the first state.
        discount: γ, scalar in [0, 1], per environment step.
        horizon: number of steps after which an episode ends, or None if only terminal states end it; static.

    Returns:
        A frozen pytree.

    Raises:
        TypeError: if an array is not floating or horizon is not an int.
        ValueError: if shapes disagree, if a distribution has negative entries or does not sum to one, if
            discount lies outside [0, 1], or if discount is 1 and nothing ever ends an episode.

    Example:
        >>> import jax.numpy as jnp, pgjax.exact as exact
        >>> mdp = exact.TabularMDP(jnp.ones((1, 2, 1)), jnp.array([[1.0, 0.0]]), jnp.ones(1), 0.5)
        >>> print(exact.objective(mdp, jnp.array([[0.25, 0.75]])))
        0.5
    """

    transition: Any
    reward: Any
    initial: Any
    discount: Any
    horizon: int | None = static(default=None)

    def __post_init__(self) -> None:
        reward = _checks.as_floating("reward", self.reward, ndim_at_least=2)
        states = reward.shape[0]
        _checks.require_shape("reward", reward, (states, reward.shape[1] if reward.ndim > 1 else 0), "[S, A]")
        transition = _checks.as_floating("transition", self.transition)
        _checks.require_shape("transition", transition, (*reward.shape, states), "[S, A, S]")
        initial = _checks.as_floating("initial", self.initial)
        _checks.require_shape("initial", initial, (states,), "[S]")
        dtype = jnp.result_type(transition, reward, initial)
        discount = _checks.as_scalar_or_shape("discount", self.discount, ()).astype(dtype)
        if self.horizon is not None:
            _checks.as_positive_int("horizon", self.horizon)
        values = {
            "transition": transition.astype(dtype),
            "reward": reward.astype(dtype),
            "initial": initial.astype(dtype),
            "discount": discount,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if concrete(*values.values()):
            self._check_values()

    def _check_values(self) -> None:
        _checks.require_probabilities("transition", self.transition)
        _checks.require_probabilities("initial", self.initial)
        _checks.require_unit_interval("discount", float(self.discount))
        if self.horizon is None and float(self.discount) == 1.0 and not bool(jnp.any(terminal_states(self))):
            raise ValueError(
                "discount must be below 1 where no episode ends, got 1.0 without horizon and without terminal states. "
                "Set horizon=..., or add an absorbing state without reward."
            )

    @property
    def num_states(self) -> int:
        """Number of states S."""
        return int(self.reward.shape[0])

    @property
    def num_actions(self) -> int:
        """Number of actions A."""
        return int(self.reward.shape[1])

    def replace(self, **changes: Any) -> "TabularMDP":
        """Return a copy with some fields replaced, validated anew.

        Args:
            **changes: new values by field name.

        Returns:
            The new process.

        Raises:
            TypeError: as the constructor does, or for a field that does not exist.
            ValueError: as the constructor does.
        """
        return dataclasses.replace(self, **changes)


@compiled()
def terminal_states(mdp: TabularMDP) -> Array:
    """Tell which states end an episode: those that no action leaves and in which none pays.

        s is terminal  iff  P(s | s, a) = 1 and r(s, a) = 0 for every a

    Shapes: result [S].

    Args:
        mdp: the process, a `TabularMDP`.

    Returns:
        [S] bool.
    """
    stays = jnp.einsum("sas->sa", mdp.transition) == 1.0
    return jnp.all(stays & (mdp.reward == 0.0), axis=1)
