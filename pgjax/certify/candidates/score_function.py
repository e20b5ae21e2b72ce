"""Candidates that need no critic: likelihood ratio, REINFORCE, GPOMDP."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Trajectory
from pgjax.baselines import batch_mean, greedy_baseline, value_baseline
from pgjax.certify.candidates.arguments import FINITE, WHOLE, constant, others, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.problems.tabular import TabularProblem
from pgjax.estimators import gpomdp, likelihood_ratio, reinforce
from pgjax.exact.variance.moments import AffinePair
from pgjax.exact.variance.pairs import gpomdp_pair
from pgjax.rollout import init_rollout


def score_function_candidates() -> list[Candidate]:
    """List the estimators that multiply scores by what was earned.

    Returns:
        The candidates.
    """
    return [*_likelihood_ratio(), *_reinforce(), *_gpomdp()]


def _likelihood_ratio() -> list[Candidate]:
    def greedy(problem: TabularProblem, trajectory: Trajectory) -> dict[str, Any]:
        """What the mode earns from the state that each trajectory started in; on one key, whatever the column."""
        env, keys = problem.environment, jax.random.split(jax.random.key(0))

        def from_state(obs: jax.Array) -> jax.Array:
            start = init_rollout(keys[0], env, env.default_params, num_envs=1)
            inside = start.env_state.replace(state=jnp.argmax(obs)[None])
            start = start.replace(env_state=inside, obs=obs[None].astype(start.obs.dtype))
            return greedy_baseline(
                keys[1], problem.params, start, policy=problem.policy, env=env, env_params=env.default_params,
                num_steps=len(trajectory.reward), discount=problem.discount,
            )[0]  # fmt: skip

        earned = jax.vmap(from_state)(jnp.eye(trajectory.obs.shape[-1]))
        return {"baseline": jnp.broadcast_to(trajectory.obs[0] @ earned, trajectory.reward.shape)}

    reference = "Williams (1992)"
    return [
        Candidate("likelihood ratio", likelihood_ratio, needs=WHOLE, reference=reference),
        Candidate("likelihood ratio, constant baseline", likelihood_ratio, constant, needs=WHOLE, reference=reference),
        Candidate(
            "likelihood ratio, leave-one-out", likelihood_ratio, others,
            needs=WHOLE, group_size=2, reference="Kool et al. (2019)",
        ),
        Candidate(
            "likelihood ratio, greedy return", likelihood_ratio, greedy, needs=(*WHOLE, FINITE),
            reference="Li et al. (2023)",
        ),
    ]  # fmt: skip


def _reinforce() -> list[Candidate]:
    def with_values(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        baseline = value_baseline(problem.params, trajectory, value=problem.value)
        return {**weight(problem, trajectory), "baseline": baseline}

    def with_bootstrap(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        next_value = problem.value(problem.params, trajectory.next_obs)
        return {**with_values(problem, trajectory), "next_value": next_value}

    def pair(problem: TabularProblem, **kwargs: Any) -> AffinePair:
        return gpomdp_pair(problem.mdp, problem.probs, score=problem.score, **kwargs)

    flat = lambda problem: jnp.full(problem.mdp.num_states, problem.objective)  # noqa: E731
    williams, kool = "Williams (1992)", "Kool et al. (2019)"
    return [
        Candidate("REINFORCE", reinforce, weight, needs=WHOLE, pair=pair, reference=williams),
        Candidate(
            "REINFORCE without γ^t", reinforce, claim="dropped discount", needs=WHOLE,
            pair=lambda p: pair(p, state_discount=1.0), reference="Nota and Thomas (2020)",
        ),
        Candidate(
            "REINFORCE, constant baseline", reinforce, lambda p, t: weight(p, t) | constant(p, t), needs=WHOLE,
            pair=lambda p: pair(p, baseline=flat(p)), reference=williams,
        ),
        Candidate(
            "REINFORCE, value baseline", reinforce, with_values, needs=WHOLE,
            pair=lambda p: pair(p, baseline=p.state_value), reference="Sutton and Barto (2018)",
        ),
        Candidate(
            "REINFORCE, value baseline and bootstrap", reinforce, with_bootstrap, needs=("own data", "exact value"),
            reference="Pardo et al. (2018)",
        ),
        Candidate(
            "REINFORCE, leave-one-out", reinforce, lambda p, t: weight(p, t) | others(p, t), needs=WHOLE,
            group_size=2, reference=kool,
        ),
        Candidate(
            "REINFORCE, mean with self", reinforce, lambda p, t: weight(p, t) | {"baseline": batch_mean},
            claim=None, needs=WHOLE, group_size=2, reference=kool,
        ),
    ]  # fmt: skip


def _gpomdp() -> list[Candidate]:
    """Baselines of single rewards ask for episodes of equal length: whether step l comes at all depends on actions.

    A function is subtracted from returns to go, which are there at every step, and asks for nothing.
    """
    reference = "Baxter and Bartlett (2001)"
    return [
        Candidate(
            "GPOMDP", gpomdp, needs=WHOLE, reference=reference,
            pair=lambda p: gpomdp_pair(p.mdp, p.probs, score=p.score),
        ),
        Candidate(
            "GPOMDP, constant baseline", gpomdp, lambda p, t: {"baseline": p.objective / t.reward.shape[0]},
            needs=(*WHOLE, "equal lengths"), reference=reference,
        ),
        Candidate("GPOMDP, leave-one-out", gpomdp, others, needs=WHOLE, group_size=2, reference=reference),
    ]  # fmt: skip
