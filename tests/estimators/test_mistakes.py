"""Bad arguments, trajectories and own estimators are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import policy, random_window

import pgjax as pg
from pgjax.estimators import Surrogate

from .contributions import SCORE_FUNCTION, Scores, actor, value

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

BAD = {
    "logits": ({"policy": lambda p, obs: obs @ p}, TypeError, r"policy must return a distribution .* has log_prob"),
    "one number too many": (
        {"policy": lambda p, obs: Scores(pg.Categorical(obs @ p), extra_axis=True)},
        ValueError,
        r"the policy's log_prob must have the shape of trajectory.reward, \[7(, 3)?\], got \[7(, 3)?, 1\]",
    ),
    "discount": ({"discount": 1.5}, ValueError, r"discount must lie in \[0, 1\], got 1.5"),
    "discount by environment": (
        {"discount": np.ones(3)},
        ValueError,
        r"discount must be a scalar or have shape \[7, 3\], got \[3\]",
    ),
    "float mask": ({"mask": np.ones((7, 3))}, TypeError, "mask must be boolean, got float64"),
    "short mask": ({"mask": np.ones(7, bool)}, ValueError, r"mask must have shape \[7, 3\], got \[7\]"),
    "baseline by environment": (
        {"baseline": np.ones(3)},
        ValueError,
        r"baseline must be a scalar or have shape \[7, 3\], got \[3\]",
    ),
    "baseline by function": (
        {"baseline": lambda g: g.mean(0)},
        ValueError,
        r"the result of baseline\(return_\) must be a scalar or have shape \[7, 3\], got \[3\]",
    ),
    "boolean baseline": ({"baseline": np.ones((7, 3), bool)}, TypeError, "baseline must be a number, got bool"),
    "policy no function": ({"policy": [1]}, TypeError, "policy must be a function, got list"),
    "no policy": ({"policy": None}, TypeError, "policy must be a function, got NoneType"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["mean", "each"])
def test_bad_arguments_are_named(case: str, form: str) -> None:
    logits, batch = tabular.problem("three_state")[1], random_window(20, 3)
    change, kind, message = BAD[case]
    for name, estimator in SCORE_FUNCTION.items():
        call = estimator if form == "mean" else estimator.per_trajectory
        with pytest.raises(kind, match=message):
            call(logits, batch, **{"policy": policy, "discount": 0.9, **change})
        assert name == estimator.__name__


BAD_TRAJECTORIES = {
    "integer reward": (lambda t: t.replace(reward=t.action), TypeError, "trajectory.reward must have a floating dtype"),
    "float mask": (
        lambda t: t.replace(terminated=t.reward),
        TypeError,
        "trajectory.terminated must be boolean, got float64",
    ),
    "short mask": (
        lambda t: t.replace(truncated=t.truncated[:-1]),
        ValueError,
        r"trajectory.truncated must have shape \[7, 3\], got \[6, 3\]",
    ),
    "empty": (lambda t: jax.tree.map(lambda x: x[:0], t), ValueError, r"trajectory.reward is empty, shape \[0, 3\]"),
    "no environment": (lambda t: jax.tree.map(lambda x: x[:, :0], t), ValueError, "trajectory.reward is empty"),
    "no axis": (
        lambda t: jax.tree.map(lambda x: x[0, 0], t),
        ValueError,
        "trajectory.reward must have at least 1 axes",
    ),
    "a dictionary": (lambda t: {"reward": t.reward}, TypeError, "trajectory must be a Trajectory, got dict"),
}


@pytest.mark.parametrize("case", BAD_TRAJECTORIES)
def test_bad_trajectories_are_named(case: str) -> None:
    logits, batch = tabular.problem("three_state")[1], random_window(21, 3)
    change, kind, message = BAD_TRAJECTORIES[case]
    for estimator in SCORE_FUNCTION.values():
        for call in (estimator, estimator.per_trajectory):
            with pytest.raises(kind, match=message):
                call(logits, change(batch), policy=policy, discount=0.9)


def test_swapped_and_lonely_arguments_are_named() -> None:
    logits, batch = tabular.problem("three_state")[1], random_window(22, 1)
    with pytest.raises(
        TypeError, match=r"trajectory must be a Trajectory, .* takes \(params, trajectory\), in this order"
    ):
        pg.reinforce(batch, logits, policy=policy, discount=0.9)
    with pytest.raises(ValueError, match="return_ must hold at least 2 trajectories"):
        pg.reinforce(logits, batch, policy=policy, discount=0.9, baseline=pg.leave_one_out)
    with pytest.raises(ValueError, match=r"step_weight must be a scalar or have shape \[7, 1\]"):
        pg.reinforce(logits, batch, policy=policy, discount=0.9, step_weight=np.ones(7))
    with pytest.raises(TypeError, match="step must be an integer array"):
        pg.gpomdp(logits, batch.replace(step=batch.reward), policy=policy, discount=0.9)
    integers = lambda p, obs: type("Odd", (), {"log_prob": lambda self, action: action})()  # noqa: E731
    with pytest.raises(TypeError, match="log_prob must have a floating dtype, got int32"):
        pg.reinforce(logits, batch, policy=integers, discount=0.9)
    params = {"actor": logits, "critic": jnp.zeros(3)}
    kwargs = {"policy": actor, "discount": 0.9, "lam": 0.5}
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got 2.0"):
        pg.actor_critic(params, batch, value=value, **{**kwargs, "lam": 2.0})
    with pytest.raises(ValueError, match=r"the result of value\(params, obs\) must "):
        pg.actor_critic(params, batch, value=lambda p, obs: value(p, obs)[..., None], **kwargs)
    with pytest.raises(ValueError, match="trajectory keeps neither next_obs nor truncation_value"):
        pg.actor_critic(params, batch.replace(next_obs=None), value=value, **kwargs)


def test_mistakes_in_an_own_estimator_are_named() -> None:
    logits, batch = tabular.problem("three_state")[1], random_window(23, 2)
    with pytest.raises(TypeError, match=r"an estimator must take \(params, trajectory, \*, ...\)"):
        pg.estimator()(lambda trajectory, params: None)
    with pytest.raises(TypeError, match=r"the arguments of estimator must be names, got \(3,\)"):
        pg.estimator(3)  # type: ignore[call-overload]
    with pytest.raises(
        TypeError, match=r"must be a Surrogate or a Contributions, got .* Return Surrogate\(loss, targets\) or"
    ):
        pg.estimator()(lambda params, trajectory: trajectory.reward)(logits, batch)
    scalar = pg.estimator()(lambda params, trajectory: Surrogate(lambda *_: jnp.float32(0), trajectory.reward))
    with pytest.raises(ValueError, match=r"the loss of the estimator must have the shape of trajectory.reward"):
        scalar(logits, batch)
