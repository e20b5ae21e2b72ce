"""Whole gradients, made of rollouts, returns, baselines and losses.

The body of an estimator says what is minimised: a loss for each step, and the constants in it. `estimator`
turns the body into a function that returns (gradient, info), and gives it a second form, `per_trajectory`, that returns
what each trajectory contributes before the mean. The gradient is a descent direction and goes straight into optax.

Every estimator sums over time and averages over the batch axes. A column of the batch is one trajectory.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.tree_util import Partial

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import log_prob_of
from pgjax.losses import entropy_loss, policy_gradient_loss, value_loss
from pgjax.returns import affine_recurrence, bootstrap_values, discount_weight, discounted_returns, gae
from pgjax.rollout import apply_policy, unroll_policy

Array = jax.Array
Baseline = Array | float | Callable[[Array], Array]


class Surrogate(NamedTuple):
    """What an estimator minimises: the gradient of the sum over time and mean over the batch of loss."""

    loss: Callable[[Params, Trajectory, Any, Any], Array]  # (params, trajectory, targets, state) -> [T, ...]
    targets: Any  # constants of the loss, leaves [T, B, ...]
    mask: Array | None = None  # [T, B] bool, steps that count
    state: RolloutState | None = None  # leaves [B, ...], where a recurrent policy starts


@struct.dataclass
class GradientInfo:
    """What an estimator saw on the way."""

    loss: Array  # scalar: only its gradient has a meaning
    grad_norm: Array  # scalar, Euclidean norm of the whole gradient
    num_nonfinite: Array  # scalar int32, entries of the gradient that are NaN or infinite
    targets: Any  # the constants of the loss, leaves [T, B, ...]


class Estimator:
    """A gradient estimator: call it for (gradient, info), or its `per_trajectory` for what each trajectory adds."""

    def __init__(self, surrogate: Callable[..., Surrogate], static: tuple[str, ...], unit: tuple[str, ...]):
        functools.update_wrapper(self, surrogate)
        names = tuple(inspect.signature(surrogate).parameters)
        if names[:2] != ("params", "trajectory"):
            raise TypeError(
                f"an estimator must take (params, trajectory, *, ...), {surrogate.__name__} takes {', '.join(names)}."
            )

        def mean(params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
            form = _form(surrogate, params, trajectory, kwargs)
            batch_size = max(trajectory.reward[0].size, 1)

            def total(params: Params) -> Array:
                return _total(form, params, trajectory) / batch_size

            loss, grads = jax.value_and_grad(total)(params)
            return grads, _info(loss, grads, form.targets)

        def each(params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
            form = _form(surrogate, params, trajectory, kwargs)

            def one(trajectory: Trajectory, targets: Any, mask: Any, state: Any) -> tuple[Array, Params]:
                column = Surrogate(form.loss, targets, mask, state)
                return jax.value_and_grad(lambda params: _total(column, params, trajectory))(params)

            for _ in trajectory.reward.shape[1:]:
                one = jax.vmap(one, in_axes=(1, 1, 1, 0))
            loss, grads = one(trajectory, form.targets, form.mask, form.state)
            return grads, _info(loss, grads, form.targets)

        static = (*static, *(name for name in ("policy", "value") if name in names and name not in static))
        self._defaults = {n: p.default for n, p in inspect.signature(surrogate).parameters.items()}
        self._mean = compiled(*static, unit_interval=unit)(mean)
        self._each = compiled(*static, unit_interval=unit)(each)

    def __call__(self, params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
        return self._mean(params, trajectory, **self._prepare(kwargs))

    def _prepare(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out numbers that equal their default, so that a 0 stays one, and let a baseline be a function."""
        left_out = {n for n, x in kwargs.items() if type(x) in (int, float) and x == self._defaults.get(n)}
        kwargs = {name: x for name, x in kwargs.items() if name not in left_out}
        baseline = kwargs.get("baseline")
        # Wrapped, a function is a pytree without leaves, and jit takes it as well as an array.
        wrap = callable(baseline) and not isinstance(baseline, Partial)
        return {**kwargs, "baseline": Partial(baseline)} if wrap else kwargs

    def per_trajectory(self, params: Params, trajectory: Trajectory, **kwargs: Any) -> tuple[Params, GradientInfo]:
        """Return the gradient that each trajectory contributes: leaves [B, ...], whose mean is the estimate.

        Shapes: trajectory leaves [T, B, ...]; gradient leaves [B, ...].

        Args:
            params: parameters to differentiate with respect to.
            trajectory: the window; each column is one trajectory.
            **kwargs: as for the estimator itself.

        Returns:
            The contributions, a pytree like params with leading batch axes, and the info, whose loss, grad_norm and
            num_nonfinite are [B].

        Raises:
            TypeError: as the estimator itself.
            ValueError: as the estimator itself.
        """
        return self._each(params, trajectory, **self._prepare(kwargs))


def estimator(*static: str, unit_interval: tuple[str, ...] = ()) -> Callable[[Callable[..., Surrogate]], Estimator]:
    """Return a decorator that turns a function returning a `Surrogate` into an estimator.

    The decorated function takes (params, trajectory, *, ...) and returns what is minimised; the estimator takes the
    same arguments and returns (gradient, info). `policy` and `value` are static by their names.

    Args:
        *static: names of further arguments that select the program.
        unit_interval: names of arguments that must lie in [0, 1] when they come as numbers.

    Returns:
        The decorator.

    Raises:
        TypeError: if a name is not a string; by the decorator, if a function does not take (params, trajectory) first.
    """
    if not all(isinstance(name, str) for name in static):
        raise TypeError(f"static must be names of arguments, got {static}. Write @estimator() with parentheses.")
    return lambda surrogate: Estimator(surrogate, static, unit_interval)


@estimator(unit_interval=("discount",))
def reinforce(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    step_weight: Array | None = None,
    next_value: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by REINFORCE with reward-to-go: a descent direction.

        g = -1/B Σ_b Σ_t w_t (G_t - b_t) ∇log π(a_t|s_t),   G_t = r_t + γ G_{t+1} within the episode

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        baseline: b, subtracted from the return: a scalar, an array [T, B], or a function of the returns [T, B],
            such as `leave_one_out`, compiled once for each function object; constant in the gradient. None
            subtracts nothing.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        next_value: [T, B] values to bootstrap from where an episode or the window is cut; None means 0.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        With whole episodes and w_t = γ^t unbiased for the discounted objective; with γ = 1 unbiased for the
        undiscounted one; with γ < 1 and w = 1, as in most practice, unbiased for neither. A baseline that does not
        depend on the own action keeps the mean. One backward pass; `per_trajectory` needs B times the memory of the
        parameters.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.reinforce(1.0, trajectory, policy=policy, discount=0.99, baseline=pg.leave_one_out)
        >>> grads.shape, int(info.num_nonfinite)
        ((), 0)

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.3.
    """
    returns = discounted_returns(
        trajectory.reward,
        next_value,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        discount=discount,
    )
    weight = _weighted(returns - _baseline(baseline, returns), step_weight)
    return Surrogate(_score_loss(policy), weight, mask, state)


@estimator(unit_interval=("discount",))
def likelihood_ratio(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by the likelihood ratio of whole trajectories: a descent direction.

        g = -1/B Σ_b (R_b - b) Σ_t ∇log π(a_t|s_t),   R = Σ_t γ^t r_t of the episode

    The dynamics and the start distribution drop out of the score of a trajectory.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column holds whole episodes. Of an episode that began before the window only
            the rewards inside the window are counted.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B] and equal within an episode, in [0, 1], per environment step, counted from the
            start of the episode.
        baseline: b: a scalar, an array [T, B], or a function of the total returns [T, B]. None subtracts nothing.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes. The member of its family with usually the highest
        variance; it grows with the length of the episode.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.likelihood_ratio(1.0, trajectory, policy=policy, discount=0.99)
        >>> info.targets.shape
        (8, 4)

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Mohamed, Rosca, Figurnov and Mnih (2020), Monte Carlo gradient estimation in machine learning.
    """
    reward, carry = _discounted_reward(trajectory, discount)
    to_go = affine_recurrence(reward, carry)
    # What was earned before step t in the same episode: yesterday's sum, cut where yesterday ended an episode.
    shifted_reward = jnp.concatenate([jnp.zeros_like(reward[:1]), reward[:-1] * carry[:-1]])
    shifted_carry = jnp.concatenate([jnp.zeros_like(carry[:1]), carry[:-1]])
    so_far = affine_recurrence(shifted_reward, shifted_carry, reverse=False)
    total = so_far + to_go
    return Surrogate(_score_loss(policy), total - _baseline(baseline, total), mask, state)


@estimator(unit_interval=("discount",))
def gpomdp(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by GPOMDP, each reward times the scores before it: a descent direction.

        g = -1/B Σ_b Σ_l (γ^l r_l - b_l) Σ_{t<=l} ∇log π(a_t|s_t)

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B] and equal within an episode, in [0, 1], per environment step, counted from the
            start of the episode.
        baseline: b_l, one for each *reward*: a scalar, an array [T, B], or a function of γ^l r_l [T, B], such as
            `leave_one_out`. It may depend on l and on other trajectories, not on s_l, which earlier actions led to.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes. Without a baseline it is, trajectory by
        trajectory, `reinforce` with the weight γ^t.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.gpomdp(1.0, trajectory, policy=policy, discount=0.99)
        >>> grads.shape
        ()

    References:
        Baxter and Bartlett (2001), Infinite-horizon policy-gradient estimation.
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    reward, carry = _discounted_reward(trajectory, discount)
    weight = affine_recurrence(reward - _baseline(baseline, reward), carry)
    return Surrogate(_score_loss(policy), weight, mask, state)


@estimator(unit_interval=("discount", "lam"))
def actor_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float = 0.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
) -> Surrogate:
    """Estimate the gradient of an actor and a critic together from one window: a descent direction.

        L = -1/B Σ_b Σ_t [w_t stop(A_t) log π(a_t|s_t) - c_v ½ (V(s_t) - stop(A_t + v_t))² + c_e H(π(·|s_t))]

    with A the generalised advantage estimate. λ = 1 gives the advantage actor-critic, λ = 0 the one-step one.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the value function, shared or side by side in one pytree.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        value: value(params, obs) -> [...] float, reward units; static.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ, scalar or [T, B], in [0, 1].
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; 0 asks for no entropy.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B].

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        The actor's part is unbiased for the discounted objective with whole episodes, λ = 1 and w = γ^t, for any value
        function; with λ < 1 it is biased unless V is exact. The critic's part is a semi-gradient. An entropy
        bonus changes the objective. Truncated episodes are bootstrapped from their true last observation.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> value = lambda params, obs: params * obs[..., 0]
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.actor_critic(1.0, trajectory, policy=policy, value=value, discount=0.99, lam=0.95)
        >>> info.targets["advantage"].shape
        (8, 4)

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
        Schulman et al. (2016), High-dimensional continuous control using generalized advantage estimation, eq. 16.
    """
    values, next_values = bootstrap_values(params, trajectory, value=value, last_obs=last_obs)
    advantage = gae(
        trajectory.reward,
        values,
        next_values,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        discount=discount,
        lam=lam,
    )
    targets = {
        "advantage": advantage,
        "weight": _weighted(advantage, step_weight),
        "value_target": advantage + values,
    }
    entropy_wanted = not (isinstance(entropy_coef, (int, float)) and entropy_coef == 0)

    def loss(params: Params, trajectory: Trajectory, targets: Any, state: Any) -> Array:
        distribution = apply_policy(policy, params, trajectory.obs, None)[0]
        total = policy_gradient_loss(_log_prob(distribution, trajectory), targets["weight"])
        total += value_coef * value_loss(value(params, trajectory.obs), targets["value_target"])
        return total + entropy_coef * entropy_loss(distribution.entropy()) if entropy_wanted else total

    return Surrogate(loss, targets, mask)


def _score_loss(policy: Policy) -> Callable[[Params, Trajectory, Any, Any], Array]:
    def loss(params: Params, trajectory: Trajectory, weight: Array, state: RolloutState | None) -> Array:
        if state is None:
            distribution = apply_policy(policy, params, trajectory.obs, None)[0]
        else:
            distribution, _ = unroll_policy(
                params, trajectory, state.policy_state, policy=policy, start_policy_state=state.start_policy_state
            )
        return policy_gradient_loss(_log_prob(distribution, trajectory), weight)

    return loss


def _log_prob(distribution: Any, trajectory: Trajectory) -> Array:
    log_prob = log_prob_of(distribution, trajectory.action, trajectory.raw_action)
    _checks.same_shape("trajectory.reward", trajectory.reward.shape, **{"the policy's log_prob": log_prob})
    return log_prob


def _discounted_reward(trajectory: Trajectory, discount: Array | float) -> tuple[Array, Array]:
    """γ^t r_t, and the mask that carries a sum over time within an episode."""
    reward = trajectory.reward * discount_weight(trajectory.step, discount)
    return reward, 1.0 - trajectory.done.astype(reward.dtype)


def _baseline(baseline: Any, returns: Array) -> Array | float:
    if baseline is None:
        return 0.0
    if not callable(baseline):
        return _checks.broadcastable("baseline", baseline, returns.shape)
    # A function always sees [T, B]: a mean over the last axis must never run over time.
    batch = jax.lax.stop_gradient(returns if returns.ndim > 1 else returns[:, None])
    value = _checks.broadcastable("the result of baseline(return_)", baseline(batch), batch.shape)
    return value.reshape(returns.shape) if value.ndim else value


def _weighted(advantage: Array, step_weight: Array | None) -> Array:
    if step_weight is None:
        return advantage
    return advantage * _checks.broadcastable("step_weight", step_weight, advantage.shape)


def _form(surrogate: Callable[..., Surrogate], params: Params, trajectory: Trajectory, kwargs: Any) -> Surrogate:
    """What is minimised, its targets made constants."""
    remedy = "Estimators take (params, trajectory), in this order."
    _checks.instance("trajectory", trajectory, Trajectory, remedy=remedy)
    reward = _checks.floating("trajectory.reward", trajectory.reward, ndim_at_least=1)
    _checks.boolean("trajectory.terminated", trajectory.terminated, like=reward)
    _checks.boolean("trajectory.truncated", trajectory.truncated, like=reward)
    form = surrogate(params, trajectory, **kwargs)
    _checks.instance(f"the result of {surrogate.__name__}", form, Surrogate, remedy="Return Surrogate(loss, targets).")
    targets = jax.lax.stop_gradient(form.targets)
    if form.mask is None:
        return form._replace(targets=targets)
    mask = _checks.boolean("mask", form.mask, like=reward)
    # Zero times NaN is NaN: what does not count must be finite before it meets a gradient of 0.
    finite = lambda x: jnp.where(mask, x, 0) if x.shape == mask.shape else x  # noqa: E731
    return form._replace(targets=jax.tree.map(finite, targets), mask=mask)


def _total(form: Surrogate, params: Params, trajectory: Trajectory) -> Array:
    loss = form.loss(params, trajectory, form.targets, form.state)
    _checks.same_shape("trajectory.reward", trajectory.reward.shape, **{"the loss of the estimator": loss})
    return jnp.sum(loss if form.mask is None else jnp.where(form.mask, loss, 0.0))


def _info(loss: Array, grads: Params, targets: Any) -> GradientInfo:
    """Norm and bad entries of a gradient, or of each one of many: loss says how many leading axes there are."""
    leaves = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in jax.tree.leaves(grads)]
    axes = [tuple(range(loss.ndim, x.ndim)) for x in leaves]
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(x), axis) for x, axis in zip(leaves, axes, strict=True)))
    bad = sum(jnp.sum(~jnp.isfinite(x), axis, dtype=jnp.int32) for x, axis in zip(leaves, axes, strict=True))
    return GradientInfo(loss, norm, jnp.asarray(bad, jnp.int32), targets)
