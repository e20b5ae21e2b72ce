"""What an estimator is held against: a process, a policy, trajectories of it, and the gradient that they should give.

Everything is kept in float64, whatever the session computes in, so that a bias of 1e-10 can be seen.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._types import Params, Policy, Trajectory
from pgjax.certify.problems._float64 import exactly
from pgjax.certify.problems.directions import sensitivities
from pgjax.distributions import Categorical
from pgjax.exact.enumeration import trajectories
from pgjax.exact.tabular.environments import TabularEnvironment
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.scores import score_of
from pgjax.exact.tabular.values import value

Array = jax.Array
DIRECTIONS = ("discounted", "dropped discount", "off-policy")
LIMIT = 10**9  # the list of trajectories is limited where it is asked for


@dataclasses.dataclass(frozen=True, eq=False)
class TabularProblem:
    """A tabular process with a policy, from which trajectories of a given length are drawn: see `tabular_problem`.

    Shapes: S states, A actions, P parameters; directions are pytrees like params.

    Args:
        name: what it is called in tables.
        mdp: the process, in float64, without horizon: episodes end in terminal states.
        params: parameters of the policy, in float64.
        policy: policy(params, obs) -> distribution over the actions 0 ... A - 1, obs the one-hot state.
        num_steps: length of a trajectory, environment steps; None for infinitely many.
        behaviour: [S, A] float, the policy that collects the data; None is the policy itself.
        whole: whether every episode ends within num_steps; if not, it is cut there as by a time limit.
        base: [S] int, the state of the original process that each state stands for.
    """

    name: str
    mdp: TabularMDP
    params: Params
    policy: Policy
    num_steps: int | None
    behaviour: Array | None
    whole: bool
    base: Any

    directions = DIRECTIONS
    takes_rules = False

    @property
    def discount(self) -> float:
        """γ, a number in [0, 1]."""
        return float(self.mdp.discount)

    @exactly
    def offers(self) -> frozenset[str]:
        """What estimators may rely on: see `Candidate`."""
        found = {"exact value", "finitely many actions", "own data" if self.behaviour is None else "other data"}
        if self.whole:
            found.add("whole episodes")
        if self.num_steps is not None and not self._ends_early():
            found.add("equal lengths")
        return frozenset(found)

    def _ends_early(self) -> bool:
        """Whether an episode may be over before the last step."""
        return bool(self.states_over_time(self.collector)[-1][self.ended].sum() > 0)

    def states_over_time(self, probs: Array) -> Any:
        """Compute the distribution of the state at each step.

        Args:
            probs: [S, A] float, a policy.

        Returns:
            [num_steps, S] NumPy array.
        """
        chain, states = np.einsum("sa,sat->st", probs, self.mdp.transition), [np.asarray(self.mdp.initial)]
        for _ in range((self.num_steps or 1) - 1):
            states.append(states[-1] @ chain)
        return np.stack(states)

    def policy_probs(self, params: Params) -> Array:
        """Compute the probability of each action in each state.

        Args:
            params: parameters of the policy.

        Returns:
            [S, A] float.
        """
        states, actions = self.mdp.reward.shape
        distribution = self.policy(params, jnp.asarray(np.eye(states)))
        each = np.repeat(np.arange(actions)[:, None], states, axis=1)
        return jnp.exp(jax.vmap(distribution.log_prob)(jnp.asarray(each))).T

    @exactly
    def ended(self) -> Any:
        """[S] bool, the states in which an episode is over."""
        return np.asarray(terminal_states(self.mdp))

    @exactly
    def probs(self) -> Array:
        """[S, A] float, the policy."""
        return jax.jit(self.policy_probs)(self.params)

    @exactly
    def collector(self) -> Array:
        """[S, A] float, the policy that collects the data."""
        return self.probs if self.behaviour is None else self.behaviour

    @exactly
    def score(self) -> Array:
        """[S, A, P] float, the score of the policy."""
        # Within a program of its own, so that the many policies of many problems leave no program of score_of behind.
        return jax.jit(lambda params: score_of(params, self.policy_probs))(self.params)

    @exactly
    def objective(self) -> float:
        """Scalar: the discounted return of an episode, reward units."""
        return float(self.mdp.initial @ self.state_value)

    @exactly
    def state_value(self) -> Array:
        """[S] float, V of each state."""
        return value(self.mdp, self.probs)

    @exactly
    def wrong_value(self) -> Array:
        """[S] float, a value function that errs by as much as the values are large, differently in each state."""
        value = np.asarray(self.state_value)
        return jnp.asarray(value + 0.5 * max(np.abs(value).max(), 1e-3) * np.sin(1.0 + 2.0 * self.base))

    @functools.cached_property
    def value(self) -> Callable[[Params, Array], Array]:
        """The exact value function, value(params, obs), a constant in params."""
        return lambda params, obs: obs @ self.state_value

    @functools.cached_property
    def erring_value(self) -> Callable[[Params, Array], Array]:
        """The value function that errs, value(params, obs), a constant in params."""
        return lambda params, obs: obs @ self.wrong_value

    @functools.cached_property
    def critic(self) -> Callable[[Array, Array], Array]:
        """The exact action value, critic(obs, action), a constant in params."""
        return self._action_value(lambda: self.state_value, 0.0)

    @functools.cached_property
    def erring_critic(self) -> Callable[[Array, Array], Array]:
        """An action value that errs, critic(obs, action), a constant in params."""
        return self._action_value(lambda: self.wrong_value, 0.3)

    def _action_value(self, value: Callable[[], Array], error: float) -> Callable[[Array, Array], Array]:
        def critic(obs: Array, action: Array) -> Array:
            reward, transition = np.asarray(self.mdp.reward), np.asarray(self.mdp.transition)
            table = reward + self.discount * transition @ np.asarray(value())
            table = table + error * np.abs(table).max() * np.sin(self.base[:, None] + 2.0 * np.arange(table.shape[1]))
            return jnp.sum(obs @ table * jax.nn.one_hot(action, table.shape[1], dtype=obs.dtype), axis=-1)

        return critic

    def direction(self, name: str = "discounted") -> Array:
        """Compute a direction that an estimator may claim to estimate (ascent).

            g = Σ_t w_t Σ_s Pr(s_t = s) Σ_a ∇π(a | s) A(s, a),  t < num_steps

        Args:
            name: "discounted" has w = γ^t and is the gradient of the objective; "dropped discount" has w = 1 and is
                the gradient of nothing; "off-policy" has w = γ^t and states as the behaviour visits them.

        Returns:
            [P] float, params raveled.

        Raises:
            ValueError: if there is no such direction.
        """
        if name not in DIRECTIONS:
            raise ValueError(f"direction must be one of {DIRECTIONS}, got {name!r}. Pick the one that is claimed.")
        return jnp.asarray(self.known[name])

    @exactly
    def known(self) -> dict[str, Any]:
        """Directions by name, [P] NumPy arrays: those that may be claimed, and those that mistakes lead to."""
        jacobian = np.asarray(self.probs)[..., None] * np.asarray(self.score)
        return {name: np.einsum("sa,sap->p", table, jacobian) for name, table in sensitivities(self).items()}

    def count(self) -> float:
        """Count the trajectories of positive probability, without listing them.

        Returns:
            Their number; infinite where trajectories are.
        """
        if self.num_steps is None:
            return np.inf
        branches = (np.asarray(self.collector)[:, :, None] * np.asarray(self.mdp.transition) > 0).sum(1)
        branches = np.where(self.ended[:, None], np.eye(len(self.ended)), branches)
        paths = (np.asarray(self.mdp.initial) > 0).astype(float)
        for _ in range(self.num_steps):
            paths = paths @ branches
        return float(paths.sum())

    @exactly
    def enumerated(self) -> tuple[Trajectory, Array]:
        """Every trajectory [num_steps, N] and its probability [N], as `trajectories` lists them."""
        batch, weights = trajectories(self.mdp, self.collector, self.num_steps, limit=LIMIT)
        # `trajectories` ends every episode with the last step; here it has ended only where the process says so.
        running = np.any(np.asarray(batch.obs) != 0, axis=-1)
        terminated = ~running | (np.asarray(batch.next_obs) @ self.ended > 0)
        cut = ~terminated & (np.arange(len(terminated))[:, None] == len(terminated) - 1)
        return dataclasses.replace(batch, terminated=jnp.asarray(terminated), truncated=jnp.asarray(cut)), weights

    def cells(self, trajectory: Trajectory) -> tuple[Array, Array]:
        """Number the states of trajectories, and their pairs of state and action; what lies after an end is apart.

        Args:
            trajectory: leaves [T, B, ...].

        Returns:
            Two of [T, B] int.
        """
        states, actions = self.mdp.reward.shape
        running = jnp.any(trajectory.obs != 0, axis=-1)
        state = jnp.where(running, jnp.argmax(trajectory.obs, axis=-1), states)
        return state, jnp.where(running, state * actions + trajectory.action, states * actions)

    @functools.cached_property
    def collecting_policy(self) -> Policy:
        """policy(params, obs), the one that collects the data."""
        if self.behaviour is None:
            return self.policy
        log_probs = np.log(np.maximum(np.asarray(self.behaviour), 1e-300))
        return lambda params, obs: Categorical(obs @ log_probs)

    @functools.cached_property
    def environment(self) -> TabularEnvironment:
        """The same process to roll out in; a time limit cuts what does not end by itself."""
        return TabularEnvironment(self.mdp, time_limit=self.num_steps)
