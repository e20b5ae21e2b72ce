"""Laws that returns obey for every input, and what they estimate, by enumeration."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_returns import CASES, call, check, window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
T, B = 6, 3
NAMES = ["discounted_returns", "n_step_returns, n=2", "lambda_returns", "gae", "vtrace", "retrace", "upgo"]
SAME = {"rtol": 1e-9, "atol": 1e-9}

# Shapes are fixed and data are drawn, so that an example costs a call and not a compilation.
data_of_a_window = st.builds(
    lambda seed, ends: window(seed, T, B, ends=ends), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.5, 1.0])
)
law = settings(max_examples=12, deadline=None, database=None, derandomize=True)
every_function = pytest.mark.parametrize("name", NAMES)


def run(name: str, data: dict[str, Any], **more: Any) -> Any:
    return call(CASES[name].function, CASES[name], data, **more)


def rows(data: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: x[start:stop] for name, x in data.items()}


def consistent(data: dict[str, Any]) -> dict[str, Any]:
    """Inside an episode the value of what a step led to is the value of the next row."""
    done = (data["terminated"] | data["truncated"])[:-1]
    inside = np.where(done, data["next_value"][:-1], data["value"][1:])
    return {**data, "next_value": np.concatenate([inside, data["next_value"][-1:]])}


@every_function
@pytest.mark.parametrize("end", ["terminated", "truncated"])
@law
@given(data=data_of_a_window)
def test_gluing_two_windows_at_a_cut_concatenates(name: str, end: str, data: dict[str, Any]) -> None:
    at = T // 2
    data = {**data, end: data[end].copy()}
    data[end][at - 1] = True
    parts = run(name, rows(data, 0, at)), run(name, rows(data, at, T))
    glued = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    check(run(name, data), glued, **SAME)


@every_function
@law
@given(data=data_of_a_window)
def test_without_a_future_only_the_reward_counts(name: str, data: dict[str, Any]) -> None:
    data = {**data, "discount": np.zeros((T, B))}
    reward, value, ratio = data["reward"], data["value"], np.exp(data["log_ratio"])
    results = run(name, data)
    if name == "gae":
        check(results, reward - value, **SAME)
    elif name.startswith("vtrace"):
        options = {"clip_rho": 1.0, "clip_pg_rho": 1.0, **CASES[name].options}
        check(results[0], value + np.minimum(options["clip_rho"], ratio) * (reward - value), **SAME)
        check(results[1], np.minimum(options["clip_pg_rho"], ratio) * (reward - value), **SAME)
    else:
        check(results, reward, **SAME)


@every_function
@law
@given(data=data_of_a_window, shift=st.floats(-5, 5))
def test_a_shift_of_all_values_that_rewards_pay_for(name: str, data: dict[str, Any], shift: float) -> None:
    """With v + c, v' + c and r + c (1 - γ_t): every error stays, every target moves by c, no advantage does."""
    gamma = data["discount"] * (1 - data["terminated"])
    moved = {**data, "reward": data["reward"] + shift * (1 - gamma)}
    moved |= {key: data[key] + shift for key in ("value", "next_value")}
    before, after = run(name, data), run(name, moved)
    if name == "gae":
        check(after, before, **SAME)
    elif name.startswith("vtrace"):
        check(after, (before[0] + shift, before[1]), **SAME)
    else:
        check(after, before + shift, **SAME)


@every_function
@law
@given(data=data_of_a_window, scale=st.floats(0.1, 3), other=data_of_a_window)
def test_linear_in_rewards_and_values(name: str, data: dict[str, Any], scale: float, other: dict[str, Any]) -> None:
    arrays = ("reward", "value", "next_value")
    scaled = run(name, {**data, **{key: scale * data[key] for key in arrays}})
    check(scaled, jax.tree.map(lambda x: scale * x, run(name, data)), **SAME)
    if name != "upgo":  # which is only homogeneous: it chooses by comparing
        second = {**data, **{key: other[key] for key in arrays}}
        total = run(name, {**data, **{key: data[key] + other[key] for key in arrays}})
        check(total, jax.tree.map(lambda x, y: x + y, run(name, data), run(name, second)), **SAME)


@every_function
@law
@given(data=data_of_a_window, order=st.permutations(range(B)))
def test_identity_38_columns_do_not_see_each_other(name: str, data: dict[str, Any], order: list[int]) -> None:
    permuted = run(name, {key: x[:, np.array(order)] for key, x in data.items()})
    check(permuted, jax.tree.map(lambda x: x[:, np.array(order)], run(name, data)), rtol=0, atol=0)


@every_function
def test_a_batch_is_a_stack_of_single_windows(name: str) -> None:
    data = window(1, T, 2, B)
    singles = [[run(name, {key: x[:, s, b] for key, x in data.items()}) for b in range(B)] for s in range(2)]
    stacked = [jax.tree.map(lambda *xs: np.stack(xs, 1), *row) for row in singles]
    check(run(name, data), jax.tree.map(lambda *xs: np.stack(xs, 1), *stacked), **SAME)


@pytest.mark.parametrize("name", ["gae", "vtrace", "retrace"])
def test_vmap_over_the_rates_equals_a_loop(name: str) -> None:
    data, rates = window(2, T, B), jnp.array([[0.9, 0.0], [0.5, 1.0], [1.0, 0.3]])
    one = lambda rate: run(name, {**data, "discount": rate[0], "lam": rate[1]})  # noqa: E731
    looped = [run(name, {**data, "discount": float(rate[0]), "lam": float(rate[1])}) for rate in rates]
    check(jax.vmap(one)(rates), jax.tree.map(lambda *xs: np.stack(xs), *looped), **SAME)


# Identities 2, 3, 5 and 35 of the reference sheet.


@law
@given(data=data_of_a_window, lam=st.floats(0, 1))
def test_identity_02_gae_is_the_mixture_of_n_step_advantages(data: dict[str, Any], lam: float) -> None:
    data = consistent(data)
    masks = {key: data[key] for key in ("terminated", "truncated", "discount")}
    reward, value, next_value = data["reward"], data["value"], data["next_value"]
    gamma = data["discount"] * (1 - data["terminated"])
    returns = [pg.n_step_returns(reward, next_value, n=n, **masks) for n in range(1, T + 1)]
    weights = [(1 - lam) * lam**n for n in range(T - 1)] + [lam ** (T - 1)]
    mixture = sum(weight * g for weight, g in zip(weights, returns, strict=True)) - value
    check(pg.gae(reward, value, next_value, lam=lam, **masks), mixture, **SAME)
    check(pg.lambda_returns(reward, next_value, lam=lam, **masks), mixture + value, **SAME)
    check(pg.gae(reward, value, next_value, lam=0.0, **masks), reward + gamma * next_value - value, **SAME)
    complete = pg.discounted_returns(reward, next_value, **masks)
    check(pg.gae(reward, value, next_value, lam=1.0, **masks), complete - value, **SAME)


@law
@given(data=data_of_a_window, lam=st.floats(0, 1), clip=st.floats(1, 9))
def test_identity_03_vtrace_on_policy_is_td_lambda(data: dict[str, Any], lam: float, clip: float) -> None:
    data = {**consistent(data), "log_ratio": np.zeros((T, B)), "lam": lam}
    target, advantage = run("vtrace", data, clip_rho=clip, clip_c=clip, clip_pg_rho=clip)
    check(target, run("lambda_returns", data), **SAME)
    check(advantage, run("gae", data), **SAME)


@law
@given(data=data_of_a_window, lam=st.floats(0, 1), clip_rho=st.floats(0.3, 3), clip_c=st.floats(0.3, 3))
def test_the_advantage_of_pufferlib_is_the_target_less_the_value(
    data: dict[str, Any], lam: float, clip_rho: float, clip_c: float
) -> None:
    """A_t = Σ_k Π_{t<=j<k} γ_j λ min(c̄, ρ_j) · min(ρ̄, ρ_k) δ_k inside an episode, and GAE where every ratio is 1."""
    data = {**data, "lam": lam}
    clips = {"clip_rho": clip_rho, "clip_c": clip_c}
    target, _ = run("vtrace", data, **clips)
    done, ratio, expected = data["terminated"] | data["truncated"], np.exp(data["log_ratio"]), np.zeros((T, B))
    follow = np.where(data["terminated"], 0.0, data["next_value"])
    delta = np.minimum(clip_rho, ratio) * (data["reward"] + data["discount"] * follow - data["value"])
    for b, t in itertools.product(range(B), range(T)):
        weight = 1.0
        for k in range(t, T):
            expected[t, b] += weight * delta[k, b]
            weight *= data["discount"][k, b] * lam * min(clip_c, ratio[k, b])
            if done[k, b]:
                break
    check(target - data["value"], expected, **SAME)
    same = {**data, "log_ratio": np.zeros((T, B))}
    target, _ = run("vtrace", same, clip_rho=1.0, clip_c=1.0)
    check(target - data["value"], run("gae", same), **SAME)


@law
@given(data=data_of_a_window)
def test_identity_03_vtrace_without_clips_and_values_is_per_decision_importance_sampling(data: dict[str, Any]) -> None:
    data = {**data, "value": np.zeros((T, B)), "next_value": np.zeros((T, B)), "lam": 1.0}
    target, _ = run("vtrace, no clips", data)
    done, expected = data["terminated"] | data["truncated"], np.zeros((T, B))
    for b, t in itertools.product(range(B), range(T)):
        weight = 1.0
        for k in range(t, T):
            weight *= np.exp(data["log_ratio"][k, b])
            expected[t, b] += weight * data["reward"][k, b]
            weight *= data["discount"][k, b]
            if done[k, b]:
                break
    check(target, expected, **SAME)


@law
@given(data=data_of_a_window)
def test_identity_05_retrace_whose_traces_are_the_ratios_is_importance_sampling(data: dict[str, Any]) -> None:
    """Where no ratio is above 1 none is cut; without values the target is then the reward and what is weighed after."""
    zero, gamma = np.zeros((T, B)), data["discount"] * (1 - data["terminated"])
    data = {**data, "log_ratio": -np.abs(data["log_ratio"]), "value": zero, "next_value": zero, "lam": 1.0}
    done, expected = data["terminated"] | data["truncated"], np.zeros((T, B))
    for b, t in itertools.product(range(B), range(T)):
        weight = 1.0
        for k in range(t, T):
            expected[t, b] += weight * data["reward"][k, b]
            if done[k, b] or k == T - 1:
                break
            weight *= gamma[k, b] * np.exp(data["log_ratio"][k + 1, b])
    check(run("retrace", data), expected, **SAME)


@law
@given(data=data_of_a_window)
def test_identity_05_retrace_without_traces_is_expected_sarsa(data: dict[str, Any]) -> None:
    gamma = data["discount"] * (1 - data["terminated"])
    check(run("retrace", {**data, "lam": 0.0}), data["reward"] + gamma * data["next_value"], **SAME)


@law
@given(data=data_of_a_window)
def test_upgo_between_its_extremes(data: dict[str, Any]) -> None:
    gamma = data["discount"] * (1 - data["terminated"])
    one_step = data["reward"] + gamma * data["next_value"]
    low, high = ({**data, "value": np.full((T, B), c)} for c in (-1e3, 1e3))
    check(run("upgo", low), run("discounted_returns", data), **SAME)  # always better than expected
    check(run("upgo", high), one_step, **SAME)  # never
    action_value = np.full((T, B), 1e6)
    check(run("upgo", high, next_action_value=action_value), run("discounted_returns", data), **SAME)


# What the targets estimate: every path of three steps of a process of two states, with its probability under the
# behaviour policy.

GAMMA, PATH = 0.9, 3
REWARD = np.array([[1.0, -0.5], [0.3, 2.0]])
MOVE = np.array([[[0.8, 0.2], [0.3, 0.7]], [[0.5, 0.5], [0.1, 0.9]]])  # [state, action, next state]
TARGET, BEHAVIOUR = np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.3, 0.7], [0.5, 0.5]])


def state_values(policy: np.ndarray) -> np.ndarray:
    moves, rewards = np.einsum("sa,saz->sz", policy, MOVE), (policy * REWARD).sum(1)
    return np.linalg.solve(np.eye(2) - GAMMA * moves, rewards)


def every_path(state: int, action: int | None) -> tuple[np.ndarray, ...]:
    """(probability, states [PATH + 1, N], actions [PATH, N]) of all paths from a state, the first action given."""
    found = []
    for path in itertools.product(*[range(2)] * (2 * PATH)):
        actions, states = path[:PATH], (state, *path[PATH:])
        if action is not None and actions[0] != action:
            continue
        weight = 1.0
        for t in range(PATH):
            weight *= MOVE[states[t], actions[t], states[t + 1]]
            weight *= 1.0 if t == 0 and action is not None else BEHAVIOUR[states[t], actions[t]]
        found.append((weight, states, actions))
    weights, states, actions = (np.array(x) for x in zip(*found, strict=True))
    np.testing.assert_allclose(weights.sum(), 1.0)
    return weights, states.T, actions.T


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("state", "action"), [(0, 0), (1, 1)])
def test_identity_05_retrace_has_no_error_on_average_at_the_true_values(lam: float, state: int, action: int) -> None:
    value = state_values(TARGET)
    action_value = REWARD + GAMMA * MOVE @ value
    weights, states, actions = every_path(state, action)
    before = states[:-1]
    no = np.zeros(actions.shape, bool)
    target = pg.retrace(
        REWARD[before, actions], action_value[before, actions], value[states[1:]],
        log_ratio=np.log(TARGET / BEHAVIOUR)[before, actions], terminated=no, truncated=no, discount=GAMMA, lam=lam,
    )  # fmt: skip
    assert np.std(target[0]) > 0.1
    np.testing.assert_allclose(weights @ target[0], action_value[state, action], rtol=1e-12)


@pytest.mark.parametrize(("lam", "clip_c"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.3)])
@pytest.mark.parametrize("clip_rho", [1.0, 1.2, np.inf])
def test_identity_04_vtrace_has_the_fixed_point_that_clip_rho_sets(lam: float, clip_c: float, clip_rho: float) -> None:
    clipped = np.minimum(clip_rho * BEHAVIOUR, TARGET)
    value = state_values(clipped / clipped.sum(1, keepdims=True))
    weights, states, actions = every_path(0, None)
    before = states[:-1]
    no = np.zeros(actions.shape, bool)
    target, _ = pg.vtrace(
        REWARD[before, actions], value[before], value[states[1:]], clip_rho=clip_rho, clip_c=clip_c, lam=lam,
        log_ratio=np.log(TARGET / BEHAVIOUR)[before, actions], terminated=no, truncated=no, discount=GAMMA,
    )  # fmt: skip
    np.testing.assert_allclose(weights @ target[0], value[0], rtol=1e-12)
    assert clip_rho > 1.5 or abs(value[0] - state_values(TARGET)[0]) > 1e-3
