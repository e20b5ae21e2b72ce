"""The noise of a rollout as data, for estimators that make the rollout themselves and differentiate it."""

from typing import Any

import jax
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Environment, Params, Policy, RolloutState, _Record
from pgjax.distributions import draw_noise
from pgjax.envs.boundary import StepRandomness, draw_randomness
from pgjax.rollout.policies import apply_policy

Array = jax.Array


@struct.dataclass
class RolloutNoise(_Record):
    """Everything that is random in T steps of B environments. Every leaf is [T, B, ...]."""

    action: Any  # the noise of the policy's distribution, see `Distribution.base_noise`
    env: StepRandomness  # keys of the environments, and the start states of the episodes that may begin


@compiled("policy", "env", "num_steps")
def rollout_noise(
    key: Array,
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
) -> RolloutNoise:
    """Draw everything random of a rollout, and no more: what is left of it is a function of the parameters.

        rollout(key, params, state, ...) plays the steps that this noise makes, for the same key

    Shapes: T = num_steps; leaves of the result [T, B, ...].

    Args:
        key: a PRNG key, consumed. `rollout` with the same key plays the very same steps: that is how the trajectory of
            an estimator that takes noise is had, for a critic to learn from.
        params: parameters of the policy; only shapes matter.
        state: where the rollout starts, leaves [B, ...].
        policy: as in `rollout`; its distribution must have noise of fixed size.
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        num_steps: T, environment steps, at least 1; static.

    Returns:
        The noise.

    Raises:
        TypeError: if num_steps is not an int, state is no RolloutState, or the distribution has no noise of fixed size.
        ValueError: if num_steps < 1.
    """
    _checks.require_callable("policy", policy)
    _checks.require_instance("state", state, RolloutState, remedy="Start with init_rollout, and check the order.")
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    start_like = state.obs, state.env_state
    act_key, randomness = draw_randomness(key, env, env_params, start_like=start_like, num_steps=num_steps)
    distribution = apply_policy(policy, params, state.obs, state.policy_state)[0]
    action = draw_noise(distribution, act_key, num_draws=num_steps)
    if action is None:
        raise TypeError(
            f"policy must return a distribution with noise of fixed size, got {type(distribution).__name__}. Use one "
            "of pgjax.distributions, such as Normal."
        )
    return RolloutNoise(action=action, env=randomness)
