"""Run by tests/test_sharding.py in a process of its own with eight CPU devices: everything under `jax.shard_map`.

Each function of arrays [T, B] runs with B spread over the devices and JAX's checks on, and must give what it gives on
one device. Prints the names of the cases that passed; an error ends the process.
"""

from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

import pgjax as pg
from pgjax import diagnostics

T, B, DEVICES = 5, 16, 8
SPREAD, SAME = PartitionSpec(None, "b"), PartitionSpec()


def arrays() -> dict[str, Any]:
    random = np.random.default_rng(0)
    normal = lambda: jnp.asarray(random.normal(size=(T, B)), jnp.float32)  # noqa: E731
    mask = lambda: jnp.asarray(random.random((T, B)) < 0.3)  # noqa: E731
    names = ("reward", "value", "next_value", "log_ratio")
    return {**{name: normal() for name in names}, "terminated": mask(), "truncated": mask(), "obs": normal()}


def trajectory(d: dict[str, Any]) -> pg.Trajectory:
    obs = jnp.stack([d["obs"], d["value"]], -1)
    step = jnp.broadcast_to(jnp.arange(T)[:, None], d["reward"].shape)
    return pg.Trajectory(obs, obs, d["reward"], obs + 1.0, d["terminated"], d["truncated"], d["log_ratio"], step)


def of_window(function: Callable[..., Any], *names: str, **options: Any) -> Callable[[Any], Any]:
    def call(d: dict[str, Any]) -> Any:
        ends = {"terminated": d["terminated"], "truncated": d["truncated"], "discount": 0.9}
        more = {key: d[key] if key == "log_ratio" else x for key, x in options.items()}
        return function(*(d[name] for name in names), **ends, **more)

    return call


def critic(params: Any, obs: Any) -> Any:
    return obs @ params


WEIGHTS = jnp.array([0.5, -1.0])
RETURNS = {
    "discounted_returns": of_window(pg.discounted_returns, "reward"),
    "discounted_returns in parallel": of_window(pg.discounted_returns, "reward", method="associative"),
    "n_step_returns": of_window(pg.n_step_returns, "reward", "next_value", n=3),
    "lambda_returns": of_window(pg.lambda_returns, "reward", "next_value", lam=0.8),
    "gae": of_window(pg.gae, "reward", "value", "next_value", lam=0.8),
    "gae in parallel": of_window(pg.gae, "reward", "value", "next_value", lam=0.8, method="associative"),
    "vtrace": of_window(pg.vtrace, "reward", "value", "next_value", log_ratio=None),
    "retrace": of_window(pg.retrace, "reward", "value", "next_value", log_ratio=None),
    "upgo": of_window(pg.upgo, "reward", "value", "next_value"),
    "affine_recurrence": lambda d: pg.affine_recurrence(d["reward"], d["value"], initial=1.0, reverse=False),
    "discount_weight": lambda d: pg.discount_weight(trajectory(d).step, 0.9),
    "bootstrap_values": lambda d: pg.bootstrap_values(WEIGHTS, trajectory(d), value=critic),
}
PER_STEP = {
    "value_baseline": lambda d: pg.value_baseline(WEIGHTS, trajectory(d), value=critic),
    "policy_gradient_loss": lambda d: pg.policy_gradient_loss(d["log_ratio"], d["value"]),
    "ppo_clip_loss": lambda d: pg.ppo_clip_loss(d["log_ratio"], d["value"]),
    "kl_penalty_loss": lambda d: pg.kl_penalty_loss(d["log_ratio"], d["value"], kl=d["reward"], coefficient=2.0),
    "value_loss": lambda d: pg.value_loss(d["value"], d["reward"]),
    "clipped_value_loss": lambda d: pg.clipped_value_loss(d["value"], d["reward"], old_value=d["next_value"]),
    "entropy_loss": lambda d: pg.entropy_loss(d["value"]),
    # Along time, so that the columns of one device are whole:
    "leave_one_out": lambda d: pg.leave_one_out(d["reward"], d["terminated"], axis=0),
    "batch_mean": lambda d: pg.batch_mean(d["reward"], axis=0),
    "masked_mean": lambda d: pg.masked_mean(d["reward"], d["terminated"], axis=0)[None],
}
# What mixes the columns is computed by each device on its own columns.
LOCAL = {
    "leave_one_out over columns": lambda d: pg.leave_one_out(d["reward"], d["terminated"]),
    "batch_mean over columns": lambda d: pg.batch_mean(d["reward"]),
    "standardize": lambda d: pg.standardize(d["reward"]),
    "standardize with a mask": lambda d: pg.standardize(d["reward"], d["terminated"]),
    "moving_mean": lambda d: pg.moving_mean(pg.update_moving_mean(pg.init_moving_mean(), d["reward"])).reshape(1, 1),
    "diagnostics": lambda d: jnp.stack([
        diagnostics.explained_variance(d["value"], d["reward"]),
        diagnostics.approximate_kl(d["log_ratio"]),
        diagnostics.clip_fraction(d["log_ratio"]),
        diagnostics.bound_fraction(30 * d["log_ratio"]),
        diagnostics.lost_gradient_fraction(30 * d["log_ratio"], d["value"]),
        diagnostics.effective_sample_size(d["log_ratio"]),
        diagnostics.cosine(d["value"], d["reward"]),
        diagnostics.pairwise_cosine(d["value"]),
        diagnostics.signal_to_noise(d["value"]),
    ])[:, None],
}  # fmt: skip


def together(functions: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """One program for all of them."""
    return lambda d: {name: function(d) for name, function in functions.items()}


def spread(
    function: Callable[[Any], Any], specs: PartitionSpec = SPREAD, *, given: PartitionSpec = SPREAD
) -> Callable[[Any], Any]:
    mesh = jax.make_mesh((DEVICES,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=given, out_specs=specs))


def check(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert set(got) == set(want)
    for name, result in got.items():
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(want[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)
        print(name)


def gradient_through_gae(d: dict[str, Any]) -> Any:
    return jax.grad(lambda reward: (RETURNS["gae"]({**d, "reward": reward}) * d["obs"]).sum())(d["reward"])


# What is the same on every device when the devices have put their parts together.


def mean_square(d: dict[str, Any]) -> Any:
    return (d["reward"] ** 2).mean()


def reduced_mean_square(d: dict[str, Any]) -> Any:
    return jax.lax.pmean(mean_square(d), "b")


def sum_of_epochs(d: dict[str, Any]) -> Any:
    step = lambda total, rows: (total + jax.lax.psum(rows.sum(), "b"), total)  # noqa: E731
    return pg.epochs(jax.random.key(0), 0.0, d["reward"], step=step, num_epochs=2, num_minibatches=2)[0]


REDUCED = {
    "accumulate": lambda d: jax.lax.pmean(pg.accumulate(mean_square, d, num_microbatches=2, axis=1), "b"),
    "accumulate of what is reduced": lambda d: pg.accumulate(reduced_mean_square, d, num_microbatches=2, axis=1),
    "epochs": sum_of_epochs,
}


def noisy(d: dict[str, Any]) -> Any:
    """Every device with a key of its own."""
    key = jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("b"))
    estimate = lambda key, params: params + jax.random.normal(key, (2,))  # noqa: E731
    pairs = pg.pair_statistics(key, jnp.ones(2), estimate=estimate, num_pairs=3)
    mean = pg.reference_gradient(key, jnp.ones(2), estimate=estimate, num_batches=3)
    order = pg.permutation(key, size=100)
    return {"pair_statistics": pairs.variance[None, :1], "reference_gradient": mean.gradient[None, :1],
            "permutation": order[None, :1]}  # fmt: skip


def acting(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params)


def remembering(params: Any, obs: Any, memory: Any) -> tuple[pg.Categorical, Any]:
    memory, _ = memory
    memory = 0.5 * memory + obs
    return acting(params, memory), (memory, jnp.zeros(2))


ROLLED = (
    "rollout", "episode return", "truncation value", "rollout with memory", "unroll_policy", "rollout_with_states",
    "evaluate", "reinforce",
)  # fmt: skip


def windows(key: Any) -> dict[str, Any]:
    """What a device does with environments and a key of its own; the parameters are the same everywhere."""
    env, env_params = gymnax.make("CartPole-v1")
    params, few = jnp.array([[0.3, -0.2]] * 4), env_params.replace(max_steps_in_episode=6)
    run = {"env": env, "env_params": few}
    start_key, key = jax.random.split(key)
    state = pg.init_rollout(start_key, **run, num_envs=2)
    with_memory = pg.init_rollout(start_key, **run, num_envs=2, policy_state=(jnp.zeros((2, 4)), jnp.zeros(2)))
    after, window = pg.rollout(key, params, state, policy=acting, **run, num_steps=9)
    value = lambda params, obs: obs @ params[:, 0]  # noqa: E731
    judged = pg.rollout(key, params, state, policy=acting, **run, num_steps=9, truncation_value=value)[1]
    _, remembered = pg.rollout(key, params, with_memory, policy=remembering, **run, num_steps=9)
    memory = {"policy_state": with_memory.policy_state, "start_policy_state": with_memory.policy_state}
    again, _ = pg.unroll_policy(params, remembered, **memory, policy=remembering)
    states = pg.rollout_with_states(key, params, state, policy=acting, **run, num_steps=3)[2]
    played = pg.evaluate(key, params, policy=acting, **run, num_episodes=2)
    gradient, _ = pg.reinforce(params, window, policy=acting, discount=0.9)
    return {
        "rollout": window.obs[..., 0],
        "episode return": after.episode_return[None],
        "truncation value": judged.truncation_value,
        "rollout with memory": remembered.log_prob,
        "unroll_policy": again.log_prob(remembered.action),
        "rollout_with_states": states.obs[..., 0],
        "evaluate": played.episode_return[None],
        "reinforce": gradient[0][None],
    }


def main() -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)
    assert len(jax.devices()) == DEVICES
    data = arrays()
    functions = {**RETURNS, **PER_STEP, "a gradient through gae": gradient_through_gae}
    functions["fold"] = lambda d: pg.fold(trajectory(d), discount=0.9).reward[None]
    check(spread(together(functions))(data), jax.jit(together(functions))(data))

    local = jax.jit(together(LOCAL))
    parts = [local(jax.tree.map(lambda x, i=i: x[:, i * 2 : i * 2 + 2], data)) for i in range(DEVICES)]
    check(spread(together(LOCAL))(data), jax.tree.map(lambda *xs: jnp.concatenate(xs, 1), *parts))

    reward = np.asarray(data["reward"], np.float64)
    want = {"accumulate": (reward**2).mean(), "epochs": 2 * reward.sum()}
    want["accumulate of what is reduced"] = want["accumulate"]
    check(spread(together(REDUCED), SAME)(data), want)

    keys = jax.random.split(jax.random.key(3), DEVICES)
    alone = jax.jit(windows)
    parts = [alone(key) for key in keys]
    want = jax.tree.map(lambda *xs: jnp.concatenate(xs, 1), *parts)
    # JAX adds up over devices what is differentiated with respect to something that they share.
    want["reinforce"] = jnp.tile(sum(part["reinforce"] for part in parts), (1, DEVICES))
    check(spread(lambda keys: windows(keys[0]), given=PartitionSpec("b"))(keys), want)

    for name, values in spread(noisy)(data).items():
        assert len(np.unique(values)) >= DEVICES - 1, name
        print(name)


if __name__ == "__main__":
    main()
