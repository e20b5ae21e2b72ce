"""Actor-critics against each other and, for recurrent policies, against a loop by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular import policy, random_window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
PARAMS = {"actor": np.random.default_rng(11).normal(size=(3, 2)), "critic": np.array([0.4, -0.3, 0.8])}


def actor(params: Any, obs: Any) -> Any:
    return policy(params["actor"], obs)


def value(params: Any, obs: Any, *memory: Any) -> Any:
    return obs @ params["critic"]


def with_log_prob(batch: Any, shift: float = 0.0) -> Any:
    return batch.replace(log_prob=actor(PARAMS, batch.obs).log_prob(batch.action) - shift)


SHARED = {"policy": actor, "value": value, "discount": 0.9}


def test_vtrace_on_own_data_is_the_actor_critic_with_lam_1() -> None:
    batch = with_log_prob(random_window(0, 4))
    for entropy_coef in (None, 0.1):
        got, info = pg.vtrace_actor_critic(PARAMS, batch, **SHARED, entropy_coef=entropy_coef, value_coef=0.7)
        want, _ = pg.actor_critic(PARAMS, batch, **SHARED, lam=1.0, entropy_coef=entropy_coef, value_coef=0.7)
        jax.tree.map(close, got, want)
        assert ("entropy" in info.metrics) is (entropy_coef is not None)


def test_vtrace_weighs_what_another_policy_did() -> None:
    batch = with_log_prob(random_window(1, 4), shift=0.0)
    random = np.random.default_rng(2)
    batch = batch.replace(log_prob=batch.log_prob + jnp.asarray(random.normal(size=(7, 4))))
    log_ratio = actor(PARAMS, batch.obs).log_prob(batch.action) - batch.log_prob
    target, advantage = pg.vtrace(
        batch.reward, value(PARAMS, batch.obs), *pg.bootstrap_values(PARAMS, batch, value=value)[1:],
        log_ratio=log_ratio, terminated=batch.terminated, truncated=batch.truncated, discount=0.9, lam=0.8,
        clip_rho=1.5, clip_c=0.9, clip_pg_rho=1.2,
    )  # fmt: skip
    _, info = pg.vtrace_actor_critic(PARAMS, batch, **SHARED, lam=0.8, clip_rho=1.5, clip_c=0.9, clip_pg_rho=1.2)
    close(info.targets["value_target"], target)
    close(info.targets["weight"], advantage)
    assert not np.allclose(target, pg.vtrace_actor_critic(PARAMS, batch, **SHARED)[1].targets["value_target"])


def test_ppo_before_the_first_step_is_the_actor_critic() -> None:
    batch = with_log_prob(random_window(3, 4))
    arguments = {**SHARED, "lam": 0.8, "entropy_coef": 0.05, "value_coef": 0.3}
    want, _ = pg.actor_critic(PARAMS, batch, **arguments)
    got, info = pg.ppo(PARAMS, batch, **arguments, standardized=False)
    jax.tree.map(close, got, want)
    close(info.metrics["log_ratio"], 0.0)
    standard, info = pg.ppo(PARAMS, batch, **arguments)
    advantage = np.asarray(info.targets["advantage"])
    close(info.targets["weight"], (advantage - advantage.mean()) / (advantage.std() + 1e-8))
    assert not np.allclose(standard["actor"], want["actor"])


def test_ppos_objective_is_the_equation_row_by_row() -> None:
    batch = random_window(4, 4)
    random = np.random.default_rng(5)
    batch = batch.replace(log_prob=jnp.asarray(random.normal(size=(7, 4)) - 0.7))
    advantage, target, old = (random.normal(size=(7, 4)) for _ in range(3))
    arguments = {
        "policy": actor,
        "value": value,
        "advantage": jnp.asarray(advantage),
        "value_target": jnp.asarray(target),
    }
    loss, metrics = pg.ppo_objective(
        PARAMS,
        batch,
        **arguments,
        clip=0.3,
        value_coef=0.7,
        entropy_coef=0.02,
        value_clip=0.1,
        old_value=jnp.asarray(old),
    )
    distribution = actor(PARAMS, batch.obs)
    probs = np.asarray(distribution.probs)
    ratio = np.exp(np.asarray(distribution.log_prob(batch.action)) - np.asarray(batch.log_prob))
    v = np.asarray(batch.obs) @ np.asarray(PARAMS["critic"])
    policy_loss = -np.minimum(ratio * advantage, np.clip(ratio, 0.7, 1.3) * advantage)
    value_loss = 0.5 * np.maximum((v - target) ** 2, (old + np.clip(v - old, -0.1, 0.1) - target) ** 2)
    entropy = -np.sum(probs * np.log(probs), -1)
    close(metrics["policy_loss"], policy_loss)
    close(metrics["value_loss"], value_loss)
    close(loss, policy_loss + 0.7 * value_loss - 0.02 * entropy)
    plain, _ = pg.ppo_objective(PARAMS, batch, **arguments)
    ratio_loss = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    close(plain, ratio_loss + 0.5 * 0.5 * (v - target) ** 2)
    with pytest.raises(TypeError, match=r"^old_value is required"):
        pg.ppo_objective(PARAMS, batch, **arguments, value_clip=0.1)


# --- recurrent --------------------------------------------------------------------------------------------------------


def recurrent(params: Any, obs: Any, h: Any) -> Any:
    """A memory that decays and adds the observation; its value is the extras."""
    new = jnp.tanh(0.6 * h + obs @ params["in"])
    return pg.Categorical(new @ params["out"]), remembered_value(params, obs, h), new


def remembered_value(params: Any, obs: Any, h: Any) -> Any:
    return jnp.tanh(0.6 * h + obs @ params["in"]) @ params["critic"]


RECURRENT = {
    "in": np.array([[0.5, -0.2], [0.1, 0.9], [-0.6, 0.3]]),
    "out": np.array([[1.0, 0.2], [-0.4, 0.6]]),
    "critic": np.array([0.7, -0.5]),
}


def state_of(policy_state: Any) -> pg.RolloutState:
    fields: dict[str, Any] = dict.fromkeys(f for f in pg.RolloutState.__dataclass_fields__)
    return pg.RolloutState(**{**fields, "policy_state": policy_state, "start_policy_state": jnp.full((4, 2), 0.1)})


def by_hand(params: Any, batch: Any, start: Any) -> tuple[Any, Any, Any]:
    """Log-probabilities, values and values of next_obs, [T, B], with a loop over time."""
    h, rows = start, []
    for t in range(7):
        h = jnp.where((batch.step[t] == 0)[:, None], 0.1, h)
        distribution, v, after = recurrent(params, batch.obs[t], h)
        following = remembered_value(params, batch.next_obs[t], after)
        rows.append((distribution.log_prob(batch.action[t]), v, jnp.where(batch.terminated[t], 0.0, following)))
        h = after
    return tuple(jnp.stack(x) for x in zip(*rows, strict=True))  # type: ignore[return-value]


def test_a_recurrent_actor_critic_runs_its_memory_as_the_rollout_did() -> None:
    batch, start = random_window(6, 4), jnp.asarray(np.random.default_rng(7).normal(size=(4, 2)))
    arguments = {"policy": recurrent, "value": remembered_value, "discount": 0.9, "lam": 0.8, "state": state_of(start)}
    _, v, following = by_hand(RECURRENT, batch, start)
    ends = {"terminated": batch.terminated, "truncated": batch.truncated}
    advantage = pg.gae(batch.reward, v, following, **ends, discount=0.9, lam=0.8)

    def loss(params: Any) -> Any:
        log_prob, now, _ = by_hand(params, batch, start)
        critic = 0.25 * jnp.square(now - jax.lax.stop_gradient(advantage + v))
        return jnp.sum(critic - jax.lax.stop_gradient(advantage) * log_prob) / 4

    got, info = pg.actor_critic(RECURRENT, batch, **arguments)
    close(info.targets["advantage"], advantage)
    jax.tree.map(close, got, jax.grad(loss)(RECURRENT))
    each, _ = pg.actor_critic.per_trajectory(RECURRENT, batch, **arguments)
    jax.tree.map(lambda x, y: close(x.mean(0), y), each, got)


def test_a_window_without_next_obs_bootstraps_a_recurrent_policy_from_what_the_rollout_kept() -> None:
    batch, start = random_window(8, 4), jnp.asarray(np.random.default_rng(9).normal(size=(4, 2)))
    batch = batch.replace(  # as a rollout leaves it: what follows is the next row, but where an episode was cut
        next_obs=jnp.where(
            batch.done[:, :, None], batch.next_obs, jnp.concatenate([batch.obs[1:], batch.next_obs[-1:]])
        )
    )
    arguments = {"policy": recurrent, "value": remembered_value, "discount": 0.9, "lam": 0.8, "state": state_of(start)}
    want, _ = pg.actor_critic(RECURRENT, batch, **arguments)
    _, _, following = by_hand(RECURRENT, batch, start)
    kept = jnp.where(batch.truncated, following, 0.0)
    last_obs = jnp.where(batch.done[-1][:, None], 0.0, batch.next_obs[-1])
    small = batch.replace(next_obs=None, truncation_value=kept)
    got, _ = pg.actor_critic(RECURRENT, small, **arguments, last_obs=last_obs)
    jax.tree.map(close, got, want)
    with pytest.raises(ValueError, match=r"^trajectory keeps no next_obs"):
        pg.actor_critic(RECURRENT, small, **arguments)


def test_a_recurrent_policy_without_a_value_is_told_where_to_put_it() -> None:
    batch = random_window(6, 4)
    bare = lambda params, obs, h: (recurrent(params, obs, h)[0], h)  # noqa: E731
    with pytest.raises(ValueError, match=r"^a recurrent policy that is trained with a critic must return its value"):
        pg.actor_critic(
            RECURRENT,
            batch,
            policy=bare,
            value=remembered_value,
            discount=0.9,
            lam=0.8,
            state=state_of(jnp.zeros((4, 2))),
        )


def test_a_state_without_memory_means_a_feed_forward_policy() -> None:
    batch = random_window(6, 4)
    want, _ = pg.actor_critic(PARAMS, batch, **SHARED, lam=0.8)
    got, _ = pg.actor_critic(PARAMS, batch, **SHARED, lam=0.8, state=state_of(None).replace(start_policy_state=None))
    jax.tree.map(close, got, want)
