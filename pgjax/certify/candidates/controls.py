"""Candidates with control variates of several kinds, and with weights for data of another policy."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Params, Policy, Trajectory
from pgjax.certify.candidates.arguments import FINITE, WHOLE, returns, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import (
    Contributions,
    aggressive_coefficient,
    conservative_coefficient,
    control_variate,
    counterfactual_baseline,
    doubly_robust_gradient,
    efficient_off_policy_gradient,
    estimator,
    expected_gradient,
    factorized_gradient,
    interpolated_gradient,
    leave_one_out_coefficient,
    leave_one_out_control,
    leave_one_out_covariance,
    sampled_gradient,
    single_sample_covariance,
    vtrace_actor_critic,
)
from pgjax.expectation import enumerated, score_function
from pgjax.returns import doubly_robust_returns, emphatic_weight

Array = jax.Array
UNBOUNDED = {"clip_rho": 1e6, "clip_c": 1e6, "clip_pg_rho": 1e6}


def control_candidates() -> list[Candidate]:
    """List the control variates whose coefficient or advantage is estimated, and what corrects data of another policy.

    Returns:
        The candidates.
    """
    return [
        *(*_coefficients(), *_of_gradients(), *_trajectory_wise(), *_interpolated()),
        *(*_factorized(), *_doubly_robust(), *_emphatic()),
    ]


def _expected_critic(problem: Any, trajectory: Trajectory) -> Array:
    """The mean over actions of the critic that errs, [T, B]."""
    distribution = problem.policy(problem.params, trajectory.obs)
    return enumerated.given({}, distribution, lambda action: problem.erring_critic(trajectory.obs, action))


def _coefficients() -> list[Candidate]:
    def entry(name: str, coefficient: Any, **more: Any) -> Candidate:
        def arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
            advantage = returns(problem, trajectory)
            centred = problem.erring_critic(trajectory.obs, trajectory.action) - _expected_critic(problem, trajectory)
            return {
                **{"advantage": advantage, "critic": problem.erring_critic, "rule": enumerated},
                **{"coefficient": coefficient(advantage, centred), **weight(problem, trajectory)},
            }

        return Candidate(
            f"control variate, {name}", control_variate, arguments, needs=(*WHOLE, FINITE),
            reference="Gu et al. (2017)", **{"group_size": 2, **more},
        )  # fmt: skip

    return [
        entry("coefficient by regression over the others", leave_one_out_coefficient),
        entry(
            "conservative, covariance of the others",
            lambda a, c: conservative_coefficient(leave_one_out_covariance(a, c)),
        ),
        entry(
            "aggressive, covariance of the others", lambda a, c: aggressive_coefficient(leave_one_out_covariance(a, c))
        ),
        entry(
            "conservative, covariance of the own step, wrong critic",
            lambda a, c: conservative_coefficient(single_sample_covariance(a, c)), claim=None, group_size=1,
        ),
    ]  # fmt: skip


@estimator
def _without_control(
    params: Params, trajectory: Trajectory, *, policy: Policy, earned: Array, step_weight: Array, control: Array
) -> Contributions:
    """REINFORCE less a control variate of whole gradients: scores times a number that no action has to do with."""

    def times(number: Array) -> Params:
        options: dict[str, Any] = {"rule": score_function, "earned": number, "step_weight": step_weight}
        return sampled_gradient.per_trajectory(params, trajectory, policy=policy, **options)[0]

    return Contributions(leave_one_out_control(times(earned), times(jnp.broadcast_to(control, earned.shape))), earned)


def _of_gradients() -> list[Candidate]:
    return [
        Candidate(
            "REINFORCE, control variate of gradients, coefficient of the others",
            _without_control,
            lambda p, t: {"earned": returns(p, t), "control": jnp.asarray(p.objective), **weight(p, t)},
            group_size=2,
            needs=WHOLE,
            reference="Owen (2013)",
        )
    ]


def _trajectory_wise() -> list[Candidate]:
    def arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        t = trajectory
        _, left = doubly_robust_returns(
            t.reward,
            problem.erring_critic(t.obs, t.action),
            _expected_critic(problem, t),
            log_ratio=jnp.zeros_like(t.reward),
            terminated=t.terminated,
            truncated=t.truncated,
            discount=problem.discount,
        )
        return {"advantage": left, "critic": problem.erring_critic, "rule": enumerated, **weight(problem, t)}

    return [
        Candidate(
            "trajectory-wise control variate, wrong critic", control_variate, arguments, needs=(*WHOLE, FINITE),
            reference="Cheng et al. (2019)",
        )
    ]  # fmt: skip


def _interpolated() -> list[Candidate]:
    return [
        Candidate(
            "interpolated half and half, exact critic",
            interpolated_gradient,
            lambda p, t: {
                **{"advantage": returns(p, t), "critic": p.critic, "rule": enumerated, "share": 0.5},
                **weight(p, t),
            },
            needs=(*WHOLE, FINITE, "exact value"),
            reference="Gu et al. (2017)",
        )
    ]


def _factorized() -> list[Candidate]:
    def drawn(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        """The mean over two other actions, a scale to either side of the mean, in place of each factor's own."""
        distribution = problem.policy(problem.params, trajectory.obs)
        draws = jnp.stack([distribution.loc + side * distribution.scale for side in (-1.0, 1.0)])
        baseline = counterfactual_baseline(distribution, trajectory, critic=problem.erring_critic, draws=draws)
        return {"advantage": returns(problem, trajectory), "baseline": baseline, **weight(problem, trajectory)}

    return [
        Candidate(
            "baseline for each factor, wrong value",
            factorized_gradient,
            lambda p, t: {
                "advantage": returns(p, t), "baseline": p.erring_value(p.params, t.obs)[..., None], **weight(p, t)
            },
            needs=WHOLE,
            reference="Wu et al. (2018)",
        ),
        Candidate(
            "counterfactual baseline of drawn actions, wrong critic", factorized_gradient, drawn,
            needs=(*WHOLE, "smooth samples"), reference="Foerster et al. (2018)",
        ),
    ]  # fmt: skip


def _doubly_robust() -> list[Candidate]:
    def entry(data: str) -> Candidate:
        return Candidate(
            f"doubly robust, {data}, wrong critic",
            doubly_robust_gradient,
            lambda p, t: {"critic": p.erring_critic, "rule": enumerated},
            needs=(data, "whole episodes", FINITE),
            reference="Huang and Jiang (2020)",
        )

    def products(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        def density_ratio(params: Any, t: Trajectory) -> Array:
            return jnp.exp(jnp.cumsum(problem.policy(params, t.obs).log_prob(t.action) - t.log_prob, axis=0))

        return {"critic": problem.erring_critic, "rule": enumerated, "density_ratio": density_ratio}

    efficient = Candidate(
        "efficient off-policy, products of ratios as densities, wrong critic", efficient_off_policy_gradient, products,
        needs=("other data", "whole episodes", FINITE), reference="Kallus and Uehara (2020)",
    )  # fmt: skip
    return [entry("own data"), entry("other data"), efficient]


def _emphatic() -> list[Candidate]:
    """Interest in the first step alone: the states are then corrected for as well as the actions."""

    def emphasis(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        t = trajectory
        log_ratio = problem.policy(problem.params, t.obs).log_prob(t.action) - t.log_prob
        interest = (t.step == 0).astype(log_ratio.dtype)
        ends = {"terminated": t.terminated, "truncated": t.truncated, "discount": problem.discount}
        return {"step_weight": emphatic_weight(log_ratio, interest=interest, **ends)}

    imani = "Imani et al. (2018)"
    return [
        Candidate(
            "emphatic V-trace, other data, no clipping, wrong value", vtrace_actor_critic,
            lambda p, t: {"value": p.erring_value, **UNBOUNDED, **emphasis(p, t)},
            needs=("other data", "whole episodes"), reference=imani,
        ),
        Candidate(
            "emphatic all-action, other data, exact critic", expected_gradient,
            lambda p, t: {"critic": p.critic, "rule": enumerated, **emphasis(p, t)},
            needs=("other data", "exact value", FINITE), reference=imani,
        ),
    ]  # fmt: skip
