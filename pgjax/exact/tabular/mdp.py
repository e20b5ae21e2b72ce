"""Tabular Markov decision processes, and what linear algebra says about a policy in them.

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
from pgjax.exact._pytree import concrete, validated_pytree

Array = jax.Array


@validated_pytree("horizon")
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
    horizon: int | None = None

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


def checked_policy(mdp: TabularMDP, probs: Array, name: str = "probs") -> Array:
    """Return a policy table as floats of the right shape; values are not looked at.

    Args:
        mdp: the process that it must fit.
        probs: [S, A] float.
        name: the argument's name, for the message.

    Returns:
        [S, A] float.

    Raises:
        TypeError: if it is not floating.
        ValueError: if its shape is not [S, A].
    """
    probs = _checks.as_floating(name, probs)
    _checks.require_shape(name, probs, mdp.reward.shape, "[S, A]")
    return probs


def checked_states(mdp: TabularMDP, x: Array, name: str) -> Array:
    """Return a function of the state as floats [S]; raise for other shapes.

    Args:
        mdp: the process that it must fit.
        x: [S] float.
        name: the argument's name, for the message.

    Returns:
        [S] float.

    Raises:
        TypeError: if it is not floating.
        ValueError: if its shape is not [S].
    """
    x = _checks.as_floating(name, x)
    _checks.require_shape(name, x, mdp.initial.shape, "[S]")
    return x


@compiled()
def terminal_states(mdp: TabularMDP) -> Array:
    """Tell which states end an episode: those that no action leaves and in which none pays.

        s is terminal  iff  P(s | s, a) = 1 and r(s, a) = 0 for every a

    Shapes: result [S].

    Args:
        mdp: the process.

    Returns:
        [S] bool.

    Raises:
        TypeError: if mdp is not a TabularMDP.
    """
    stays = jnp.einsum("sas->sa", mdp.transition) == 1.0
    return jnp.all(stays & (mdp.reward == 0.0), axis=1)


@compiled()
def state_transition(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the transition matrix between states that a policy induces.

        P_π(s' | s) = Σ_a π(a | s) P(s' | s, a)

    Shapes: probs [S, A]; result [S, S], row s, column s'.

    Args:
        mdp: the process.
        probs: [S, A] float, the policy.

    Returns:
        [S, S] float.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    probs = checked_policy(mdp, probs)
    return jnp.einsum("sa,sat->st", probs, mdp.transition)


def reachable(chain: Array) -> Array:
    """Tell which states can be reached from which, by doubling the number of steps that are looked ahead.

    Args:
        chain: [S, S] float, transition matrix or any multiple of its entries.

    Returns:
        [S, S] bool, row from, column to; every state reaches itself.
    """
    reach = (chain > 0) | jnp.eye(len(chain), dtype=bool)
    for _ in range(len(chain).bit_length()):
        reach = jnp.einsum("st,tu->su", reach.astype(chain.dtype), reach.astype(chain.dtype)) > 0
    return reach


def running_transition(mdp: TabularMDP, probs: Array) -> Array:
    """Compute P_π between states in which an episode still runs: rows and columns of terminal states are zero.

    With discount 1 it is NaN where some state never reaches a terminal one: no total exists then, and a
    linear solver would answer all the same.

    Args:
        mdp: the process.
        probs: [S, A] float, the policy.

    Returns:
        [S, S] float.
    """
    chain = state_transition(mdp, probs)
    ended = terminal_states(mdp)
    ends = jnp.all(jnp.any(reachable(chain) & ended[None, :], axis=1))
    running = jnp.where(ended[:, None] | ended[None, :], 0.0, chain)
    return jnp.where((mdp.discount < 1.0) | ends, running, jnp.nan)


def identity_minus(matrix: Array) -> Array:
    """Compute I - M, the matrix of the linear equations x = b + M x.

    Args:
        matrix: [S, S] float, M.

    Returns:
        [S, S] float, in the dtype of M.
    """
    return jnp.eye(matrix.shape[0], dtype=matrix.dtype) - matrix


@compiled("k")
def k_step_visitation(mdp: TabularMDP, probs: Array, k: int) -> Array:
    """Compute the probability of being in x after k steps from s, ρ(s → x, k).

        ρ(s → x, 0) = 1[s = x],  ρ(s → x, k + 1) = Σ_y ρ(s → y, k) P_π(x | y)

    Shapes: probs [S, A]; result [S, S], row s, column x.

    Args:
        mdp: the process; discount and horizon are not used.
        probs: [S, A] float, the policy.
        k: number of steps, at least 0; static.

    Returns:
        [S, S] float, rows sum to one.

    Raises:
        TypeError: if probs is not floating or k is not an int.
        ValueError: if probs has not shape [S, A] or k is negative.
    """
    k = _checks.as_positive_int("k", k, at_least=0)
    return jnp.linalg.matrix_power(state_transition(mdp, probs), k)
