"""Targets and losses of methods that learn from single transitions: deterministic policies, soft actor-critic.

They take what critics and policies gave, never the networks. An ensemble of critics is a leading axis, [E, ...].
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Transition

Array = jax.Array


@compiled()
def td_target(transition: Transition, next_value: Array) -> Array:
    """Compute what a critic learns from a transition and the value of what it led to.

        y = stop(R + Γ V(next_obs))

    The value of a deterministic policy is Q(next_obs, μ(next_obs)) of target networks, with two critics the
    `clipped_double_q` of them, that of a soft policy `soft_value`. The critic minimises `value_loss` of its action
    value and y.

    Shapes: transition leaves [N, ...]; next_value [..., N]; result [..., N].

    Args:
        transition: `Transition`, of `fold` for instance; reward R [N], reward units, and discount Γ [N].
        next_value: [..., N] float, reward units, the value of next_obs; leading axes are those of an ensemble.

    Returns:
        [..., N] float, reward units, a constant.

    Raises:
        TypeError: if transition is no Transition, or an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        R where Γ is 0, whatever next_value is there. A fixed point of it is the value of the policy that next_value
        belongs to; over several steps it is biased unless that policy also chose the actions in between.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> obs = jnp.zeros((2, 1))
        >>> row = pg.Transition(obs, obs, reward=jnp.ones(2), discount=jnp.array([0.5, 0.0]), next_obs=obs)
        >>> print(pg.td_target(row, jnp.array([4.0, jnp.nan])))
        [3. 1.]

    References:
        Sutton (1988), Learning to predict by the methods of temporal differences.
        Lillicrap et al. (2016), Continuous control with deep reinforcement learning.
    """
    reward, weight = reward_and_discount(transition)
    next_value = _checks.as_floating("next_value", next_value)
    _checks.require_trailing_shape("next_value", next_value, reward.shape, of="transition.reward")
    reward, weight = (jnp.broadcast_to(x, next_value.shape) for x in (reward, weight))
    # Where nothing follows, the value may be anything, also NaN.
    follows = jnp.where(weight == 0, 0.0, weight * next_value)
    return jax.lax.stop_gradient(reward + follows)


@compiled()
def clipped_double_q(action_value: Array) -> Array:
    """Compute the smallest of what several critics say.

        Q = min_j Q_j(s, a)

    Shapes: action_value [E, ...]; result [...].

    Args:
        action_value: [E, ...] float, reward units, one row for each critic, E at least 1.

    Returns:
        [...] float, reward units, differentiable; critics that tie share the gradient.

    Raises:
        TypeError: if action_value is not floating.
        ValueError: if it has no axis of critics, or is empty.

    Properties:
        Biased downwards, as the expected minimum is at most the minimum of expectations: by s / √π where two critics
        err with independent normal errors of standard deviation s. That works against the upward bias of a policy
        which maximises the same errors.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.clipped_double_q(jnp.array([[1.0, 5.0], [2.0, 3.0]])))
        [1. 3.]

    References:
        Fujimoto, van Hoof and Meger (2018), Addressing function approximation error in actor-critic methods.
    """
    action_value = _checks.as_floating("action_value", action_value)
    if action_value.ndim == 0:
        raise ValueError(
            "action_value must have a leading axis of critics, [E, ...], got a scalar. Add it with action_value[None]."
        )
    return action_value.min(axis=0)


@compiled()
def soft_value(action_value: Array, log_prob: Array, *, temperature: Array | float) -> Array:
    """Compute the value of a state with the entropy of the policy counted, from one action of the policy.

        V = Q(s, a) - α log π(a|s),   a ~ π

    Shapes: action_value [...]; log_prob [...]; result [...].

    Args:
        action_value: [...] float, reward units, of fresh actions, for instance `clipped_double_q` of target critics. It
            may have more leading axes than log_prob: those of an ensemble.
        log_prob: [...] float, nats, log-probability of these actions, as `sample_and_log_prob` gives it: one that is
            computed from a squashed action is inexact near the bounds.
        temperature: α, reward units per nat, scalar or the shape of log_prob.

    Returns:
        [...] float, reward units, differentiable in every argument.

    Raises:
        TypeError: if action_value or log_prob is not floating.
        ValueError: if shapes differ.

    Properties:
        Unbiased for E[Q] + α H(π) over the action, given the critic. `td_target` of it is the target of the critic in
        soft actor-critic. `expected_soft_value` is its expectation over discrete actions.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.soft_value(jnp.ones(1), jnp.full(1, -2.0), temperature=0.5))
        [2.]

    References:
        Haarnoja, Zhou, Abbeel and Levine (2018), Soft actor-critic: off-policy maximum entropy deep reinforcement
        learning with a stochastic actor.
    """
    action_value, log_prob, temperature = _soft(action_value, log_prob, temperature)
    return action_value - temperature * log_prob


@compiled()
def expected_soft_value(log_probs: Array, action_value: Array, *, temperature: Array | float) -> Array:
    """Compute the value of a state with the entropy of the policy counted, summed over discrete actions.

        V = Σ_a π(a|s) (Q(s, a) - stop(α) log π(a|s))

    Minus it is the loss of a discrete policy in soft actor-critic; with target critics it is the value in `td_target`.

    Shapes: log_probs [..., K]; action_value [..., K]; result [...].

    Args:
        log_probs: [..., K] float, nats, normalised log-probabilities, such as `Categorical.log_probs`; -inf, or so low
            that the probability is 0, where an action is forbidden.
        action_value: [..., K] float, reward units, of every action. It may have more leading axes than log_probs: those
            of an ensemble. It may be anything where an action is forbidden.
        temperature: α, reward units per nat, scalar or [...], the batch axes of log_probs; a constant here.

    Returns:
        [...] float, reward units, differentiable in log_probs and action_value.

    Raises:
        TypeError: if log_probs or action_value is not floating.
        ValueError: if shapes differ, or log_probs has no axis of actions.

    Properties:
        The expectation of `soft_value`, without the noise of an action. Greatest where π = exp(Q / α) / Z, where it is
        α log Z. Actions of probability 0 add 0, to the gradient too.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> half = jnp.log(jnp.array([0.5, 0.5, 0.0]))
        >>> print(pg.expected_soft_value(half, jnp.array([1.0, 3.0, 9.0]), temperature=0.0))
        2.0

    References:
        Christodoulou (2019), Soft actor-critic for discrete action settings.
    """
    log_probs = _checks.as_parameter("log_probs", log_probs, axes="[..., K]")
    action_value = _checks.as_floating("action_value", action_value)
    _checks.require_trailing_shape("action_value", action_value, log_probs.shape, of="log_probs")
    temperature = _checks.as_scalar_or_shape("temperature", temperature, log_probs.shape[:-1])
    temperature = jax.lax.stop_gradient(jnp.broadcast_to(temperature, log_probs.shape[:-1])[..., None])
    possible = jnp.exp(log_probs) > 0
    # Before the product and not after it: 0 times infinity has no gradient.
    finite = jnp.where(possible, log_probs, 0.0)
    probs = jnp.where(possible, jnp.exp(finite), 0.0)
    bonus = (probs * temperature * finite).sum(-1)
    possible, probs = (jnp.broadcast_to(x, action_value.shape) for x in (possible, probs))
    mean = (probs * jnp.where(possible, action_value, 0.0)).sum(-1)
    return mean - jnp.broadcast_to(bonus, mean.shape)


@compiled()
def soft_policy_loss(action_value: Array, log_prob: Array, *, temperature: Array | float) -> Array:
    """Compute what a policy with reparametrised actions minimises in soft actor-critic.

        L = stop(α) log π(a|s) - Q(s, a),   a = f(noise, s)

    With α = 0 it is the loss of a deterministic policy, -Q(s, μ(s)).

    Shapes: action_value [...]; log_prob [...]; result [...].

    Args:
        action_value: [...] float, reward units, of actions that the policy has just drawn; it carries the gradient
            through the action, and the critic's parameters must not be those that are differentiated. It may have more
            leading axes than log_prob: those of an ensemble.
        log_prob: [...] float, nats, log-probability of these actions, differentiable: directly, and through the action.
        temperature: α, reward units per nat, scalar or the shape of log_prob; a constant here.

    Returns:
        [...] float, reward units.

    Raises:
        TypeError: if action_value or log_prob is not floating.
        ValueError: if shapes differ.

    Properties:
        Its gradient is unbiased for that of -(E[Q] + α H(π)) in each state, given the critic, as long as neither path
        of log_prob is stopped. The states are those of the replay, so that it is biased for the return.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> loss = lambda action: pg.soft_policy_loss(-(action**2), jnp.zeros(1), temperature=0.1).sum()
        >>> print(jax.grad(loss)(jnp.array([3.0])))
        [6.]

    References:
        Haarnoja, Zhou, Abbeel and Levine (2018), Soft actor-critic: off-policy maximum entropy deep reinforcement
        learning with a stochastic actor.
        Silver et al. (2014), Deterministic policy gradient algorithms, on α = 0.
    """
    action_value, log_prob, temperature = _soft(action_value, log_prob, temperature)
    return jax.lax.stop_gradient(temperature) * log_prob - action_value


@compiled("scale_free")
def temperature_loss(
    log_temperature: Array | float, log_prob: Array, *, target_entropy: Array | float, scale_free: bool = False
) -> Array:
    """Compute what the temperature of a soft policy minimises, so that the policy keeps a given entropy.

        L = -α stop(log π(a|s) + H_target),        α = exp(log α)
        L = -log α stop(log π(a|s) + H_target)     with scale_free

    Both are in use. The gradient with respect to log α is -α (log π + H_target) in the first, the same without the
    factor α in the second: the same sign and the same root. Steps of plain gradient descent are in proportion to the
    temperature in the first; with Adam there is little between them.

    Shapes: log_prob [...]; result [...].

    Args:
        log_temperature: log α, scalar or [...], differentiable. The temperature itself is made positive by it.
        log_prob: [...] float, nats, log-probability of fresh actions; a constant here.
        target_entropy: H_target, nats, scalar or [...]. For D dimensions in [-1, 1] usually -D; where actions are
            scaled by c, add D log c.
        scale_free: whether the second form is meant; static.

    Returns:
        [...] float. Only its gradient has a meaning.

    Raises:
        TypeError: if log_prob is not floating.
        ValueError: if shapes differ.

    Properties:
        Descent lowers the temperature where the entropy is above the target, and raises it where it is below. An
        entropy that the policy cannot reach lets the temperature grow without end.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> slope = jax.grad(lambda x: pg.temperature_loss(x, jnp.full(1, -3.0), target_entropy=1.0).sum())
        >>> print(slope(jnp.log(0.5)))  # the entropy is 3, above 1: descent lowers log α
        1.0

    References:
        Haarnoja et al. (2018), Soft actor-critic algorithms and applications.
    """
    log_prob = _checks.as_floating("log_prob", log_prob)
    log_temperature = _checks.widened(_checks.as_scalar_or_shape("log_temperature", log_temperature, log_prob.shape))
    target_entropy = _checks.as_scalar_or_shape("target_entropy", target_entropy, log_prob.shape)
    factor = log_temperature if scale_free else jnp.exp(log_temperature)
    return -factor * jax.lax.stop_gradient(log_prob + target_entropy)


def reward_and_discount(transition: Transition) -> tuple[Array, Array]:
    """Return both as floating arrays of one shape; raise if transition is something else."""
    _checks.require_instance(
        "transition", transition, Transition, remedy="Make one with pg.fold, or from rows of a replay."
    )
    reward = _checks.as_floating("transition.reward", transition.reward)
    weight = _checks.as_floating("transition.discount", transition.discount)
    _checks.require_shape("transition.discount", weight, reward.shape, of="transition.reward")
    return reward, weight


def _soft(action_value: Array, log_prob: Array, temperature: Array | float) -> tuple[Array, Array, Array]:
    """Return the three as arrays of the shape of action_value, of which that of log_prob must be the end."""
    action_value = _checks.as_floating("action_value", action_value)
    log_prob = _checks.as_floating("log_prob", log_prob)
    _checks.require_trailing_shape("action_value", action_value, log_prob.shape, of="log_prob")
    temperature = _checks.as_scalar_or_shape("temperature", temperature, log_prob.shape)
    log_prob, temperature = (jnp.broadcast_to(x, action_value.shape) for x in (log_prob, temperature))
    return action_value, log_prob, temperature
