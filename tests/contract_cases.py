"""Example arguments of each public function of plain arrays, for the contract test and the docstring test."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from public_surface import functions

import pgjax as pg
from pgjax import expectation

T, B, FEATURES, ACTIONS = 5, 3, 2, 4


class Case(NamedTuple):
    """Example arguments of one function. Arrays and numbers differ from draw to draw, `static` does not."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  nobody writes to it
    static: dict[str, Any] = {}  # noqa: RUF012
    keeps_dtype: bool = True  # False where the docstring promises float32 whatever comes in
    smooth: bool = True  # whether gradients with respect to the floating arguments make sense


class Draw:
    """Random arguments of a given floating dtype."""

    def __init__(self, seed: int, dtype: Any = jnp.float32):
        self.random = np.random.default_rng(seed)
        self.dtype = dtype

    def normal(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.normal(size=shape), self.dtype)

    def uniform(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.uniform(0.1, 0.9, size=shape), self.dtype)

    def increasing(self, size: int) -> jax.Array:
        return jnp.arange(size, dtype=self.dtype) - 1 + self.uniform(size) / 4

    def bools(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.random(shape) < 0.3)

    def integers(self, below: int, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.integers(below, size=shape), jnp.int32)

    def number(self) -> float:
        """A Python number in [0, 1], which must not be compiled in."""
        return float(self.random.uniform(0.1, 0.9))

    def key(self) -> jax.Array:
        return jax.random.key(int(self.random.integers(1 << 30)))

    def ends(self) -> dict[str, Any]:
        return {"terminated": self.bools(T, B), "truncated": self.bools(T, B), "discount": self.number()}

    def trajectory(self) -> pg.Trajectory:
        return pg.Trajectory(
            obs=self.normal(T, B, FEATURES),
            action=self.integers(ACTIONS, T, B),
            reward=self.normal(T, B),
            next_obs=self.normal(T, B, FEATURES),
            terminated=self.bools(T, B),
            truncated=self.bools(T, B),
            log_prob=self.normal(T, B),
            step=self.integers(T, T, B),
        )

    def transition(self) -> pg.Transition:
        return pg.Transition(
            obs=self.normal(B, FEATURES),
            action=self.integers(ACTIONS, B),
            reward=self.normal(B),
            discount=self.uniform(B),
            next_obs=self.normal(B, FEATURES),
        )

    def params(self) -> dict[str, jax.Array]:
        # Parameters stay in at least float32: the gradient has the dtype of the parameters.
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return {"actor": self.normal(FEATURES, ACTIONS).astype(dtype), "critic": self.normal(FEATURES).astype(dtype)}


def log_prior(params: Any) -> Any:
    return -sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(params))


def policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs @ params["actor"])


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


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


ENV, ENV_PARAMS = gymnax.make("CartPole-v1")


def cartpole_policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs[..., :2] * params)


def start(d: Draw) -> pg.RolloutState:
    return pg.init_rollout(d.key(), ENV, ENV_PARAMS, num_envs=B)


def tree(d: Draw, *lead: int) -> dict[str, jax.Array]:
    return {"w": d.normal(*lead, 2, 2), "b": d.normal(*lead, 2)}


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
    # estimators
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
