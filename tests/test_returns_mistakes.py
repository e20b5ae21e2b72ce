"""Mistakes found in the returns of other libraries, planted to see that ours gives another number; and bad input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

T, B = 5, 2


def data(seed: int = 0, *shape: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shape = shape or (T, B)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name in ("reward", "value", "next_value")}
    return {**arrays, "terminated": np.zeros(shape, bool), "truncated": np.zeros(shape, bool)}


def gae(d: dict[str, Any], **changes: Any) -> Any:
    d = {"discount": 0.9, "lam": 0.8, **d, **changes}
    return pg.gae(d.pop("reward"), d.pop("value"), d.pop("next_value"), **d)


def test_gae_is_not_one_lambda_short() -> None:
    """r + γ G(λ)_{t+1} - v is δ + γ A_{t+1}: its first step carries no λ."""
    d = data()
    d["next_value"][:-1] = d["value"][1:]
    target = gae(d) + d["value"]
    following = np.concatenate([target[1:], d["next_value"][-1:]])
    short = d["reward"] + 0.9 * following - d["value"]
    advantage = gae(d)
    assert np.abs(short - advantage)[:-1].min() > 1e-3
    delta = d["reward"] + 0.9 * d["next_value"] - d["value"]
    np.testing.assert_allclose(advantage[-2], delta[-2] + 0.9 * 0.8 * delta[-1], rtol=1e-5)


def test_ends_are_not_merged_into_one_mask() -> None:
    d = data()
    d["truncated"][2] = True
    merged = {**d, "terminated": d["truncated"], "truncated": np.zeros((T, B), bool)}
    difference = np.asarray(gae(d) - gae(merged))
    np.testing.assert_allclose(difference[2], 0.9 * d["next_value"][2], rtol=1e-4)
    np.testing.assert_allclose(difference[3:], 0.0)


def test_vtrace_at_a_boundary_is_cut_in_time_not_in_the_batch() -> None:
    """Both parts computed alone equal the whole; without the boundary the first part is another, so this can fail."""
    d = {**data(), "log_ratio": np.random.default_rng(1).normal(size=(T, B)).astype(np.float32)}
    d["truncated"][1] = True

    def vtrace(d: dict[str, Any]) -> Any:
        arrays = (d["reward"], d["value"], d["next_value"])
        masks = {name: d[name] for name in ("terminated", "truncated", "log_ratio")}
        return pg.vtrace(*arrays, discount=0.9, lam=0.8, **masks)

    whole = vtrace(d)
    first, second = (vtrace({name: x[part] for name, x in d.items()}) for part in (slice(0, 2), slice(2, T)))
    uncut = vtrace({**d, "truncated": np.zeros((T, B), bool)})
    for a, b, c, w in zip(first, second, uncut, whole, strict=True):
        np.testing.assert_allclose(np.concatenate([a, b]), w, rtol=1e-5, atol=1e-6)
        assert np.abs(c - w)[:2].min() > 1e-4


@pytest.mark.parametrize("method", ["scan", "associative"])
def test_long_windows_do_not_underflow(method: Any) -> None:
    """The closed form with a cumulative sum of logs divides by (γλ)^t, which float32 cannot hold at this size."""
    size = 2048
    d = data(2, size, 1)
    with np.errstate(all="ignore"):
        delta = d["reward"] + np.float32(0.99) * d["next_value"] - d["value"]
        power = np.exp(np.cumsum(np.full((size, 1), np.log(0.99 * 0.95), np.float32), 0))
        logs = np.cumsum((power * delta)[::-1], 0)[::-1] / power
    assert not np.isfinite(logs).all()
    advantage = gae(d, discount=0.99, lam=0.95, method=method)
    expected, carry = np.zeros((size, 1)), np.zeros(1)
    for t in reversed(range(size)):
        carry = expected[t] = delta[t].astype(float) + 0.99 * 0.95 * carry
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("log_ratio", [1e4, -1e4, np.inf, -np.inf])
def test_extreme_ratios_stay_finite(log_ratio: float) -> None:
    d = data(3)
    d["next_value"][:-1] = d["value"][1:]
    ratios = jnp.full((T, B), log_ratio, jnp.float32)
    arrays, masks = (d["reward"], d["value"], d["next_value"]), {k: d[k] for k in ("terminated", "truncated")}
    both = pg.vtrace(*arrays, log_ratio=ratios, discount=0.9, **masks)
    single = pg.retrace(*arrays, log_ratio=ratios, discount=0.9, **masks)
    assert all(np.isfinite(x).all() for x in (*both, single))
    # Clipped from above it is on-policy; from below nothing is learnt from the step.
    np.testing.assert_allclose(both[1], gae(d, lam=1.0) if log_ratio > 0 else 0.0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[0] - d["value"], gae(d, lam=1.0) if log_ratio > 0 else 0.0, rtol=1e-5, atol=1e-6)


def test_a_step_weight_of_zero_to_the_zero_is_one_and_differentiable() -> None:
    steps = jnp.arange(4)
    np.testing.assert_allclose(pg.discount_weight(steps, 0.0), [1, 0, 0, 0])
    np.testing.assert_allclose(jax.vmap(jax.grad(pg.discount_weight, 1), (0, None))(steps, 0.0), [0, 1, 0, 0])
    np.testing.assert_allclose(pg.discount_weight(steps, 1.0), 1.0)


@pytest.mark.parametrize("method", ["scan", "associative"])
def test_gradients_equal_finite_differences(method: Any) -> None:
    d = data(4)
    d["truncated"][1] = True
    d["terminated"][3, 0] = True
    names = ("reward", "value", "next_value")

    def total(*floats: Any) -> Any:
        *arrays, discount, lam = floats
        changes = dict(zip(names, arrays, strict=True), discount=discount, lam=lam, method=method)
        return (jnp.arange(1.0, 1 + T * B).reshape(T, B) * gae(d, **changes)).sum()

    with jax.enable_x64(True):
        at = (*(jnp.asarray(d[name], jnp.float64) for name in names), jnp.float64(0.9), jnp.float64(0.8))
        grads = jax.grad(total, argnums=tuple(range(5)))(*at)
        for i, grad in enumerate(grads):
            direction = jnp.cos(jnp.arange(at[i].size, dtype=jnp.float64)).reshape(at[i].shape)
            sides = (total(*at[:i], at[i] + step * direction, *at[i + 1 :]) for step in (1e-6, -1e-6))
            np.testing.assert_allclose((grad * direction).sum(), -np.diff([*sides])[0] / 2e-6, rtol=1e-7)


# Bad input: each call fails early and names the argument.


def returns(name: str, **changes: Any) -> Callable[[], Any]:
    def call() -> Any:
        d = {**data(), "discount": 0.9, **changes}
        if name in ("gae", "vtrace", "retrace", "lambda_returns"):
            d = {"lam": 0.8, **d}
        if name in ("vtrace", "retrace"):
            d = {"log_ratio": np.zeros((T, B), np.float32), **d}
        if name == "n_step_returns":
            d = {"n": 2, **d}
        second = {"retrace": ("value", "next_value"), "gae": ("value", "next_value"), "vtrace": ("value", "next_value")}
        arrays = [d.pop("reward")]
        value, next_value = d.pop("value"), d.pop("next_value")
        arrays += [value, next_value] if name in second or name == "upgo" else [next_value]
        return getattr(pg, name)(*arrays, **d)

    return call


F = np.float32
EVERY = ["discounted_returns", "n_step_returns", "lambda_returns", "gae", "vtrace", "retrace", "upgo"]
WITH_VALUE = ["gae", "vtrace", "upgo"]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"reward": np.ones((T, B), int)}, TypeError, "^reward must have a floating dtype, got int"),
        ({"reward": np.zeros((0, B), F)}, ValueError, "^reward is empty"),
        ({"reward": np.zeros((T, 0), F)}, ValueError, "^reward is empty"),
        ({"reward": F(1.0)}, ValueError, "^reward must have at least 1 axes"),
        ({"reward": None}, TypeError, "^reward is required, got None|reward"),
        (
            {"next_value": np.zeros((B, T), F)},
            ValueError,
            r"value must have the shape of reward, \[5, 2\], got \[2, 5\]",
        ),
        ({"next_value": np.zeros((T + 1, B), F)}, ValueError, "value must have the shape of reward"),
        ({"terminated": np.zeros((T, B), F)}, TypeError, "^terminated must be boolean, got float32"),
        ({"truncated": np.zeros((T, B), int)}, TypeError, "^truncated must be boolean, got int"),
        ({"truncated": np.zeros(T, bool)}, ValueError, r"^truncated must have shape \[5, 2\], got \[5\]"),
        ({"discount": np.zeros((T, B), bool)}, TypeError, "^discount must be a number, got bool"),
        ({"discount": np.zeros(B, F)}, ValueError, "^discount must be a scalar or have shape"),
        ({"discount": 99.0}, ValueError, r"^discount must lie in \[0, 1\], got 99"),
        ({"discount": float("nan")}, ValueError, r"^discount must lie in \[0, 1\], got nan"),
    ],
)
def test_bad_windows_are_named(name: str, changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        returns(name, **changes)()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        *((returns(name, value=np.zeros(T, F)), ValueError, "^value must have the shape") for name in WITH_VALUE),
        *((returns(name, value=np.zeros((T, B), int)), TypeError, "^value must have a float") for name in WITH_VALUE),
        (returns("retrace", value=np.zeros(T, F)), ValueError, "^action_value must have the shape of reward"),
        (returns("vtrace", log_ratio=np.zeros((T, B), int)), TypeError, "^log_ratio must have a floating dtype"),
        (returns("retrace", log_ratio=np.zeros(T, F)), ValueError, "^log_ratio must have the shape of reward"),
        (returns("vtrace", clip_rho=np.ones(B)), ValueError, "^clip_rho must be a scalar"),
        (returns("vtrace", clip_c=np.ones(B)), ValueError, "^clip_c must be a scalar"),
        (returns("vtrace", clip_pg_rho=np.ones(B)), ValueError, "^clip_pg_rho must be a scalar"),
        (returns("gae", lam=1.5), ValueError, r"^lam must lie in \[0, 1\]"),
        (returns("gae", lam=np.zeros(T)), ValueError, "^lam must be a scalar or have shape"),
        (returns("gae", method="fast"), ValueError, '^method must be "scan"'),
        (returns("upgo", next_action_value=np.zeros(T, F)), ValueError, "^next_action_value must have the shape"),
        (returns("n_step_returns", n=0), ValueError, "^n must be at least 1, got 0"),
        (returns("n_step_returns", n=2.0), TypeError, "^n must be a Python int"),
        (lambda: pg.discount_weight(jnp.arange(3.0), 0.5), TypeError, "^step must be an integer array"),
        (lambda: pg.discount_weight(jnp.arange(3), 2.0), ValueError, r"^discount must lie in \[0, 1\], got 2"),
        (lambda: pg.affine_recurrence(jnp.ones(3), jnp.ones(2)), ValueError, "^w must have the shape of u"),
        (lambda: pg.affine_recurrence(jnp.ones((3, 2)), jnp.ones((3, 2)), initial=jnp.ones(3)), ValueError, "^initial"),
        (lambda: pg.affine_recurrence(jnp.ones(3), jnp.ones(3), method=[]), TypeError, "^method must be hashable"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_swapped_arguments_are_refused() -> None:
    d = data()
    reward, value, next_value, no = d["reward"], d["value"], d["next_value"], d["terminated"]
    with pytest.raises(TypeError, match="takes 3 arguments by position"):
        pg.gae(reward, 0.9, value, next_value, terminated=no, truncated=no, discount=0.9, lam=0.8)
    with pytest.raises(ValueError, match=r"^value must have the shape of reward, \[5, 2\], got \[\]"):
        pg.gae(reward, 0.9, next_value, terminated=no, truncated=no, discount=0.9, lam=0.8)
    with pytest.raises(TypeError, match=r"^terminated must be boolean"):
        pg.gae(reward, value, next_value, terminated=1.0 - no, truncated=no, discount=0.9, lam=0.8)
    with pytest.raises(TypeError, match=r"^discount must be a number, got bool"):
        pg.gae(reward, value, next_value, terminated=no, truncated=no, discount=no, lam=0.8)
    with pytest.raises(TypeError, match=r"^reward must have a floating dtype, got bool"):
        pg.gae(no, value, next_value, terminated=no, truncated=no, discount=0.9, lam=0.8)


def test_one_step_of_one_environment_is_enough() -> None:
    for name in EVERY:
        one = {key: x[:1, :1] for key, x in data().items()}
        more = {"log_ratio": np.zeros((1, 1), F)} if name in ("vtrace", "retrace") else {}
        out = returns(name, **one, **more)()
        assert all(x.shape == (1, 1) and np.isfinite(x).all() for x in jax.tree.leaves(out))
