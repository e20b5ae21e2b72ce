"""How estimators are used: policies of every kind, trouble as data, composition, own estimators."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from jax.tree_util import Partial
from tabular import policy, random_window

import pgjax as pg
from pgjax.estimators import Surrogate

from .contributions import Scores, actor, close, value

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")


# --- what policies may be ---------------------------------------------------------------------------------------------


def test_a_recurrent_policy_is_differentiated_through_its_state() -> None:
    batch = random_window(8, 4)
    params = {
        "in": jnp.eye(3)[:, :2] * 0.5,
        "keep": jnp.array([0.7, -0.3]),
        "out": jnp.array([[1.0, 0.2], [-0.4, 0.6]]),
    }

    def recurrent(params: Any, obs: Any, h: Any) -> Any:
        h = jnp.tanh(h * jnp.broadcast_to(params["keep"], h.shape) + obs @ params["in"])
        return pg.Categorical(h @ params["out"]), h

    start, now = jnp.full((4, 2), 0.1), jnp.asarray(np.random.default_rng(9).normal(size=(4, 2)))
    fields = dict.fromkeys(["env_state", "obs", "step", "running_return", "episode_return", "episode_length"])
    state = pg.RolloutState(**fields, policy_state=now, start_policy_state=start)

    def by_hand(params: Any, b: int) -> Any:
        h, total = now[b], 0.0
        returns = pg.discounted_returns(
            batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=0.9
        )
        for t in range(7):
            h = start[b] if int(batch.step[t, b]) == 0 else h
            pi, h = recurrent(params, batch.obs[t, b], h)
            total -= returns[t, b] * pi.log_prob(batch.action[t, b])
        return total

    parts, _ = pg.reinforce.per_trajectory(params, batch, policy=recurrent, discount=0.9, state=state)
    for b in range(4):
        jax.tree.map(lambda x, y, b=b: close(x[b], y), parts, jax.grad(by_hand)(params, b))
    whole, _ = pg.reinforce(params, batch, policy=recurrent, discount=0.9, state=state)
    jax.tree.map(lambda x, y: close(x, y.mean(0)), whole, parts)


def test_a_squashed_action_at_the_border_is_scored_from_before_the_squashing() -> None:
    raw = jnp.array([[[12.0]], [[-15.0]]])
    shape, ends = (2, 1), jnp.ones((2, 1), bool)
    batch = pg.Trajectory(
        obs=jnp.ones((2, 1, 1)),
        action=jnp.sign(raw),  # what tanh gives for it in float32
        reward=jnp.array([[1.0], [2.0]]),
        next_obs=None,
        terminated=ends,
        truncated=~ends,
        log_prob=jnp.zeros(shape),
        step=jnp.zeros(shape, jnp.int32),
        raw_action=raw,
    )
    loc, scale = 0.5, 2.0
    grads, info = pg.reinforce(
        jnp.float32(loc), batch, policy=lambda p, obs: pg.TanhNormal(p * obs, scale * jnp.ones_like(obs)), discount=0.9
    )
    np.testing.assert_allclose(grads, -(1.0 * (12.0 - loc) + 2.0 * (-15.0 - loc)) / scale**2, rtol=1e-6)
    assert int(info.num_nonfinite) == 0


def test_a_policy_may_return_extras() -> None:
    batch, logits = random_window(10, 3), tabular.problem("three_state")[1]
    with_extras, _ = pg.gpomdp(logits, batch, policy=lambda p, obs: (policy(p, obs), {"h": obs}), discount=0.9)
    close(with_extras, pg.gpomdp(logits, batch, policy=policy, discount=0.9)[0])


# --- trouble comes back as data ---------------------------------------------------------------------------------------


def test_nonfinite_entries_are_counted_where_they_are() -> None:
    batch, logits = random_window(11, 3), tabular.problem("three_state")[1]
    bad = batch.replace(reward=batch.reward.at[6, 1].set(jnp.nan))
    grads, info = pg.reinforce(logits, bad, policy=policy, discount=0.9)
    assert int(info.num_nonfinite) == int((~jnp.isfinite(grads)).sum()) > 0
    _, info = pg.reinforce.per_trajectory(logits, bad, policy=policy, discount=0.9)
    assert [int(n) > 0 for n in info.num_nonfinite] == [False, True, False]
    _, info = pg.reinforce(logits, batch, policy=policy, discount=0.9)
    assert int(info.num_nonfinite) == 0


def test_what_the_mask_leaves_out_may_be_nan() -> None:
    batch, logits = random_window(12, 3), tabular.problem("three_state")[1]
    mask = jnp.ones((7, 3), bool).at[4:, 0].set(False)
    batch = batch.replace(terminated=batch.terminated.at[3, 0].set(True))
    weight = jnp.ones((7, 3)).at[4:, 0].set(jnp.nan)
    for estimator in (pg.reinforce, pg.reinforce.per_trajectory):
        kwargs = {"policy": policy, "discount": 0.9, "mask": mask}
        grads, info = estimator(logits, batch, **kwargs, step_weight=weight)
        assert np.all(info.num_nonfinite == 0)
        close(grads, estimator(logits, batch, **kwargs)[0])


def test_a_mask_of_nothing_gives_zero() -> None:
    batch, logits = random_window(13, 3), tabular.problem("three_state")[1]
    grads, _ = pg.gpomdp(logits, batch, policy=policy, discount=0.9, mask=jnp.zeros((7, 3), bool))
    close(grads, 0.0)


# --- composition ------------------------------------------------------------------------------------------------------


def test_a_baseline_may_be_a_number_an_array_or_a_function() -> None:
    batch, logits = random_window(14, 3), tabular.problem("three_state")[1]
    estimate = lambda baseline: pg.reinforce(logits, batch, policy=policy, discount=0.9, baseline=baseline)[0]  # noqa: E731
    for equal in (0.3, jnp.array(0.3), jnp.full((7, 3), 0.3), lambda g: 0.3, lambda g: jnp.full_like(g, 0.3)):
        close(estimate(equal), estimate(0.3))
    assert np.abs(estimate(0.3) - estimate(None)).max() > 1e-3
    loo = estimate(pg.leave_one_out)
    mask = jnp.ones((7, 3), bool)
    for equal in (functools.partial(pg.leave_one_out, axis=-1), Partial(pg.leave_one_out, mask=mask)):
        close(estimate(equal), loo)
    traces = []

    def counted(return_: Any, offset: Any = 0.0) -> Any:
        traces.append(return_.shape)
        return offset + 0.0 * return_

    for _ in range(3):
        estimate(counted)
    assert traces == [(7, 3)]  # one function is one program
    close(estimate(Partial(counted, offset=jnp.array(0.3))), estimate(0.3))
    close(estimate(Partial(counted, offset=jnp.array(0.5))), estimate(0.5))
    assert len(traces) == 2  # and what a Partial holds is an argument of it


def test_a_baseline_function_never_averages_over_time() -> None:
    column, logits = random_window(15), tabular.problem("three_state")[1]
    with pytest.raises(
        ValueError, match=r"return_ must hold at least 2 trajectories along axis -1, got shape \[7, 1\]"
    ):
        pg.reinforce(logits, column, policy=policy, discount=0.9, baseline=pg.leave_one_out)
    grads, _ = pg.reinforce(logits, column, policy=policy, discount=0.9, baseline=lambda g: jnp.full_like(g, 0.2))
    close(grads, pg.reinforce(logits, column, policy=policy, discount=0.9, baseline=0.2)[0])


def test_vmap_over_parameters_and_seeds_is_a_loop() -> None:
    logits = jnp.asarray(np.random.default_rng(16).normal(size=(3, 3, 2)))
    windows = [random_window(seed, 2) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *windows)
    one = lambda p, t, g: pg.reinforce(p, t, policy=policy, discount=g, baseline=pg.leave_one_out)[0]  # noqa: E731
    discounts = jnp.array([0.5, 0.9, 1.0])
    got = jax.jit(jax.vmap(one))(logits, stacked, discounts)
    for i in range(3):
        close(got[i], one(logits[i], windows[i], float(discounts[i])))


def test_coefficients_may_be_traced_and_only_none_asks_for_no_entropy() -> None:
    batch = random_window(17, 3)
    params = {"actor": tabular.problem("three_state")[1], "critic": jnp.zeros(3)}
    kwargs = {"value": value, "discount": 0.9, "lam": 0.8}
    coefficients = jnp.array([0.0, 0.3])
    one = lambda c: pg.actor_critic(params, batch, policy=actor, entropy_coef=c, **kwargs)[0]["actor"]  # noqa: E731
    got = jax.jit(jax.vmap(one))(coefficients)
    close(got, jnp.stack([one(0.0), one(0.3)]))
    assert np.abs(got[1] - got[0]).max() > 1e-3

    bare = lambda params, obs: Scores(actor(params, obs))  # noqa: E731
    close(pg.actor_critic(params, batch, policy=bare, **kwargs)[0]["actor"], one(0.0))
    for coefficient in (0.0, 0.1):
        with pytest.raises(AttributeError, match="entropy"):
            pg.actor_critic(params, batch, policy=bare, entropy_coef=coefficient, **kwargs)


def test_an_estimator_inlines_into_a_users_jit() -> None:
    batch, logits = random_window(18, 3), tabular.problem("three_state")[1]

    @jax.jit
    def update(logits: Any, batch: Any, rate: Any) -> Any:
        offset = rate * 2  # a baseline that closes over a traced number
        grads, info = pg.reinforce(logits, batch, policy=policy, discount=0.9, baseline=lambda g: offset + 0 * g)
        return logits - rate * grads, info.grad_norm

    new, _ = update(logits, batch, 0.1)
    close(new, logits - 0.1 * pg.reinforce(logits, batch, policy=policy, discount=0.9, baseline=0.2)[0])


@pg.estimator("power", unit_interval=("discount",))
def return_to_the_power(params: Any, trajectory: Any, *, policy: Any, discount: Any, power: int) -> Any:
    """The undiscounted return, raised to a power."""
    returns = pg.discounted_returns(
        trajectory.reward, terminated=trajectory.terminated, truncated=trajectory.truncated, discount=discount
    )
    return Surrogate(
        lambda params, trajectory, targets, _: pg.policy_gradient_loss(
            policy(params, trajectory.obs).log_prob(trajectory.action), targets
        ),
        returns**power,
    )


def test_a_users_own_estimator_gets_both_forms() -> None:
    batch, logits = random_window(19, 4), tabular.problem("three_state")[1]
    kwargs = {"policy": policy, "discount": 0.9}
    close(return_to_the_power(logits, batch, power=1, **kwargs)[0], pg.reinforce(logits, batch, **kwargs)[0])
    parts, info = return_to_the_power.per_trajectory(logits, batch, power=2, **kwargs)
    close(parts.mean(0), return_to_the_power(logits, batch, power=2, **kwargs)[0])
    assert info.targets.shape == (7, 4)
    assert return_to_the_power.__name__ == "return_to_the_power"
    assert return_to_the_power.__doc__ == "The undiscounted return, raised to a power."
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\], got 1.5"):
        return_to_the_power(logits, batch, policy=policy, discount=1.5, power=1)
