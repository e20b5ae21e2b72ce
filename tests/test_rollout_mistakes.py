"""Bad arguments of rollouts and of their starts, and bad environments, are refused by name."""

from typing import Any

import gymnax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import coin, collect, start

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
CARTPOLE, CARTPOLE_PARAMS = gymnax.make("CartPole-v1")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"num_steps": 0}, ValueError, "^num_steps must be at least 1"),
        ({"num_steps": 2.0}, TypeError, "^num_steps must be a Python int"),
        ({"policy": None}, TypeError, "^policy must be a function"),
        ({"state": 0.0}, TypeError, "^state must be a RolloutState, got .* Start with init_rollout"),
        ({"policy": lambda p, o: o}, TypeError, "^policy must return a distribution or"),
        ({"policy": lambda p, o: (coin(p, o), 1, 2)}, TypeError, "^policy must return a distribution or"),
        (
            {"policy": lambda p, o: pg.Categorical(jnp.zeros(2))},
            ValueError,
            "^the log_prob that policy",
        ),
        (
            {"policy": lambda p, o: pg.Normal(o[..., None], o[..., None] + 9)},
            ValueError,
            "^the log_prob that policy",
        ),
        ({"noise": np.zeros((5, 4, 2)), "actions": np.zeros((6, 4), int)}, ValueError, "^noise and actions are both"),
        (
            {"noise": np.zeros((4, 6, 2))},
            ValueError,
            r"^noise must have .* = \[6, 4\], got \[4, 6, 2\]",
        ),
        ({"actions": np.zeros(6, int)}, ValueError, r"^actions must have the leading axes .* got \[6\]"),
        ({"truncation_value": lambda p, o: o}, ValueError, "^the result of truncation_value must be one number"),
        ({"truncation_value": lambda p, o: o[..., 0].astype(int)}, TypeError, "^the result of truncation_value must"),
    ],
)
def test_bad_rollouts_are_named(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        collect(probes.TRUNCATES, **changes)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"num_envs": 0}, ValueError, "^num_envs must be at least 1"),
        ({"num_envs": 2.0}, TypeError, "^num_envs must be a Python int"),
        ({"env": object()}, TypeError, r"^env must have a method reset\(key, ...\), got object"),
        ({"env": []}, TypeError, "^env must be hashable"),
        ({"policy_state": jnp.zeros((3, 2))}, ValueError, "^every leaf of policy_state must have"),
        ({"policy_state": jnp.float32(0)}, ValueError, "^every leaf of policy_state"),
        (
            {"env_params": CARTPOLE_PARAMS.replace(gravity=jnp.ones(3))}, ValueError,
            r"^env_params.gravity must have shape \[\] or one row for each of the 4 environments, got \[3\]",
        ),
        ({"env_params": CARTPOLE_PARAMS.replace(gravity=jnp.ones((4, 1)))}, ValueError, "^env_params.gravity"),
    ],
)  # fmt: skip
def test_bad_starts_are_named(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        start(**{"env": CARTPOLE, "env_params": CARTPOLE_PARAMS, **changes})


@pytest.mark.parametrize(
    ("env", "error", "match"),
    [
        (probes.FiveValues(), TypeError, "^env.step must return six values .* Wrap an environment of the older"),
        (probes.NoFinalObservation(), TypeError, '^env.step must give the observation before the reset as info'),
        (probes.VectorReward(), ValueError, r"^the reward of env.step must be one number for each environment"),
    ],
)  # fmt: skip
def test_bad_environments_are_told_what_to_do(env: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        collect(env)
