"""Example arguments of each public function of plain arrays, for the contract test and the docstring test."""

from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from contract_draws import ACTIONS, FEATURES, B, Case, Draw, T, tree, value
from contract_estimators import ESTIMATORS
from public_surface import functions

import pgjax as pg


def log_prior(params: Any) -> Any:
    return -sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params))


ENV, ENV_PARAMS = gymnax.make("CartPole-v1")


def cartpole_policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs[..., :2] * params)


def start(d: Draw) -> pg.RolloutState:
    return pg.init_rollout(d.key(), ENV, ENV_PARAMS, num_envs=B)


CASES: dict[str, Callable[[Draw], Case]] = {
    # returns
    "affine_recurrence": lambda d: Case((d.normal(T, B), d.uniform(T, B)), {"initial": d.normal(B)}),
    "discount_weight": lambda d: Case((d.integers(T, T, B), d.number()), smooth=False),
    "discounted_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), d.ends()),
    "n_step_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), d.ends(), {"n": 3}),
    "lambda_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), {**d.ends(), "lam": d.number()}),
    "gae": lambda d: Case((d.normal(T, B), d.normal(T, B), d.normal(T, B)), {**d.ends(), "lam": d.number()}),
    "vtrace": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)),
        {**d.ends(), "log_ratio": d.normal(T, B), "lam": d.number(), "clip_rho": 1 + d.number()},
    ),
    "retrace": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)),
        {**d.ends(), "log_ratio": d.normal(T, B), "lam": d.number()},
    ),
    "emphatic_weight": lambda d: Case(
        (d.normal(T, B),), {**d.ends(), "interest": d.uniform(T, B), "lam": d.number(), "initial": d.normal(B)}
    ),
    "doubly_robust_returns": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)),
        {**d.ends(), "log_ratio": d.normal(T, B), "next_value": d.normal(T, B)},
    ),
    "upgo": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)), {**d.ends(), "next_action_value": d.normal(T, B)}
    ),
    "bootstrap_values": lambda d: Case((d.params(), d.trajectory()), static={"value": value}),
    "fold": lambda d: Case(  # whole numbers as observations, which come out as they went in
        (d.trajectory().replace(obs=d.integers(9, T, B), next_obs=d.integers(9, T, B)),), {"discount": d.number()}
    ),
    # baselines
    "leave_one_out": lambda d: Case((d.normal(T, B), d.bools(T, B))),
    "batch_mean": lambda d: Case((d.normal(T, B),)),
    "grpo_advantages": lambda d: Case((d.normal(T, B), 1 + d.uniform(T, B)), {"eps": d.number()}, smooth=False),
    "optimal_baseline": lambda d: Case((d.normal(T, B), d.uniform(T, B)), static={"num_folds": 2}),
    "step_baseline": lambda d: Case((d.normal(T, B), d.integers(2, T, B), d.uniform(T, B))),
    "time_features": lambda d: Case((d.normal(T, B, FEATURES), d.integers(T, T, B))),
    "fit_linear_baseline": lambda d: Case((d.normal(T, B, 2), d.normal(T, B), d.uniform(T, B)), {"ridge": d.number()}),
    "linear_baseline": lambda d: Case((d.normal(T, B, FEATURES), d.normal(FEATURES)), smooth=False),
    "cross_fitted_baseline": lambda d: Case(
        (d.normal(T, B, 2), d.normal(T, B), d.uniform(T, B)), {"ridge": d.number()}, smooth=False
    ),
    "greedy_baseline": lambda d: Case(
        (d.key(), d.normal(), start(d)),
        {"discount": d.number()},
        {"policy": cartpole_policy, "env": ENV, "env_params": ENV_PARAMS, "num_steps": 2},
        keeps_dtype=False,
        smooth=False,
    ),
    "init_value_scale": lambda d: Case(keeps_dtype=False, smooth=False),
    "update_value_scale": lambda d: Case(
        (pg.init_value_scale(), d.normal(T, B)), {"decay": d.number()}, keeps_dtype=False, smooth=False
    ),
    "normalize_value": lambda d: Case(
        (pg.update_value_scale(pg.init_value_scale(), d.normal(B)), d.normal(T, B)), keeps_dtype=False
    ),
    "denormalize_value": lambda d: Case(
        (pg.update_value_scale(pg.init_value_scale(), d.normal(B)), d.normal(T, B)), keeps_dtype=False
    ),
    "rescale_value_head": lambda d: Case(
        (
            {"kernel": d.params()["actor"], "bias": d.params()["actor"][0]},
            pg.init_value_scale(),
            pg.update_value_scale(pg.init_value_scale(), d.normal(B)),
        ),
        keeps_dtype=False,
    ),
    "init_moving_mean": lambda d: Case(keeps_dtype=False, smooth=False),
    "moving_mean": lambda d: Case((pg.update_moving_mean(pg.init_moving_mean(), d.normal(B)),), keeps_dtype=False),
    "update_moving_mean": lambda d: Case(
        (pg.init_moving_mean(), d.normal(T, B)), {"decay": d.number()}, keeps_dtype=False, smooth=False
    ),
    "value_baseline": lambda d: Case((d.params(), d.trajectory()), static={"value": value}),
    # losses
    "policy_gradient_loss": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "ppo_clip_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"clip": d.number(), "clip_upper": d.number()}),
    "importance_weighted_loss": lambda d: Case(
        (d.normal(T, B), d.normal(T, B)), {"lower": d.number(), "upper": 1 + d.number()}
    ),
    "spo_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"clip": d.number()}),
    "discovered_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"alpha": d.number(), "beta": d.number()}),
    "sequence_log_ratio": lambda d: Case((d.normal(T, B), d.bools(T, B))),
    "kl_penalty_loss": lambda d: Case(
        (d.normal(T, B), d.normal(T, B)), {"kl": d.uniform(T, B), "coefficient": d.number()}
    ),
    "kl_k1": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "kl_k2": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "kl_k3": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "value_loss": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "clipped_value_loss": lambda d: Case(
        (d.normal(T, B), d.normal(T, B)), {"old_value": d.normal(T, B), "clip": d.number()}
    ),
    "entropy_loss": lambda d: Case((d.uniform(T, B),)),
    "policy_inference_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"coefficient": d.number()}),
    "masked_mean": lambda d: Case((d.normal(T, B), d.bools(T, B))),
    "sequence_mean": lambda d: Case((d.normal(T, B), d.bools(T, B)), {"length": 1 + d.number()}),
    "exponential_weight": lambda d: Case((d.normal(T, B),), {"temperature": d.number(), "max_weight": 1 + d.number()}),
    "binary_weight": lambda d: Case((d.normal(T, B),)),
    "softmax_weight": lambda d: Case((d.normal(T, B), d.bools(T, B)), {"temperature": d.number()}),
    "top_half": lambda d: Case((d.normal(T, B), d.bools(T, B)), smooth=False),
    "preference_weight": lambda d: Case((d.bools(T, B), d.bools(T, B)), {"balance": d.uniform()}, smooth=False),
    "softmax_temperature_loss": lambda d: Case(
        (d.normal(T, B), d.bools(T, B)), {"temperature": d.uniform(), "max_kl": d.number()}
    ),
    "adapt_kl_coefficient": lambda d: Case(
        (d.uniform(T, B), d.uniform(T, B)), {"target": d.number(), "factor": 1 + d.number()}, smooth=False
    ),
    "kl_constraint_loss": lambda d: Case((d.uniform(T, B),), {"multiplier": d.number(), "max_kl": d.number()}),
    "td_target": lambda d: Case((d.transition(), d.normal(2, B))),
    "clipped_double_q": lambda d: Case((d.normal(2, T, B),)),
    "stochastic_duelling": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"of_draws": d.normal(2, T, B)}),
    "soft_value": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"temperature": d.number()}),
    "expected_soft_value": lambda d: Case(
        (d.normal(T, B, ACTIONS), d.normal(2, T, B, ACTIONS)), {"temperature": d.number()}
    ),
    "soft_policy_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"temperature": d.number()}),
    "temperature_loss": lambda d: Case((d.uniform(), d.normal(T, B)), {"target_entropy": d.number()}),
    "project_categorical": lambda d: Case((d.uniform(T, 2), d.normal(T, 2)), {"atoms": d.increasing(ACTIONS)}),
    "categorical_target": lambda d: Case((d.transition(), d.uniform(2, B, ACTIONS)), {"atoms": d.increasing(ACTIONS)}),
    "categorical_loss": lambda d: Case((d.normal(2, T, ACTIONS), d.uniform(T, ACTIONS))),
    "categorical_value": lambda d: Case((d.normal(T, ACTIONS),), {"atoms": d.increasing(ACTIONS)}),
    "quantile_loss": lambda d: Case((d.normal(2, T, ACTIONS), d.normal(T, 2)), {"kappa": d.number()}),
    "hl_gauss_target": lambda d: Case((d.normal(T, B),), {"edges": d.increasing(ACTIONS + 1), "sigma": d.number()}),
    "standardize": lambda d: Case((d.normal(T, B), d.bools(T, B)), {"eps": d.number()}),
    **ESTIMATORS,
    # distributions
    "log_prob_of": lambda d: Case((pg.Categorical(d.normal(T, B, ACTIONS)), d.integers(ACTIONS, T, B))),
    # expectation
    "expectation.gradient_only": lambda d: Case((d.normal(T, B),)),
    # rollout: the environment computes in float32 whatever the parameters are
    "repeat_states": lambda d: Case((start(d),), static={"num_repeats": 2}, keeps_dtype=False, smooth=False),
    "as_groups": lambda d: Case((d.normal(T, B),), static={"num_repeats": B}),
    "init_rollout": lambda d: Case((d.key(), ENV, ENV_PARAMS), static={"num_envs": B}, keeps_dtype=False, smooth=False),
    "rollout": lambda d: Case(
        (d.key(), d.normal(), start(d)),
        static={"policy": cartpole_policy, "env": ENV, "env_params": ENV_PARAMS, "num_steps": 2},
        keeps_dtype=False,
        smooth=False,
    ),
    # minibatch
    "permutation": lambda d: Case((d.key(),), static={"size": 11}, smooth=False),
    # diagnostics
    "diagnostics.approximate_kl": lambda d: Case((d.normal(T, B),)),
    "diagnostics.bound_fraction": lambda d: Case((d.normal(T, B),), smooth=False),
    "diagnostics.lost_gradient_fraction": lambda d: Case((d.normal(T, B), d.normal(T, B)), smooth=False),
    "diagnostics.clip_fraction": lambda d: Case((d.normal(T, B),), {"clip": d.number()}),
    "diagnostics.cosine": lambda d: Case((tree(d), tree(d))),
    "diagnostics.effective_sample_size": lambda d: Case((d.normal(T, B),)),
    "diagnostics.explained_variance": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "diagnostics.gradient_variance": lambda d: Case((tree(d, B),)),
    "diagnostics.pairwise_cosine": lambda d: Case((tree(d, B),)),
    "diagnostics.signal_to_noise": lambda d: Case((tree(d, B),)),
    # stein
    "exploration.ornstein_uhlenbeck": lambda d: Case(
        (d.key(), d.normal(B, FEATURES)), {"theta": d.number(), "restart": d.bools(B)}, {"num_steps": T}
    ),
    "exploration.smooth_action": lambda d: Case((d.key(), d.uniform(B, FEATURES)), {"scale": d.number()}),
    "median_bandwidth": lambda d: Case((tree(d, B),)),
    "svgd_direction": lambda d: Case(
        (tree(d, B), tree(d, B)), {"temperature": d.number(), "bandwidth": 1 + d.number()}, {"log_prior": log_prior}
    ),
}

DISTRIBUTIONS: dict[str, Callable[[Draw], Any]] = {
    "Bernoulli": lambda d: pg.Bernoulli(d.normal(B, ACTIONS)),
    "Beta": lambda d: pg.Beta(1 + d.uniform(B, 2), 1 + d.uniform(B, 2)),
    "Categorical": lambda d: pg.Categorical(d.normal(B, ACTIONS)),
    "MultiCategorical": lambda d: pg.MultiCategorical((d.normal(B, ACTIONS), d.normal(B, 2))),
    "OneHotCategorical": lambda d: pg.OneHotCategorical(d.normal(B, ACTIONS)),
    "Normal": lambda d: pg.Normal(d.normal(B, 2), d.uniform(B, 2)),
    "TanhNormal": lambda d: pg.TanhNormal(d.normal(B, 2), d.uniform(B, 2)),
}


def static_positions(case: Case) -> set[int]:
    """Positional arguments that are no pytree of arrays, such as an environment."""
    return {i for i, x in enumerate(case.args) if x is ENV or x is ENV_PARAMS}


def split(case: Case) -> tuple[Any, Callable[[Any], Any]]:
    """What varies from draw to draw, and a function that puts it back among the arguments."""
    fixed = static_positions(case)
    dynamic = ([x for i, x in enumerate(case.args) if i not in fixed], case.kwargs)

    def arguments(dynamic: Any) -> tuple[list[Any], dict[str, Any]]:
        moving = iter(dynamic[0])
        return [x if i in fixed else next(moving) for i, x in enumerate(case.args)], dynamic[1]

    return dynamic, arguments


def caller(name: str, case: Case) -> Callable[[Any], Any]:
    """The function of one pytree, its varying arguments."""
    function, (_, arguments) = functions()[name], split(case)

    def call(dynamic: Any) -> Any:
        args, kwargs = arguments(dynamic)
        return function(*args, **kwargs, **case.static)

    return call


def result_shapes(name: str, case: Case) -> Any:
    """The result of a function as shapes and dtypes, without running it."""
    return jax.eval_shape(caller(name, case), split(case)[0])
