"""Emphatic weights and doubly robust returns against sums written out, and over every trajectory of another policy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


@functools.cache
def window(*batch: int) -> dict[str, np.ndarray]:
    """Seven steps with ends of both kinds, [7, ...]."""
    random = np.random.default_rng(3)
    shape = (7, *batch)
    floats = {name: random.normal(size=shape) for name in ("reward", "q", "v", "next_value", "log_ratio")}
    return {
        **floats,
        "terminated": random.random(shape) < 0.25,
        "truncated": random.random(shape) < 0.2,
        "discount": random.uniform(0.5, 1.0, shape),
        "interest": random.uniform(0.0, 2.0, shape),
        "lam": random.uniform(0.0, 1.0, shape),
        "initial": random.normal(size=batch),
    }


def emphasis(d: dict[str, Any], method: Any = None) -> Any:
    ends = {"terminated": d["terminated"], "truncated": d["truncated"], "discount": d["discount"]}
    return pg.emphatic_weight(
        d["log_ratio"], interest=d["interest"], lam=d["lam"], initial=d["initial"], method=method, **ends
    )


def robust(d: dict[str, Any], method: Any = None) -> Any:
    ends = {"terminated": d["terminated"], "truncated": d["truncated"], "discount": d["discount"]}
    return pg.doubly_robust_returns(
        d["reward"], d["q"], d["v"], log_ratio=d["log_ratio"], next_value=d["next_value"], method=method, **ends
    )


def emphasis_by_sums(d: dict[str, Any]) -> np.ndarray:
    """Of one column: what each earlier step of the episode hands on, as a product of its own."""
    rho, done = np.exp(d["log_ratio"]), d["terminated"] | d["truncated"]
    out = np.zeros(7)
    for t in range(7):
        trace = 0.0
        for k in range(t + 1):
            if not done[k:t].any():
                trace += d["interest"][k] * np.prod(d["discount"][k:t] * rho[k:t])
        if not done[:t].any():
            trace += d["initial"] * np.prod(d["discount"][:t] * rho[:t])
        out[t] = (1 - d["lam"][t]) * d["interest"][t] + d["lam"][t] * trace
    return out


def robust_by_sums(d: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of one column: v + Σ_k (Π γ ρ) ρ_k (r_k + γ v_{k+1} - q_k), which telescopes to the recursion."""
    rho, done = np.exp(d["log_ratio"]), d["terminated"] | d["truncated"]
    follows = np.append(d["v"][1:], 0.0)
    cut = done | (np.arange(7) == 6)
    gamma = np.where(d["terminated"], 0.0, d["discount"])
    error = d["reward"] + gamma * np.where(cut, d["next_value"], follows) - d["q"]
    state, action = np.zeros(7), np.zeros(7)
    for t in range(7):
        last = next(k for k in range(t, 7) if cut[k])
        parts = [np.prod(gamma[t:k] * rho[t:k]) * rho[k] * error[k] for k in range(t, last + 1)]
        state[t] = d["v"][t] + sum(parts)
        action[t] = d["q"][t] + sum(parts) / rho[t]
    return state, action


@pytest.mark.parametrize("method", ["scan", "associative"])
def test_both_are_the_sums_written_out(method: str) -> None:
    d = window(2, 3)
    together = jax.jit(lambda d: (emphasis(d, method), *robust(d, method)))(d)
    column = {name: x[..., 1, 2] for name, x in d.items()}
    assert (column["terminated"] | column["truncated"])[:-1].any()
    for i, j in np.ndindex(2, 3):
        column = {name: x[..., i, j] for name, x in d.items()}
        for got, want in zip(together, (emphasis_by_sums(column), *robust_by_sums(column)), strict=True):
            close(got[:, i, j], want)


def test_a_trace_goes_on_in_the_next_window_where_it_is_handed_over() -> None:
    d = {**window(3), "lam": np.ones((7, 3)), "initial": np.zeros(3)}
    whole = np.asarray(emphasis(d))
    first = {name: x[:4] if x.shape[:1] == (7,) else x for name, x in d.items()}
    done = (first["terminated"] | first["truncated"])[-1]
    handed = np.where(done, 0.0, first["discount"][-1] * np.exp(first["log_ratio"][-1]) * whole[3])
    second = {name: x[4:] if x.shape[:1] == (7,) else x for name, x in d.items()} | {"initial": handed}
    assert not done.all()
    close(np.concatenate([emphasis(first), emphasis(second)]), whole)


def test_special_cases_have_their_names() -> None:
    d = {**window(4), "terminated": np.zeros((7, 4), bool), "truncated": np.zeros((7, 4), bool), "discount": 0.9}
    ends = {"terminated": d["terminated"], "truncated": d["truncated"], "discount": 0.9}
    ratio = np.exp(d["log_ratio"])
    # Interest in the first step: γ^t and the ratio of all actions before t.
    step = np.broadcast_to(np.arange(7)[:, None], (7, 4))
    got = pg.emphatic_weight(d["log_ratio"], interest=(step == 0) * 1.0, **ends)
    before = np.concatenate([np.ones((1, 4)), np.cumprod(ratio, 0)[:-1]])
    close(got, 0.9**step * before)
    close(pg.emphatic_weight(d["log_ratio"], interest=2.0, lam=0.0, **ends), 2.0)
    # q = v = 0 off policy: V-trace without clips and values.
    zero = np.zeros((7, 4))
    state, _ = pg.doubly_robust_returns(d["reward"], zero, zero, log_ratio=d["log_ratio"], **ends)
    target, _ = pg.vtrace(
        d["reward"], zero, zero, log_ratio=d["log_ratio"], clip_rho=1e9, clip_c=1e9, clip_pg_rho=1e9, **ends
    )
    close(state, target)
    # On policy: the return less what the critic knew of later actions.
    _, action = pg.doubly_robust_returns(d["reward"], d["q"], d["v"], log_ratio=zero, **ends)
    later = pg.discounted_returns(d["q"] - d["v"], **ends) - (d["q"] - d["v"])
    close(action, pg.discounted_returns(d["reward"], **ends) - later)


def test_identity_11_the_mean_of_the_trace_given_the_state_is_the_emphasis() -> None:
    mdp, logits, behaviour = exact.two_state(), exact.two_state_logits(), exact.two_state_behaviour()
    gamma, probs = float(mdp.discount), np.asarray(jax.nn.softmax(logits))
    visits = np.linalg.matrix_power(np.einsum("sa,sat->st", behaviour, mdp.transition), 200)[0]
    np.testing.assert_allclose(visits, [0.4827586207, 0.5172413793], atol=1e-9)
    started = exact.TabularMDP(mdp.transition, mdp.reward, jnp.asarray(visits), mdp.discount)
    batch, weights = exact.trajectories(started, behaviour, 5)
    state = np.asarray(batch.obs).argmax(-1)
    ratio = np.log(probs[state, np.asarray(batch.action)]) - batch.log_prob
    no = jnp.zeros_like(batch.terminated)
    interest = np.array([0.4, 1.7])
    chain = np.einsum("sa,sat->st", probs, mdp.transition)
    m = np.linalg.solve(np.eye(2) - gamma * chain.T, visits * interest)
    weight = jax.jit(lambda ratio: pg.emphatic_weight(
        ratio, terminated=no, truncated=no, discount=gamma, interest=jnp.asarray(interest[state])))  # fmt: skip
    for ratios, right in ((ratio, True), (0.0 * ratio, False)):
        found = np.einsum("n,tn,tns->ts", np.asarray(weights), weight(ratios), np.asarray(batch.obs))
        # The trace of t + 1 steps lacks (γ P^T)^{t+1} m of what it tends to.
        complete = [f + np.linalg.matrix_power(gamma * chain.T, t + 1) @ m for t, f in enumerate(found)]
        off = np.abs(np.stack(complete) - m).max(1)
        assert (off.max() < 1e-12) if right else (off[1:].min() > 1e-2)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_doubly_robust_returns_have_the_values_of_the_policy_as_their_mean(scale: float) -> None:
    mdp, logits, behaviour = exact.two_state(), exact.two_state_logits(), exact.two_state_behaviour()
    probs = np.asarray(jax.nn.softmax(logits))
    batch, weights = exact.trajectories(mdp, behaviour, 4)
    table = scale * np.random.default_rng(1).normal(size=(2, 2))
    state, action = np.asarray(batch.obs).argmax(-1), np.asarray(batch.action)
    q, v = table[state, action], (probs * table).sum(1)[state]
    ends = {"terminated": batch.terminated, "truncated": batch.truncated, "discount": mdp.discount}
    run = jax.jit(lambda v: pg.doubly_robust_returns(
        batch.reward, q, v, log_ratio=np.log(probs[state, action]) - batch.log_prob, **ends)[0])  # fmt: skip
    value = np.zeros(2)
    for _ in range(4):
        value = (probs * (mdp.reward + mdp.discount * mdp.transition @ value)).sum(1)
    close(np.asarray(weights) @ run(v)[0], np.asarray(mdp.initial) @ value)
    assert abs(np.asarray(weights) @ run(v + 0.1)[0] - np.asarray(mdp.initial) @ value) > 0.05


def test_what_lies_behind_a_cut_does_not_matter() -> None:
    d = {name: np.array(x) for name, x in window(2).items()}
    d["terminated"][:], d["truncated"][:] = False, False
    d["terminated"][2, 0] = d["truncated"][2, 1] = True
    both = jax.jit(lambda d: (emphasis(d), *robust(d)))
    clean = both(d)
    dirty = {name: np.array(x) for name, x in d.items()}
    for name in ("reward", "q", "v", "log_ratio"):
        dirty[name][3:] = np.nan
    for x, y in zip(both(dirty)[1:], clean[1:], strict=True):
        close(x[:3], y[:3])
    before = {name: np.array(x) for name, x in d.items()}
    before["log_ratio"][:3] = np.nan
    before["initial"][:] = np.inf
    close(both(before)[0][3:], clean[0][3:])
    slope = jax.grad(lambda q: robust({**dirty, "q": q})[0][:3].sum())(dirty["q"])
    assert np.isfinite(slope).all()


ENDS = {"terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool), "discount": 0.9}
BAD = [
    (lambda: pg.emphatic_weight(np.zeros(3, int), **ENDS), TypeError, "log_ratio must have a floating dtype"),
    (lambda: pg.emphatic_weight(np.zeros(3), lam=2.0, **ENDS), ValueError, r"lam must lie in \[0, 1\], got 2"),
    (lambda: pg.emphatic_weight(np.zeros(3), interest=np.zeros(3, bool), **ENDS), TypeError, "interest must be a num"),
    (lambda: pg.emphatic_weight(np.zeros(3), interest=np.zeros(2), **ENDS), ValueError, "interest must be a scalar or"),
    (lambda: pg.emphatic_weight(np.zeros(4), **ENDS), ValueError, "terminated must have shape"),
    (
        lambda: pg.doubly_robust_returns(np.zeros(3), np.zeros(3), np.zeros(2), log_ratio=np.zeros(3), **ENDS),
        ValueError,
        "state_value must have the shape of reward",
    ),
    (
        lambda: pg.doubly_robust_returns(
            np.zeros(3), np.zeros(3), np.zeros(3), log_ratio=np.zeros(3), next_value=np.zeros(1), **ENDS
        ),
        ValueError,
        "next_value must have the shape of reward",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_arguments_are_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
