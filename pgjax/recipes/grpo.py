"""Policy gradients that compare episodes from one start state: RLOO, GRPO, Dr. GRPO, ReMax. No critic.

Ahmadian et al. (2024); Shao et al. (2024); Liu et al. (2025); Li et al. (2023).
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax._checks import as_positive_int
from pgjax.recipes.acting import as_functions, swap_time
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.minibatches import minibatch_step
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor

Advantage = Literal["rloo", "grpo", "dr_grpo", "remax"]


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 1.0  # γ, per environment step, counted from the start of the episode
    clip: Number = 0.2  # ε of the ratio
    kl_coef: Number = 0.0  # β, weight of the divergence from the reference, where one is given
    max_grad_norm: Number = 1.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    opt_state: Any
    rollout: pg.RolloutState  # where the last window ended; the next one starts anew
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 512,
    total_steps: int = 2**20,
    group_size: int = 8,
    advantage: Advantage = "rloo",
    num_epochs: int = 2,
    num_minibatches: int = 4,
    reference: Any = None,
    model: Any = None,
    policy: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
) -> Recipe:
    """Make a run without a critic: groups of whole episodes from one start state, one number for each episode.

        minimise mean of -Σ_t min(ρ_t A, clip(ρ_t, 1-ε, 1+ε) A) + β Σ_t k3_t,   ρ = π(a|s) / π_old(a|s)
        rloo: A_i = R_i - mean of the others      dr_grpo: A_i = R_i - mean
        grpo: A_i = (R_i - mean) / deviation      remax: A_i = R_i - what the mode of the policy earns

    Each window starts new episodes, and only the first of each environment counts, R = Σ_t γ^t r_t; grpo takes the mean
    over the steps of an episode in place of their sum, as it was published. With one epoch and one minibatch the
    gradient of rloo and of remax is unbiased for the discounted objective; grpo's deviation and its mean over steps
    are biases, and dr_grpo's shrinks it to (N-1)/N.

    Args:
        As `reinforce.make_train`, and:
        num_steps: T, environment steps in each window, which should span whole episodes: what comes later is not seen.
        group_size: N, environments that share a start state; must divide num_envs. Rows of env_params must be alike in
            a group. Of remax, which plays one more window, it may be 1.
        advantage: which A.
        num_epochs: passes over each window.
        num_minibatches: minibatches of whole episodes in each pass; must divide num_envs.
        reference: parameters of a policy to stay near to, by the estimate k3 of the divergence from single actions;
            None leaves it out.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). `equal_groups` is the share of groups whose
        returns are all equal, from which nothing is learned.

    Raises:
        ValueError: if advantage is none of these, if group_size does not divide num_envs, or is 1 without remax.

    References:
        Ahmadian et al. (2024), Back to basics: revisiting REINFORCE-style optimization for learning from human feedback
        in LLMs.
        Shao et al. (2024), DeepSeekMath: pushing the limits of mathematical reasoning in open language models.
        Liu et al. (2025), Understanding R1-Zero-like training: a critical perspective.
        Li et al. (2023), ReMax: a simple, effective, and efficient reinforcement learning method for aligning large
        language models.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    if advantage not in get_args(Advantage):
        raise ValueError(f"advantage must be one of {', '.join(get_args(Advantage))}, got {advantage!r}.")
    if as_positive_int("group_size", group_size) == 1 and advantage != "remax":
        raise ValueError(f'advantage="{advantage}" compares members of a group: group_size must be at least 2, got 1.')
    if num_envs % group_size:
        raise ValueError(f"group_size must divide num_envs={num_envs}, got {group_size}. Choose a divisor of it.")
    require_divisor("num_minibatches", num_minibatches, num_envs)
    policy, _, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, init_params=init_params,
        policy_state=policy_state, critic=False,
    )  # fmt: skip

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def restarted(key: Array) -> pg.RolloutState:
        """Start an episode in each environment, the same in all members of a group."""
        each = pg.init_rollout(key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        return pg.repeat_states(jax.tree.map(lambda x: x[::group_size], each), num_repeats=group_size)

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = restarted(env_key)
        params = init_params(model_key, rollout.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        return State(params, optimizer(numbers, 0.0).init(params), rollout, key, jnp.int32(0), numbers)

    def advantages(key: Array, params: Any, start: pg.RolloutState, returns: Array, discount: Number) -> Array:
        """A of each member of each group, [G, N, ...] with the agents last."""
        if advantage == "grpo":
            return pg.grpo_advantages(returns, axis=1)
        if advantage == "remax":
            arguments = {"policy": policy, "env": env, "env_params": env_params, "num_steps": num_steps}
            greedy = pg.greedy_baseline(key, params, start, discount=discount, **arguments)
            return returns - pg.as_groups(greedy, num_repeats=group_size, axis=0)
        return returns - (pg.leave_one_out if advantage == "rloo" else pg.batch_mean)(returns, axis=1)

    def loss(params: Any, minibatch: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, weight, counts, ref_log_prob = swap_time(data)
        distribution = pg.action_distribution(params, trajectory, policy=policy, state=start)
        log_prob = pg.log_prob_taken(distribution, trajectory)
        log_ratio = log_prob - trajectory.log_prob
        each = pg.ppo_clip_loss(log_ratio, weight, clip=hyper.clip)
        far = (jnp.abs(jnp.expm1(log_ratio)) > hyper.clip).astype(each.dtype)
        metrics = {
            "policy_loss": each, "entropy": distribution.entropy(), "clip_fraction": far,
            "kl": pg.kl_k3(trajectory.log_prob, log_prob),
        }  # fmt: skip
        if reference is not None:
            metrics["reference_kl"] = pg.kl_k3(log_prob, ref_log_prob)
            each += hyper.kl_coef * metrics["reference_kl"]
        total = pg.sequence_mean(each, counts, length=None if advantage == "grpo" else 1.0)
        return total, {"loss": total} | {name: pg.masked_mean(x, counts) for name, x in metrics.items()}

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, start_key, shuffle_key, greedy_key) = state.hyper, jax.random.split(state.key, 5)
        start = restarted(start_key)
        rollout, trajectory = pg.rollout(
            act_key, state.params, start, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        returns = pg.discounted_returns(
            trajectory.reward, terminated=trajectory.terminated, truncated=trajectory.truncated, discount=hyper.discount
        )[0]
        groups = pg.as_groups(returns, num_repeats=group_size, axis=0)
        weight = advantages(greedy_key, state.params, start, groups, hyper.discount).reshape(returns.shape)
        passed = jnp.arange(num_steps).reshape(-1, *(1,) * returns.ndim)
        counts = trajectory.step == passed  # the first episode of each environment
        ref_log_prob = None
        if reference is not None:
            distribution = pg.action_distribution(reference, trajectory, policy=policy, state=start)
            ref_log_prob = pg.log_prob_taken(distribution, trajectory)
        descend = minibatch_step(loss, optimizer(hyper, state.update / num_updates), hyper)
        rows = swap_time((trajectory, jnp.broadcast_to(weight, counts.shape), counts, ref_log_prob))
        (params, opt_state), metrics = pg.epochs(
            shuffle_key, (state.params, state.opt_state), (*rows, start), step=descend, num_axes=1,
            num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        metrics["equal_groups"] = jnp.mean(jnp.ptp(groups, axis=1) == 0, dtype=jnp.float32)
        return State(params, opt_state, rollout, key, state.update + 1, hyper), metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy)
