"""Gradients through the environment: of a whole rollout, or of its first steps and a value of what they lead to."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Environment, Params, Policy, RolloutState, Value
from pgjax.envs.boundary import Outcome
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.rollout._step import step_once, value_after
from pgjax.rollout.noise import RolloutNoise
from pgjax.rollout.policies import apply_policy

Array = jax.Array


@estimator("env", "checkpoint", unit_interval=("discount",))
def pathwise_gradient(
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    noise: RolloutNoise,
    discount: Array | float,
    value: Value | None = None,
    start_weight: Array | None = None,
    checkpoint: bool = False,
) -> Surrogate:
    """Estimate the gradient of -J by differentiating a rollout at fixed noise: a descent direction.

        g = -1/B Σ_b ∇ Σ_t w_t [r_t + γ c_t V(s'_t)],   w_0 = start_weight,  w_{t+1} = γ w_t, or 1 in a new episode

    c_t = 1 in the last step of the window and where an episode is truncated, 0 elsewhere and where one terminated; s'_t
    is what step t led to, before any reset. Actions, states and rewards depend on the parameters through each other.

    Without a value it is backpropagation through time (analytic policy gradient); with one and a window shorter than an
    episode it is the short-horizon actor-critic (SHAC); with a window of one step, that of
    stochastic value gradients.

    Shapes: leaves of state [B, ...]; leaves of noise [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy. Those of the value function may stand beside them: they get no gradient.
        state: where the rollout starts, a constant: gradients do not reach back beyond it.
        policy: policy(params, obs) -> distribution or (distribution, extras) whose samples carry gradients; a recurrent
            one as in `rollout`.
        env: the environment; static. One of gymnax stops gradients through its steps unless it comes from
            ``env.with_transition_gradients()``.
        env_params: its parameters, see `init_rollout`; shared by all environments where `per_trajectory` is asked.
        noise: from `rollout_noise`; its length is that of the window.
        discount: γ, scalar, in [0, 1], per environment step.
        value: value(params, obs) -> [B] float, reward units, as in `actor_critic`; None means 0.
        start_weight: [B] float, weight of what is left of the episodes that run at the start of the window, for
            instance `discount_weight(state.step, discount)`; None means 1.
        checkpoint: compute each step anew in the backward pass rather than store what happened inside; static.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        metric is the mean of `reward`. `rollout` with the key of the noise gives the trajectory and the next state.

    Raises:
        TypeError: if samples of the policy carry no gradients, or noise is not from `rollout_noise`.
        ValueError: if the environment stops gradients through its steps, shapes differ, or discount is a number outside
            [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes, if rewards, steps and policy are continuous in the
        actions and differentiable almost everywhere: a jump is missed in silence, and so is that a state decides when
        an episode ends. With a value function it is unbiased for the sum of the states in the window, each with what
        follows it, if the value and its derivative by the state are those of the policy; else biased. Where steps
        expand, the variance grows exponentially with the window. Memory O(T), of states alone with checkpoint, which
        costs a second forward pass.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> from pgjax import exact
        >>> lqr, gain = exact.scalar_lqr()
        >>> env = exact.LQREnvironment(lqr).with_transition_gradients()
        >>> policy = lambda gain, obs: pg.Normal(-obs @ gain.T, 0.5)
        >>> steps = {"policy": policy, "env": env, "env_params": env.default_params}
        >>> state = pg.init_rollout(jax.random.key(0), env, env.default_params, num_envs=4096)
        >>> noise = pg.rollout_noise(jax.random.key(1), gain, state, **steps, num_steps=5)
        >>> grads, info = pg.pathwise_gradient(gain, state, **steps, noise=noise, discount=0.95)
        >>> bool(abs(grads - lqr.cost_gradient(gain)).max() < 0.2)
        True

    References:
        Heess et al. (2015), Learning continuous control policies by stochastic value gradients.
        Xu et al. (2022), Accelerated policy learning with parallel differentiable simulation.
        Suh et al. (2022), Do differentiable simulators give better policy gradients?
    """
    _require_gradients(params, state, policy, env)
    _checks.require_instance("noise", noise, RolloutNoise, remedy="Draw it with pg.rollout_noise(key, params, ...).")
    steps = noise.env.keys.shape[0]
    for leaf in jax.tree.leaves(noise.action):
        _checks.require_leading_shape("noise.action", leaf, (steps, *state.step.shape), of="noise.env, and state.step")
    discount = _checks.as_scalar_or_shape("discount", discount, ())
    weight = jnp.ones(state.step.shape) if start_weight is None else _checks.as_floating("start_weight", start_weight)
    _checks.require_shape("start_weight", weight, state.step.shape, of="state.step")
    weight = weight.astype(jnp.promote_types(weight.dtype, discount.dtype))

    def loss(params: Params, state: RolloutState, targets: Any, _: None) -> tuple[Array, dict[str, Array]]:
        noise, start = targets
        constant = jax.lax.stop_gradient(params)

        def step(carry: tuple[RolloutState, Array], inputs: Any) -> tuple[Any, tuple[Array, Array]]:
            (state, weight), (noise, last) = carry, inputs

            def bootstrap(outcome: Outcome, memory: Any) -> Array:
                return _bootstrap(value, constant, outcome, memory, last)

            state, row = step_once(
                params, state, (None, noise.env, noise.action, None), policy=policy, env=env, env_params=env_params,
                keep=bootstrap,
            )  # fmt: skip
            earned = weight * (row.reward + discount * row.truncation_value)
            after = jnp.where(row.done, jnp.ones_like(weight), discount * weight)
            return (state, after), (-earned, row.reward)

        body: Any = jax.checkpoint(step) if checkpoint else step
        last = jnp.arange(steps) == steps - 1
        start_from: Any = state, start[0]
        losses, reward = jax.lax.scan(body, start_from, (noise, last))[1]
        return losses, {"reward": reward}

    return Surrogate(loss, (noise, weight[None]))


def _bootstrap(value: Value | None, params: Params, outcome: Outcome, memory: Any, last: Array) -> Array:
    """The value of what a step led to where the window or an episode is cut there, else 0; [B]."""
    if value is None:
        return jnp.zeros_like(outcome.reward)
    needed = (outcome.truncated | last) & ~outcome.terminated
    return value_after("value", value, params, outcome, memory, needed=needed)


def _require_gradients(params: Params, state: RolloutState, policy: Policy, env: Environment) -> None:
    """Raise where gradients would be lost without a sign: in the steps of the environment, or in the actions."""
    distribution = apply_policy(policy, params, state.obs, state.policy_state)[0]
    if not getattr(distribution, "is_differentiable", False):
        raise TypeError(
            "pathwise_gradient needs a policy whose samples carry gradients, such as a Normal, got "
            f"{type(distribution).__name__}. Use reinforce or actor_critic, which need no derivative of the action."
        )
    if getattr(env, "transition_gradients_enabled", True) is False:
        raise ValueError(
            f"env must let gradients through its steps, {type(env).__name__} stops them: the gradient would miss every "
            "path through a state. Pass env.with_transition_gradients(), where the environment offers it."
        )
