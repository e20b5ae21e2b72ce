"""The return of the most probable actions as the baseline: ReMax."""

from typing import Any

import jax

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Environment, Params, Policy, RolloutState
from pgjax.distributions import log_prob_of
from pgjax.returns import discounted_returns
from pgjax.rollout import rollout

Array = jax.Array


@compiled("policy", "env", "num_steps", unit_interval=("discount",))
def greedy_baseline(
    key: Array,
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
    discount: Array | float,
) -> Array:
    """Compute what the mode of the policy earns from each start state, to be subtracted from whole returns.

        b = Σ_t γ^t r_t  of one episode with a_t = mode π(·|s_t)

    Shapes: B environments; result [B].

    Args:
        key: a PRNG key, consumed: the environment may be random, the actions are not. Another one than that of the
            rollout whose baseline this is.
        params: parameters of the policy.
        state: where the episodes start, from `init_rollout`; the same as for the rollout. One of each group is enough
            where groups share a start state.
        policy: as for `rollout`; its distribution must have a method mode().
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        num_steps: T, as many as the episodes have at most; what comes later is not counted; static.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.

    Returns:
        [B] float, reward units, and [B, A] where env.agents is (A,). As a baseline of `likelihood_ratio` it is
        repeated along time.

    Raises:
        TypeError: if the distribution has no mode, or num_steps is not an int.
        ValueError: if num_steps < 1, or discount is a number outside [0, 1].

    Properties:
        Keeps the gradient unbiased: it knows the start state and the parameters, not the actions that were taken. One
        more rollout, and no critic; the variance falls as far as the greedy return predicts the mean.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=2)
        >>> print(pg.greedy_baseline(jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params,
        ...     num_steps=5, discount=1.0))
        [5. 5.]

    References:
        Li et al. (2023), ReMax: a simple, effective, and efficient reinforcement learning method for aligning large
        language models. Rennie, Marcheret, Mroueh, Ross and Goel (2017), Self-critical sequence training for image
        captioning.
    """
    _checks.require_callable("policy", policy)

    def greedy(params: Params, *inputs: Any) -> Any:
        outputs = policy(params, *inputs)
        several = isinstance(outputs, tuple) and not hasattr(outputs, "log_prob")
        return (_Mode(outputs[0]), *outputs[1:]) if several else _Mode(outputs)

    arguments = {"policy": greedy, "env": env, "env_params": env_params, "num_steps": num_steps}
    _, trajectory = rollout(key, params, state, **arguments)
    t = trajectory
    returns = discounted_returns(t.reward, terminated=t.terminated, truncated=t.truncated, discount=discount)
    return jax.lax.stop_gradient(returns[0])


class _Mode:
    """A distribution that is always sampled at its mode."""

    def __init__(self, distribution: Any):
        if not callable(getattr(distribution, "mode", None)):
            raise TypeError(
                "greedy_baseline needs a distribution with a method mode(), got "
                f"{type(distribution).__name__}. Give it one, or use leave_one_out over repeated start states."
            )
        self._distribution = distribution

    def sample(self, key: Array) -> Any:
        return self._distribution.mode()

    def log_prob(self, action: Any) -> Array:
        return log_prob_of(self._distribution, action)
