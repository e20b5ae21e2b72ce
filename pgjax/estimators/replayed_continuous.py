"""ACER for continuous actions: an action drawn anew stands for the sum over all, a duelling critic for their values."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._ratios import ratio_of
from pgjax._types import Params, Policy, Trajectory, Value
from pgjax.distributions import Beta, Normal, TanhNormal, action_from_noise, log_prob_of
from pgjax.estimators.replayed import project_to_halfspace
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, values_and_next
from pgjax.expectation.terms import through
from pgjax.losses import stochastic_duelling, value_loss
from pgjax.returns import retrace

Array = jax.Array


@estimator(unit_interval=("discount", "lam"))
def acer_continuous(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    critic: Any,
    behaviour: Any,
    noise: Any,
    average_params: Params | None = None,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip_rho: Array | float = 5.0,
    max_divergence: Array | float = 1.0,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
) -> Surrogate:
    """Estimate the gradient of an actor with continuous actions and of its duelling critic, by ACER: descent direction.

        Q̃_t(a) = V_t + A(s_t, a) - 1/n Σ_i A(s_t, u_i),   u_i ~ π(·|s_t)
        g_t = ∂/∂φ [min(c, ρ_t) (Q°_t - V_t) log π(a_t|φ) + (1 - c / ρ(a'))⁺ (Q̃_t(a') - V_t) log π(a'|φ) + c_e H(φ)]
        z_t = g_t projected to kᵀz <= δ,   k = ∂/∂φ KL(π_average ‖ π(·|φ)),   a' ~ π(·|s_t)
        descent direction:  -1/B Σ_b Σ_t [(∂φ/∂θ)ᵀ z_t - c_v ∂/∂θ (½ (Q̃_t(a_t) - Q*_t)² + ½ (V_t - V*_t)²)]
        V*_t = V_t + min(1, ρ_t) (Q*_t - Q̃_t(a_t))

    with φ the parameters of the distribution in s_t and ρ = π/μ. Both targets are r_t + γ_t [V_{t+1} + c_{t+1} (target
    - Q̃)_{t+1}]: Q* with the trace c = λ min(1, ρ^{1/D}) over the D components of an action, and Q° with c = λ. In
    place of the sum over all actions that corrects `acer` stands its value at one action, drawn anew.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy, the value and the critic.
        trajectory: the window, of any policy; each column is one trajectory. Its log_prob are those of behaviour.
        policy: policy(params, obs) -> `Normal`, `TanhNormal` or `Beta`, or (distribution, extras), feed-forward. The
            scale of a Normal may depend on the observation or not.
        value: V, value(params, obs) -> [...] float, reward units.
        critic: A, critic(params, obs, action) -> [...] float, reward units; its mean over the policy need not be 0.
        behaviour: μ, the distribution that acted, batch axes [T, B]: of the same class, or of another one with
            log_prob.
        noise: [M, T, B, ...], M = 1 + n, of the actions drawn anew: a' is made of the first, the u_i of the others.
            ``distributions.draw_noise(action_distribution(params, trajectory, policy=policy), key, num_draws=1 + n)``.
        average_params: parameters of the averaged policy; None sets no trust region.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ of both targets, scalar or [T, B], in [0, 1]; 1 in the paper.
        clip_rho: c, bound of the ratio of the action taken; infinity leaves the correction out.
        max_divergence: δ, nats, how far one step of size 1 may change the divergence; infinity sets no bound.
        value_coef: c_v, weight of the losses of value and critic, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; None leaves it out, as the paper does.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`. Its
        targets hold Q* as `action_value_target`, Q° as `opc_target`, Q̃ of the action taken as `action_value`, V* as
        `value_target`, all [T, B], and `direction`, a dict of z [T, B, D] by field of the distribution. Its metrics are
        the means of ``policy_loss``, ``action_value_loss``, `value_loss`, ``entropy``, and with average_params of
        ``kl`` and ``projected_fraction``.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy gives none of these distributions.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        With V and Q̃ both exact, the two parts together are the importance-weighted gradient without truncation, in
        expectation over the window and the noise. On the policy's own data, with c >= 1, λ = 1 and whole episodes, the
        actor's part is unbiased for the objective without γ^t whatever V and A are. Elsewhere Q° is biased as far as π
        and μ lie apart and V and Q̃ are wrong, since it takes no ratios; Q* is so only as far as Retrace is. φ is loc
        and scale, or alpha and beta, in the units in which they stand: the projection is the nearest point in these.
        The ratio of a `TanhNormal` is taken before squashing, which is exact.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((1, 1)), np.zeros((1, 1), bool)
        >>> own = pg.Normal(jnp.zeros((1, 1, 1)), 1.0)
        >>> trajectory = pg.Trajectory(
        ...     x[..., None], x[..., None], x, x[..., None], ~no, no, own.log_prob(x[..., None]), no.astype(int))
        >>> grads, info = pg.acer_continuous(
        ...     0.0, trajectory, policy=lambda loc, obs: pg.Normal(loc * obs, 1.0), behaviour=own, discount=0.9,
        ...     value=lambda loc, obs: 0.0 * obs[..., 0], critic=lambda loc, obs, action: 0.0 * action[..., 0],
        ...     noise=pg.distributions.draw_noise(own, jax.random.key(0), num_draws=6))
        >>> print(grads)
        -1.0

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay, section on continuous actions and the
        algorithm for them in the appendix. Harutyunyan, Bellemare, Stepleton and Munos (2016), Q(λ) with off-policy
        corrections, on Q°.
    """
    distribution = action_distribution(params, trajectory, policy=policy)
    names, reward = statistics_of(distribution), trajectory.reward
    (fresh, fresh_raw, fresh_log_prob), draws = _drawn(distribution, noise)
    log_mu = log_prob_of(behaviour, fresh, fresh_raw)
    _checks.require_shape("log_prob of behaviour", log_mu, reward.shape, of="trajectory.reward")
    values, next_values = values_and_next(params, trajectory, policy, value, None, last_obs)
    of_draws = _advantages(critic, params, trajectory.obs, draws)
    judged = _advantages(critic, params, trajectory.obs, jnp.stack([trajectory.action, fresh], -2))
    _checks.require_shape("the result of critic", judged[0], reward.shape, of="trajectory.reward")
    taken, anew = (stochastic_duelling(values, x, of_draws=of_draws) for x in judged)

    log_ratio = log_prob_taken(distribution, trajectory) - trajectory.log_prob
    opc_target, action_value_target = (
        retrace(
            reward, taken, next_values, log_ratio=x, terminated=trajectory.terminated, truncated=trajectory.truncated,
            discount=discount, lam=lam,
        )
        for x in (jnp.zeros_like(log_ratio), log_ratio / distribution.shape[-1])
    )  # fmt: skip
    ratio, fresh_ratio = ratio_of(log_ratio), ratio_of(fresh_log_prob - log_mu)
    weight = jnp.minimum(clip_rho, ratio) * (opc_target - values)
    correction = jnp.maximum(1.0 - clip_rho / fresh_ratio, 0.0) * (anew - values)

    def objective(d: Any) -> Array:
        return weight * log_prob_taken(d, trajectory) + correction * log_prob_of(d, fresh, fresh_raw)

    def gradient_of(f: Any) -> Array:
        statistics = {name: getattr(distribution, name) for name in names}
        parts = jax.grad(lambda x: jnp.sum(f(distribution.replace(**x))))(statistics)
        return jnp.concatenate([parts[name] for name in names], -1)

    bonus = 0.0 if entropy_coef is None else entropy_coef
    direction = gradient_of(lambda d: objective(d) + bonus * d.entropy())
    targets: dict[str, Any] = {
        "action_value_target": action_value_target,
        "opc_target": opc_target,
        "action_value": taken,
        "value_target": values + jnp.minimum(1.0, ratio) * (action_value_target - taken),
        "policy_loss": -objective(distribution),
        "draws": draws,
    }
    if average_params is not None:
        average = action_distribution(average_params, trajectory, policy=policy)
        free, normal = direction, gradient_of(average.kl_divergence)
        direction = project_to_halfspace(free, normal, bound=max_divergence)
        targets["kl"] = average.kl_divergence(distribution)
        bound = jnp.asarray(max_divergence, free.dtype)
        targets["projected_fraction"] = (jnp.sum(normal * free, -1) > bound).astype(taken.dtype)
    targets["direction"] = dict(zip(names, jnp.split(direction, len(names), -1), strict=True))
    shown = ("policy_loss", "kl", "projected_fraction")

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> tuple[Array, dict[str, Array]]:
        distribution, v = action_distribution(params, t, policy=policy), value(params, t.obs)
        of_draws = _advantages(critic, params, t.obs, targets["draws"])
        taken = stochastic_duelling(v, critic(params, t.obs, t.action), of_draws=of_draws)
        metrics = {name: targets[name] for name in shown if name in targets}
        metrics["action_value_loss"] = value_loss(taken, targets["action_value_target"])
        metrics["value_loss"] = value_loss(v, targets["value_target"])
        metrics["entropy"] = distribution.entropy()
        errors = metrics["action_value_loss"] + metrics["value_loss"]
        return value_coef * errors - through(distribution, targets["direction"]), metrics

    return Surrogate(loss, targets, mask)


def statistics_of(distribution: Any) -> tuple[str, ...]:
    """Name the fields of a distribution that a policy sets: the trust region of ACER is in their space.

    Args:
        distribution: whatever a policy returned.

    Returns:
        The names of two fields, arrays [..., D].

    Raises:
        TypeError: if it is none of the distributions that ACER for continuous actions takes.
    """
    for cls, names in ((Normal, ("loc", "scale")), (TanhNormal, ("loc", "scale")), (Beta, ("alpha", "beta"))):
        if isinstance(distribution, cls):
            return names
    raise TypeError(
        f"what policy returns must be a Normal, TanhNormal or Beta, got {type(distribution).__name__}. For discrete "
        "actions take acer."
    )


def _drawn(distribution: Any, noise: Any) -> tuple[tuple[Any, Any, Array], Array]:
    """(a', before squashing, log-probability), and u [T, B, n, D]: the batch stands where a trajectory has it."""
    leaves = jax.tree.leaves(noise)
    count = jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 0
    if count < 2:
        raise ValueError(
            f"noise must hold at least two draws, [M, T, B, ...] with M = 1 + n, got {jax.tree.map(jnp.shape, noise)}."
            " Draw it with distributions.draw_noise(distribution, key, num_draws=1 + n)."
        )
    action, raw, log_prob = action_from_noise(distribution, noise)
    return (action[0], None if raw is None else raw[0], log_prob[0]), jnp.moveaxis(action[1:], 0, -2)


def _advantages(critic: Any, params: Params, obs: Any, actions: Array) -> Array:
    """A of several actions [..., n, D] in each observation, [n, ...]."""
    return jax.vmap(lambda action: critic(params, obs, action), in_axes=-2)(actions)
