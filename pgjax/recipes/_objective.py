"""Stands in until the estimators have it."""
import jax, jax.numpy as jnp
import pgjax as pg

def ppo_objective(params, trajectory, *, policy, value, advantage, old_value, clip=0.2, value_clip=None, value_coef=0.5,
                  entropy_coef=0.0, state=None, value_target=None):
    if state is None:
        distribution, v = policy(params, trajectory.obs), value(params, trajectory.obs)
    else:
        distribution, v = pg.unroll_policy(params, trajectory, state.policy_state, policy=policy, start_policy_state=state.start_policy_state)
    log_ratio = pg.log_prob_of(distribution, trajectory.action, trajectory.raw_action) - trajectory.log_prob
    target = advantage + old_value if value_target is None else value_target
    a = pg.ppo_clip_loss(log_ratio, advantage, clip=clip)
    c = pg.value_loss(v, target) if value_clip is None else pg.clipped_value_loss(v, target, old_value=old_value, clip=value_clip)
    entropy = distribution.entropy()
    total = a + value_coef * c + entropy_coef * pg.entropy_loss(entropy)
    return total, jax.lax.stop_gradient({"policy_loss": a, "value_loss": c, "entropy": entropy, "log_ratio": log_ratio})
