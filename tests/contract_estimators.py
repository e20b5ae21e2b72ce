"""Example arguments of each public estimator and of what estimators are made with, for the contract test."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from contract_draws import ACTIONS, FEATURES, B, Case, Draw, T, tree, value

import pgjax as pg
from pgjax import expectation


def policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs @ params["actor"])


def critic(obs: Any, action: Any) -> Any:
    """An action value that differs from action to action."""
    return obs.sum(-1) * jnp.cos(action.astype(obs.dtype))


def density_ratio(params: Any, trajectory: Any) -> Any:
    """Of the actions alone, as if one state were all."""
    return jnp.exp(policy(params, trajectory.obs).log_prob(trajectory.action) - trajectory.log_prob)


def action_values(params: Any, obs: Any) -> Any:
    return jnp.cos(obs @ params["actor"])


def normal_policy(params: Any, obs: Any) -> Any:
    return pg.Normal(obs @ params["actor"][:, :1], 1.0)


def advantage(params: Any, obs: Any, action: Any) -> Any:
    return (obs @ params["critic"]) * jnp.cos(action[..., 0])


def bits_policy(params: Any, obs: Any) -> Any:
    return pg.Bernoulli(obs @ params["actor"][:, :FEATURES])


def bits_critic(obs: Any, action: Any) -> Any:
    """A value of two bits that is not the sum of its parts."""
    return obs.sum(-1) + action.prod(-1)


ESTIMATORS: dict[str, Callable[[Draw], Case]] = {
    "likelihood_ratio": lambda d: Case(
        (d.params(), d.trajectory()), {"discount": d.number(), "baseline": d.normal(T, B)}, {"policy": policy}
    ),
    "reinforce": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "step_weight": d.uniform(T, B), "mask": d.bools(T, B)},
        {"policy": policy, "baseline": pg.leave_one_out},
    ),
    "optimal_baseline_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"earned": d.normal(T, B), "mask": d.bools(T, B), "ridge": d.number()},
        {"policy": policy, "per_parameter": True},
        keeps_dtype=False,  # contributions have no loss: it is reported as NaN in float32
    ),
    "fit_optimal_baseline": lambda d: Case(
        (d.params(), d.trajectory()),
        {"earned": d.normal(T, B), "features": d.normal(T, B, 2), "weight": d.uniform(B)},
        {"policy": policy},
    ),
    "square_scores": lambda d: Case(
        (d.params(), d.trajectory()), static={"policy": policy, "cumulative": True}, smooth=False
    ),
    "scores_and_slopes": lambda d: Case((d.params(), d.trajectory()), static={"policy": policy, "value": value}),
    "accumulating_trace": lambda d: Case((tree(d, B), tree(d, B)), {"decay": d.uniform(B)}),
    "dutch_trace": lambda d: Case((tree(d, B), tree(d, B)), {"decay": d.uniform(B), "step_size": d.number()}),
    "trace_gradient": lambda d: Case((tree(d, B), tree(d, B)), {"td_error": d.normal(B), "value_change": d.normal(B)}),
    "gpomdp": lambda d: Case((d.params(), d.trajectory()), {"discount": d.number()}, {"policy": policy}),
    "dice": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "baseline": d.normal(T, B), "mask": d.bools(T, B)},
        {"policy": policy},
    ),
    "loaded_dice": lambda d: Case(
        (d.params(), d.trajectory()),
        {"advantage": d.normal(T, B), "dice_lam": d.number(), "step_weight": d.uniform(T, B)},
        {"policy": policy},
    ),
    "actor_critic": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "lam": d.number(), "value_coef": d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value},
    ),
    "vtrace_actor_critic": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "clip_rho": 1 + d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value},
    ),
    "acer": lambda d: Case(
        (d.params(), d.trajectory()),
        {"behaviour": pg.Categorical(d.normal(T, B, ACTIONS)), "discount": d.number(), "clip_rho": 1 + d.number()},
        {"policy": policy, "critic": action_values},
    ),
    "acer_continuous": lambda d: Case(
        (d.params(), d.trajectory().replace(action=d.normal(T, B, 1))),
        {
            "behaviour": pg.Normal(d.normal(T, B, 1), 1 + d.uniform(T, B, 1)),
            "noise": d.normal(2, T, B, 1),
            "discount": d.number(),
            "clip_rho": 1 + d.number(),
        },
        {"policy": normal_policy, "value": value, "critic": advantage},
    ),
    "project_to_halfspace": lambda d: Case((d.normal(T, B, FEATURES), d.normal(T, B, FEATURES)), {"bound": d.number()}),
    "n_step_actor_critic": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "value_coef": d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value, "n": 2},
    ),
    "upgo_actor_critic": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "lam": d.number(), "clip_pg_rho": 1 + d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value},
    ),
    "episode_ratio": lambda d: Case(  # a constant
        (d.params(), d.trajectory()), static={"policy": policy}, smooth=False
    ),
    "ppo": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "lam": d.number(), "clip": d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value},
    ),
    "ppo_objective": lambda d: Case(
        (d.params(), d.trajectory()),
        {"advantage": d.normal(T, B), "value_target": d.normal(T, B), "old_value": d.normal(T, B), "clip": d.number()},
        {"policy": policy, "value": value},
    ),
    "expected_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"step_weight": d.uniform(T, B)},
        {"policy": policy, "critic": critic, "rule": expectation.enumerated},
    ),
    "sampled_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"earned": d.normal(T, B), "mask": d.bools(T, B)},
        {"policy": policy, "rule": expectation.score_function},
    ),
    "control_variate": lambda d: Case(
        (d.params(), d.trajectory()),
        {"advantage": d.normal(T, B), "coefficient": d.number()},
        {"policy": policy, "critic": critic, "rule": expectation.enumerated},
    ),
    "interpolated_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"advantage": d.normal(T, B), "coefficient": d.number(), "share": d.number()},
        {"policy": policy, "critic": critic, "rule": expectation.enumerated},
    ),
    "doubly_robust_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "next_value": d.normal(T, B)},
        {"policy": policy, "critic": critic, "rule": expectation.enumerated},
    ),
    "efficient_off_policy_gradient": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "next_value": d.normal(T, B)},
        {"policy": policy, "density_ratio": density_ratio, "critic": critic, "rule": expectation.enumerated},
    ),
    "factorized_gradient": lambda d: Case(
        (d.params(), d.trajectory().replace(action=d.integers(2, T, B, FEATURES))),
        {"advantage": d.normal(T, B), "baseline": d.normal(T, B, FEATURES)},
        {"policy": bits_policy},
    ),
    "counterfactual_baseline": lambda d: Case(
        (pg.Bernoulli(d.normal(T, B, FEATURES)), d.trajectory().replace(action=d.integers(2, T, B, FEATURES))),
        static={"critic": bits_critic},
    ),
    "factor_log_probs": lambda d: Case(
        (pg.Bernoulli(d.normal(T, B, FEATURES)), d.trajectory().replace(action=d.integers(2, T, B, FEATURES)))
    ),
    "leave_one_out_covariance": lambda d: Case((d.normal(T, B), d.normal(T, B), d.bools(T, B))),
    "leave_one_out_coefficient": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "leave_one_out_control": lambda d: Case((tree(d, B), tree(d, B))),
    "single_sample_covariance": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "conservative_coefficient": lambda d: Case((d.normal(T, B),), smooth=False),
    "aggressive_coefficient": lambda d: Case((d.normal(T, B),), smooth=False),
    "action_distribution": lambda d: Case((d.params(), d.trajectory()), static={"policy": policy}),
    "log_prob_taken": lambda d: Case((pg.Categorical(d.normal(T, B, ACTIONS)), d.trajectory())),
}
