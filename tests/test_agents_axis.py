"""Agents are one more batch axis: [T, B, A] gives what [T, B] gives for each agent by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_returns import CASES, call, window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
T, B, A = 5, 4, 3
CRITIC = np.array([0.7, -1.3])


def arrays() -> dict[str, Any]:
    data = window(20, T, B, A)
    return {**data, "kl": np.abs(data["value"]), "mask": data["terminated"]}


def trajectory(d: dict[str, Any]) -> pg.Trajectory:
    obs = jnp.stack([jnp.asarray(d["value"]), jnp.asarray(d["log_ratio"])], -1)
    step = jnp.cumsum(jnp.ones_like(d["reward"], int), 0) - 1
    return pg.Trajectory(
        obs, obs, jnp.asarray(d["reward"]), obs + 0.5, d["terminated"], d["truncated"], d["log_ratio"], step
    )


def critic(params: Any, obs: Any) -> Any:
    return obs @ params


def of_case(name: str) -> Callable[[Any], Any]:
    return lambda d: call(CASES[name].function, CASES[name], d)


RETURNS = ["discounted_returns", "n_step_returns, n=2", "lambda_returns", "gae", "vtrace", "retrace", "upgo"]
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    **{name: of_case(name) for name in RETURNS},
    "affine_recurrence": lambda d: pg.affine_recurrence(d["reward"], d["discount"]),
    "bootstrap_values": lambda d: pg.bootstrap_values(CRITIC, trajectory(d), value=critic),
    "discount_weight": lambda d: pg.discount_weight(trajectory(d).step, 0.9),
    "fold": lambda d: pg.fold(trajectory(d), discount=0.9).replace(obs=None, action=None, next_obs=None),
    "leave_one_out": lambda d: pg.leave_one_out(d["reward"], d["mask"], axis=1),
    "batch_mean": lambda d: pg.batch_mean(d["reward"], axis=1),
    "value_baseline": lambda d: pg.value_baseline(CRITIC, trajectory(d), value=critic),
    "policy_gradient_loss": lambda d: pg.policy_gradient_loss(d["log_ratio"], d["value"]),
    "ppo_clip_loss": lambda d: pg.ppo_clip_loss(d["log_ratio"], d["value"]),
    "kl_penalty_loss": lambda d: pg.kl_penalty_loss(d["log_ratio"], d["value"], kl=d["kl"], coefficient=2.0),
    "value_loss": lambda d: pg.value_loss(d["value"], d["reward"]),
    "clipped_value_loss": lambda d: pg.clipped_value_loss(d["value"], d["reward"], old_value=d["next_value"]),
    "entropy_loss": lambda d: pg.entropy_loss(d["value"]),
    "masked_mean": lambda d: pg.masked_mean(d["reward"], d["mask"], axis=(0, 1)),
    "accumulate": lambda d: pg.accumulate(
        lambda part: (part.reward**2).mean((0, 1)), trajectory(d), num_microbatches=2
    ),
}  # fmt: skip


def test_agents_are_one_more_batch_axis() -> None:
    """One program for all functions on [T, B, A], and one for all of them on [T, B]."""
    every = jax.jit(lambda d: {name: function(d) for name, function in FUNCTIONS.items()})
    data = arrays()
    together = every(data)
    alone = [every({name: x[..., a] for name, x in data.items()}) for a in range(A)]
    for name, result in together.items():
        for got, *wants in zip(*(jax.tree.leaves(x[name]) for x in (together, *alone)), strict=True):
            np.testing.assert_allclose(got, np.stack(wants, -1), rtol=1e-12, atol=1e-12, err_msg=name)
            assert got.shape[-1] == A, name
        assert len(jax.tree.leaves(result)) > 0


def test_epochs_shuffle_steps_environments_and_agents_as_one_axis() -> None:
    ids = jnp.arange(T * B * A).reshape(T, B, A)
    _, seen = pg.epochs(
        jax.random.key(0), 0, {"id": ids, "more": jnp.stack([ids, -ids], -1)}, step=lambda c, x: (c, x),
        num_epochs=1, num_minibatches=2, num_axes=3,
    )  # fmt: skip
    np.testing.assert_array_equal(np.sort(seen["id"].ravel()), np.arange(T * B * A))
    np.testing.assert_array_equal(seen["more"][..., 1], -seen["id"])
