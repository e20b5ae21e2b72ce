"""Baselines of least variance that depend on the state."""

import jax
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, numpy, two_state


def variance(mdp, probs, baseline):
    return exact.pair_variance(mdp, exact.gpomdp_pair(mdp, probs, baseline=baseline))


@jax.jit
def best(mdp, probs):
    return {
        "per_step": exact.per_step_optimal_baseline(mdp, probs),
        "trajectory": exact.trajectory_optimal_baseline(mdp, probs),
    }


@jax.jit
def at(mdp, probs, baseline):
    """What a baseline does: the mean, the variance, and the slope of the variance."""
    mean = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, baseline=baseline)).mean
    return mean, *jax.value_and_grad(lambda b: variance(mdp, probs, b))(baseline)


def test_two_state_the_value_is_not_the_best_baseline_and_neither_is_the_best_of_each_step():
    mdp, _, probs = two_state()
    found = numpy(best(mdp, probs))
    close(found["per_step"], TWO_STATE.per_step_baseline, atol=PRINTED[10])
    close(found["trajectory"], TWO_STATE.trajectory_baseline, atol=PRINTED[8])
    # With two actions the weight of one is the probability of the other.
    q = np.asarray(exact.action_value(mdp, probs))
    close(found["per_step"], (probs[:, ::-1] * q).sum(1), rtol=1e-13)
    baselines = {"none": np.zeros(2), "value": loop_values(mdp, probs, 400)[0], **found}
    for name, baseline in baselines.items():
        mean, trace, slope = numpy(at(mdp, probs, baseline))
        close(trace, getattr(TWO_STATE.variance, name), atol=PRINTED[8])
        close(mean, np.ravel(TWO_STATE.gradient), atol=PRINTED[10])
        assert (np.max(np.abs(slope)) < 1e-9) == (name == "trajectory")


@pytest.mark.parametrize("horizon", [None, 3])
def test_trajectory_optimal_baseline_is_stationary_and_minimal(horizon):
    mdp, _, probs = garnet(3, 0.8, horizon, 3, 2)
    found = numpy(best(mdp, probs))
    least = found["trajectory"]
    close(at(mdp, probs, least)[2], 0.0, atol=1e-11)
    # Quadratic without cross terms: changes at different states add up.
    units = np.eye(least.size).reshape(-1, *least.shape)
    shifts = np.concatenate([0 * units[:1], units, units[:1] + units[1:], 2 * units])
    value = loop_values(mdp, probs, 400)[0] if horizon is None else np.asarray(exact.values_over_time(mdp, probs))[:-1]
    others = np.stack([value, found["per_step"], least + 0.1])
    each = jax.jit(jax.vmap(variance, (None, None, 0)))(mdp, probs, np.concatenate([least + shifts, others]))
    change = np.asarray(each) - float(each[0])
    single, both, double, rest = np.split(change[1:], np.cumsum([least.size, least.size - 1, least.size]))
    assert (single > 0).all()
    close(both, single[0] + single[1:], rtol=1e-10)
    close(double, 4 * single, rtol=1e-10)
    assert (rest > 0).all()


def test_the_best_of_each_step_with_a_horizon_weighs_the_action_values_of_that_step():
    mdp, _, probs = garnet(3, 0.8, 3, 3, 2)
    got = numpy(best(mdp, probs))["per_step"]
    for t in range(3):
        q = loop_values(mdp, probs, 3 - t)[1]
        weight = probs * (probs[:, ::-1] ** 2 * 2)  # the squared length of the score, for two actions
        close(got[t], (weight * q).sum(1) / weight.sum(1), rtol=1e-13)


def test_the_best_baseline_depends_on_the_factor_between_steps():
    mdp, _, probs = garnet(3, 0.8, None, 3, 2)

    @jax.jit
    def slopes(mdp, probs):
        found = exact.trajectory_optimal_baseline(mdp, probs, state_discount=0.5)
        at = lambda b: exact.gpomdp_pair(mdp, probs, baseline=b, state_discount=0.5)  # noqa: E731
        return jax.grad(lambda b: exact.pair_variance(mdp, at(b)))(found)

    close(slopes(mdp, probs), 0.0, atol=1e-11)


def test_baselines_of_states_that_do_not_matter_are_zero():
    found = numpy(best(*episodic(3, 0.9)[::2]))
    assert found["trajectory"][-1] == 0.0
    assert found["per_step"][-1] == 0.0
    assert np.abs(found["trajectory"][:-1]).min() > 0
