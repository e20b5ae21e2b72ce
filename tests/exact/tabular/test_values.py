"""Values, visits and averages, with and without a horizon, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_answers import PRINTED, TWO_STATE

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, numpy, two_state


@jax.jit
def values(mdp, probs):
    """What holds with and without a horizon."""
    return {
        "value": exact.value(mdp, probs),
        "action_value": exact.action_value(mdp, probs),
        "advantage": exact.advantage(mdp, probs),
        "visitation": exact.visitation(mdp, probs),
        "objective": exact.objective(mdp, probs),
    }


@jax.jit
def averages(mdp, probs):
    return {
        "stationary_distribution": exact.stationary_distribution(mdp, probs),
        "average_reward": exact.average_reward(mdp, probs),
        "value": exact.differential_value(mdp, probs),
        "action_value": exact.differential_action_value(mdp, probs),
    }


@jax.jit
def over_time(mdp, probs):
    return {
        "values": exact.values_over_time(mdp, probs),
        "action_values": exact.action_values_over_time(mdp, probs),
        "advantages": exact.advantages_over_time(mdp, probs),
        "visits": exact.visitation_over_time(mdp, probs),
    }


def test_two_state_figures():
    mdp, _, probs = two_state()
    close(probs, TWO_STATE.probs, atol=PRINTED[10])
    got = values(mdp, probs)
    for name in ("value", "action_value", "visitation"):
        close(got[name], getattr(TWO_STATE, name), atol=PRINTED[10])
    got = averages(mdp, probs)
    for name in ("stationary_distribution", "average_reward"):
        close(got[name], getattr(TWO_STATE, name), atol=PRINTED[10])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 500), st.floats(0.0, 0.9))
def test_discounted_values_are_the_limit_of_loops(seed, discount):
    mdp, _, probs = garnet(seed, discount)
    value, q, visits = loop_values(mdp, probs, 400)
    got = numpy(values(mdp, probs))
    close(got["value"], value, rtol=1e-10, atol=1e-10)
    close(got["action_value"], q, rtol=1e-10, atol=1e-10)
    close(got["visitation"], visits, rtol=1e-10, atol=1e-10)
    close(got["visitation"].sum(), 1 / (1 - discount), rtol=1e-12)
    close(got["advantage"], q - value[:, None], atol=1e-9)
    close((probs * got["advantage"]).sum(1), 0.0, atol=1e-11)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_finite_horizon_values_match_loops(horizon):
    for discount in (0.9, 1.0):
        mdp, _, probs = garnet(3, discount, horizon)
        value, q, visits = loop_values(mdp, probs, horizon)
        got, each = numpy(values(mdp, probs)), numpy(over_time(mdp, probs))
        close(got["value"], value, rtol=1e-13)
        close(got["action_value"], q, rtol=1e-13)
        close(got["advantage"], q - value[:, None], rtol=1e-12, atol=1e-14)
        close(got["visitation"], visits, rtol=1e-13)
        assert each["values"].shape == (horizon + 1, 4)
        close(each["values"][-1], 0.0)
        chain = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
        for t in range(horizon):
            rest = loop_values(mdp, probs, horizon - t)
            close(each["values"][t], rest[0], rtol=1e-13)
            close(each["action_values"][t], rest[1], rtol=1e-13)
            close(each["advantages"][t], rest[1] - rest[0][:, None], rtol=1e-12, atol=1e-14)
            state = np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, t)
            close(each["visits"][t], discount**t * state, rtol=1e-13)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_episodes_end_in_terminal_states(discount):
    mdp, _, probs = episodic(5, discount)
    value, q, visits = loop_values(mdp, probs, 200)
    got = numpy(values(mdp, probs))
    close(got["value"], value, rtol=1e-12, atol=1e-13)
    close(got["action_value"], q, rtol=1e-12, atol=1e-13)
    close(got["visitation"][:4], visits[:4], rtol=1e-12)
    if discount < 1:
        close(got["visitation"][4], visits[4], rtol=1e-12)
    else:
        assert got["visitation"][4] == np.inf


def test_a_terminal_state_that_is_never_reached_is_never_visited():
    mdp, _, probs = episodic(5)
    transition = np.array(mdp.transition)
    transition[:4] = np.eye(5)[4]
    transition[0] = np.eye(5)[1]
    transition = np.pad(transition, ((0, 1), (0, 0), (0, 1)))
    transition[5, :, 5] = 1.0
    lonely = exact.TabularMDP(transition, np.pad(mdp.reward, ((0, 1), (0, 0))), np.eye(6)[0], 1.0)
    close(exact.visitation(lonely, np.pad(probs, ((0, 1), (0, 0)))), [1, 1, 0, 0, np.inf, 0])


def test_a_long_way_to_the_end_has_an_undiscounted_value():
    """A corridor of nine states: whether it ends is seen although that takes more steps than a few doublings."""
    transition = np.eye(9)[np.minimum(np.arange(9) + 1, 8)][:, None]
    corridor = exact.TabularMDP(transition, np.where(np.arange(9) < 8, 1.0, 0.0)[:, None], np.eye(9)[0], 1.0)
    close(exact.value(corridor, np.ones((9, 1))), np.arange(8.0, -1.0, -1.0))


def test_an_episode_that_may_never_end_has_no_undiscounted_value():
    transition = np.zeros((3, 1, 3))
    transition[0, 0, 1:] = 0.5
    transition[1, 0, 1] = transition[2, 0, 2] = 1.0
    mdp = exact.TabularMDP(transition, np.array([[1.0], [1.0], [0.0]]), np.array([1.0, 0.0, 0.0]), 1.0)
    assert np.isnan(float(exact.objective(mdp, np.ones((3, 1)))))
    close(exact.objective(mdp.replace(discount=0.9), np.ones((3, 1))), 1 + 0.45 / 0.1, rtol=1e-12)
    # Two states that lead only to each other: in float64 the equations are not quite singular, and have a solution.
    transition = np.zeros((4, 1, 4))
    transition[0, 0, [1, 3]] = 0.5
    transition[1, 0, 1:3] = 0.1, 0.9
    transition[2, 0, 1:3] = 0.7, 0.3
    transition[3, 0, 3] = 1.0
    assert np.isfinite(np.linalg.solve(np.eye(4) - transition[:, 0] * (np.arange(4) < 3), np.ones(4))).all()
    pair = exact.TabularMDP(transition, np.array([[1.0], [1.0], [1.0], [0.0]]), np.eye(4)[0], 1.0)
    assert np.isnan(float(exact.objective(pair, np.ones((4, 1)))))


def test_visits_sum_the_steps_and_not_those_of_the_transposed_chain():
    mdp, _, probs = garnet(7, 0.5)
    one = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
    total = sum(0.5**k * np.asarray(mdp.initial) @ np.linalg.matrix_power(one, k) for k in range(60))
    got = np.asarray(values(mdp, probs)["visitation"])
    close(got, total, rtol=1e-13)
    transposed = np.linalg.solve(np.eye(4) - 0.5 * one, mdp.initial)
    assert np.max(np.abs(got - transposed)) > 1e-3


def test_average_reward_and_differential_values():
    mdp, _, probs = garnet(11)
    got, chain = numpy(averages(mdp, probs)), (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
    stationary, h = got["stationary_distribution"], got["value"]
    close(stationary @ chain, stationary, atol=1e-14)
    close(stationary.sum(), 1.0)
    close(np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, 500), stationary, atol=1e-12)
    close(got["average_reward"], stationary @ (probs * np.asarray(mdp.reward)).sum(1), rtol=1e-13)
    near_one = numpy(values(mdp.replace(discount=1 - 1e-7), probs))
    close(1e-7 * near_one["objective"], got["average_reward"], atol=1e-6)
    close(near_one["value"] - near_one["value"][0], h - h[0], atol=1e-5)
    close(stationary @ h, 0.0, atol=1e-14)
    close((probs * got["action_value"]).sum(1), h, atol=1e-13)
    want = np.asarray(mdp.reward) - got["average_reward"] + np.asarray(mdp.transition) @ h
    close(got["action_value"], want, atol=1e-13)


def test_objective_is_a_sum_over_visits():
    for mdp, _, probs in (garnet(1), garnet(1, 0.7, 2), episodic(1, 0.8)):
        got = numpy(values(mdp, probs))
        close(np.sum(got["visitation"][:, None] * probs * np.asarray(mdp.reward)), got["objective"], rtol=1e-12)
        close(np.asarray(mdp.initial) @ got["value"], got["objective"], rtol=1e-12)


def test_the_slope_of_the_objective_in_the_rewards_is_the_visits():
    mdp, _, probs = garnet(1)
    slope = jax.jit(jax.grad(lambda mdp: exact.objective(mdp, probs)))(mdp)
    close(slope.reward, np.asarray(values(mdp, probs)["visitation"])[:, None] * probs, rtol=1e-12)


def test_many_processes_at_once_are_each_of_them():
    several = [garnet(seed)[0] for seed in range(3)]
    probs = np.full((4, 3), 1 / 3)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    batch = jax.jit(jax.vmap(exact.value, (0, None)))(stacked, probs)
    close(batch, np.stack([values(mdp, probs)["value"] for mdp in several]), rtol=1e-13)


def test_bad_arguments_are_refused_by_name():
    mdp, probs = exact.two_state(), np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"probs must have shape \[S, A\] = \[2, 2\], got \[2, 3\]"):
        exact.value(mdp, np.ones((2, 3)) / 3)
    with pytest.raises(TypeError, match="probs must have a floating dtype"):
        exact.visitation(mdp, jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"values_over_time needs mdp.horizon, got None"):
        exact.values_over_time(mdp, probs)
    with pytest.raises(ValueError, match=r"visitation_over_time needs mdp.horizon, got None"):
        exact.visitation_over_time(mdp, probs)


def test_identity_33_performance_difference():
    mdp, _, old = garnet(5)
    new = garnet(6)[2]
    before = numpy(values(mdp, old))
    gap = float(values(mdp, new)["objective"]) - before["objective"]
    visits = np.asarray(values(mdp, new)["visitation"])
    close(np.sum(visits[:, None] * new * before["advantage"]), gap, atol=1e-13)
    assert abs(gap) > 1e-2
    # The trust-region bound: the surrogate on old states less 4 ε γ max KL / (1 - γ)².
    for mix in (0.01, 0.1, 1.0):
        step = (1 - mix) * old + mix * new
        surrogate = np.sum(before["visitation"][:, None] * step * before["advantage"])
        divergence = np.max(np.sum(old * np.log(old / step), axis=1))
        penalty = 4 * np.max(np.abs(before["advantage"])) * 0.9 / 0.01 * divergence
        assert float(values(mdp, step)["objective"]) - before["objective"] >= surrogate - penalty
