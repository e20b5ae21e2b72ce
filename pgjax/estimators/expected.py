"""Gradients of expectations over actions by any rule of `pgjax.expectation`, with a critic or with what was earned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, weighted
from pgjax.expectation import Rule, taken

Array = jax.Array
Critic = Callable[[Any, Any], Array]
Noise = dict[str, Any]


@estimator
def expected_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    critic: Critic,
    rule: Rule,
    noise: Noise | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J from a critic, by a rule for the expectation over actions: a descent direction.

        g = -1/B Σ_b Σ_t w_t ∇ E_{a~π(·|s_t)} Q(s_t, a),   Q held fixed

    The rule says how the expectation is differentiated: `enumerated` gives the all-action gradient, `pathwise` that of
    stochastic value gradients, `at_mode` the deterministic policy gradient, `score_function` draws one action.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; its observations, and nothing else of it, are used.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        critic: critic(obs, action) -> [...] float, reward units. `pg.bind` brings its parameters along.
        rule: a rule of `pgjax.expectation`, with its options given by `rule.using(...)`.
        noise: what the rule draws, `rule.draw(key, action_distribution(params, trajectory, policy=policy))`; None for a
            rule without noise.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps that count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if the rule makes no sense for the distribution, or noise is missing or too much.
        ValueError: if shapes differ.

    Properties:
        With Q the action value of the policy, w = γ^t and whole episodes, unbiased for the discounted objective where
        the rule is unbiased. What replaces Q biases it. Actions that were taken play no part, so the window may come
        from another policy: the states are then weighted as that policy visits them.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import enumerated
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> critic = lambda obs, action: jnp.where(action == 0, 1.0, 0.0) * obs[..., 0]
        >>> print(pg.expected_gradient(jnp.zeros(2), trajectory, policy=policy, critic=critic, rule=enumerated)[0])
        [-0.5  0.5]

    References:
        Sutton, McAllester, Singh and Mansour (2000), Policy gradient methods for reinforcement learning with function
        approximation. Ciosek and Whiteson (2018), Expected policy gradients.
    """

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        weight, noise = targets
        distribution = action_distribution(params, t, policy=policy, state=state)
        noise = as_drawn(rule, noise, t.reward.ndim)
        return -weighted(rule.given(noise, distribution, lambda action: critic(t.obs, action)), weight)

    weight = weighted(jnp.ones_like(_checks.widened(trajectory.reward)), step_weight)
    return Surrogate(loss, (weight, by_column(rule, noise or {}, trajectory.reward.ndim)), mask, state)


@estimator
def sampled_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    rule: Rule,
    earned: Array,
    noise: Noise | None = None,
    control: Critic | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by a rule at the actions that were taken: a descent direction.

        g = -1/B Σ_b Σ_t w_t ∇ E_{a~π(·|s_t)} f_t(a), of which f_t is known at a_t alone: f_t(a_t) = earned_t

    `score_function` makes it REINFORCE with the weights earned; `relax` adds a control variate through the relaxed
    action.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window, from the policy itself.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        rule: a rule whose own noise is the action, named x, such as `score_function` or `relax`.
        earned: [T, B] float, what each action led to, such as `discounted_returns`; a constant.
        noise: what the rule draws beside the action; entries named x are ignored. None for a rule without.
        control: control(obs, z) -> [...] for `relax`, z the relaxed action; `pg.bind` brings its parameters along, and
            `expectation.control_gradient` trains them.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps that count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if the rule makes no sense for the distribution, or noise is missing or too much.
        ValueError: if shapes differ.

    Properties:
        With earned the reward-to-go, w = γ^t and whole episodes, unbiased for the discounted objective where the rule
        is, whatever the control variate. A rule that looks at other actions than the one taken (`enumerated`) is not
        for it.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import score_function
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.sampled_gradient(jnp.zeros(2), trajectory, policy=policy, rule=score_function, earned=x)[0])
        [-1.  1.]

    References:
        Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), Backpropagation through the void.
    """
    earned = _checks.as_floating("earned", earned)
    _checks.require_same_shape("trajectory.reward", trajectory.reward.shape, earned=earned)
    _require_rule(rule)
    if "x" not in rule.laws:
        raise TypeError(
            f"rule must take an action as its noise x, such as score_function or relax, got {rule.name}: what was "
            "earned is known for the action taken alone. Use expected_gradient with a critic."
        )
    rest = {name: leaf for name, leaf in (noise or {}).items() if name != "x"}

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        weight, earned, noise = targets
        distribution = action_distribution(params, t, policy=policy, state=state)
        options = {} if control is None else {"control": lambda z: control(t.obs, z)}
        noise = {**as_drawn(rule, noise, t.reward.ndim), "x": taken(t.action, t.raw_action)}
        return -weighted(rule.given(noise, distribution, lambda action: earned, **options), weight)

    weight = weighted(jnp.ones_like(earned), step_weight)
    return Surrogate(loss, (weight, earned, by_column(rule, rest, earned.ndim)), mask, state)


def by_column(rule: Rule, noise: Noise, ndim: int) -> Noise:
    """Put the axes [T, B] of noise first, where a rule draws several times and its draws lead.

    Args:
        rule: whose noise it is.
        noise: as from `draw`, leaves [N, T, B, ...] where the rule draws N times.
        ndim: how many axes [T, B] are.

    Returns:
        The noise, those leaves [T, B, N, ...].

    Raises:
        TypeError: if rule is no rule.
    """
    _require_rule(rule)
    return _moved(rule, noise, lambda x: jnp.moveaxis(x, 0, ndim))


def as_drawn(rule: Rule, noise: Noise, ndim: int) -> Noise:
    """Undo `by_column`, for a whole window or for one column of it.

    Args:
        rule: whose noise it is.
        noise: as from `by_column`.
        ndim: how many axes there are before that of the draws.

    Returns:
        The noise, as the rule takes it.
    """
    return _moved(rule, noise, lambda x: jnp.moveaxis(x, ndim, 0))


def _moved(rule: Rule, noise: Noise, move: Callable[[Array], Array]) -> Noise:
    many = {name for name, law in rule.laws.items() if law.repeated}
    return {name: jax.tree.map(move, x) if name in many else x for name, x in noise.items()}


def _require_rule(rule: Any) -> None:
    if not isinstance(rule, Rule):
        raise TypeError(
            f"rule must be a rule of pgjax.expectation, such as enumerated or score_function, got "
            f"{getattr(rule, '__name__', type(rule).__name__)}. A search is no rule: it takes parameters, not actions."
        )
