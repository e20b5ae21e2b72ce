"""Moments of affine pairs, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_answers import TWO_STATE

from pgjax import exact

from ..processes import close, episodic, expectation, gae, garnet, numpy, scores, two_state


@jax.jit
def of(mdp, pair):
    return exact.pair_moments(mdp, pair), exact.pair_variance(mdp, pair)


@jax.jit
def of_reward_to_go(mdp, probs, baseline):
    return of(mdp, exact.gpomdp_pair(mdp, probs, baseline=baseline))


def test_a_pair_of_ones_own_counts_discounted_steps():
    """Y = Σ_t k^t over the steps of an episode; with k = 1 and an end after each step with probability ½, its law."""
    mdp, _, probs = episodic(4)
    one, zero = np.ones((5, 3, 5)), np.zeros((5, 3, 5))
    pair = exact.AffinePair(probs, np.ones((5, 3, 1)), delta=zero, carry=zero, offset=one, slope=zero, decay=one)
    moments, variance = numpy(of(mdp, pair))
    assert isinstance(moments, exact.Moments)
    close(moments.mean, [2.0], rtol=1e-12)  # geometric: mean 2, variance 2
    close(moments.covariance, [[2.0]], rtol=1e-12)
    close(variance, 2.0, rtol=1e-12)
    close(exact.Moments(np.zeros(2), np.diag([1.0, 2.0])).trace, 3.0)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 50))
def test_long_horizons_converge_to_the_solve(seed):
    mdp, _, probs = garnet(seed, 0.7, None, 3, 2)
    baseline = np.sin(np.arange(3.0) + seed)
    infinite, trace = numpy(of_reward_to_go(mdp, probs, baseline))
    finite, same = numpy(of_reward_to_go(mdp.replace(horizon=150), probs, baseline))
    close(finite.mean, infinite.mean, atol=1e-11)
    close(finite.covariance, infinite.covariance, rtol=1e-10, atol=1e-11)
    for variance, moments in ((trace, infinite), (same, finite)):
        close(variance, np.trace(moments.covariance), rtol=1e-12)
        close(moments.trace, np.trace(moments.covariance))


def test_undiscounted_episodes_have_moments():
    mdp, logits, probs = episodic(4)
    infinite, trace = numpy(of_reward_to_go(mdp, probs, np.zeros(5)))
    finite, _ = numpy(of_reward_to_go(mdp.replace(horizon=120), probs, np.zeros(5)))
    close(infinite.mean, np.ravel(exact.policy_gradient(mdp, logits)), atol=1e-12)
    close(infinite.covariance, finite.covariance, atol=1e-11)
    close(trace, np.trace(infinite.covariance), rtol=1e-12)


def test_what_has_infinite_variance_is_said_to():
    mdp, _, probs = two_state()
    far = np.asarray(exact.two_state_behaviour())

    @jax.jit
    def moments(mdp, probs, behaviour):
        pair = exact.pdis_pair(mdp, probs, behaviour=behaviour)
        return *of(mdp, pair), exact.followon_spectral_radius(mdp, probs, behaviour)

    got, variance, radius = numpy(moments(mdp, probs, far))
    assert radius > 1
    assert (got.covariance == np.inf).all()
    assert variance == np.inf
    close(got.mean, np.ravel(TWO_STATE.gradient), atol=1e-9)
    _, variance, radius = numpy(moments(mdp, probs, 0.9 * probs + 0.1 * far))
    assert radius < 1
    assert np.isfinite(variance)
    without = jax.jit(lambda mdp, probs: of(mdp, exact.gpomdp_pair(mdp, probs, state_discount=1.0)))
    got, variance = numpy(without(mdp, probs))
    assert np.isnan(got.mean).all()
    assert got.trace == np.inf
    assert variance == np.inf


def test_a_part_without_moments_that_is_never_reached_does_not_count():
    mdp, _, probs = two_state()
    transition = np.zeros((4, 2, 4))
    transition[:2, :, :2] = transition[2:, :, 2:] = np.asarray(mdp.transition)
    reward, both = np.vstack([mdp.reward, mdp.reward]), np.vstack([probs, probs])
    behaviour = np.vstack([probs, exact.two_state_behaviour()])
    wide = exact.TabularMDP(transition, reward, np.array([1.0, 0, 0, 0]), 0.9)
    variance = jax.jit(lambda mdp, probs: exact.pair_variance(mdp, exact.pdis_pair(mdp, probs, behaviour=behaviour)))
    close(variance(wide, both), TWO_STATE.variance.none, rtol=1e-10)
    assert float(variance(wide.replace(initial=np.array([0.5, 0, 0.5, 0])), both)) == np.inf


def test_advantages_that_no_contribution_contains_need_no_moments():
    """With slope zero the advantage of later steps is not used, whatever its factor is."""
    mdp, _, probs = garnet(1, 0.8, None, 3, 2)

    @jax.jit
    def variances(mdp, probs):
        pair = exact.gpomdp_pair(mdp, probs)
        unused = pair.replace(slope=jnp.zeros_like(pair.slope))
        exploding = unused.replace(carry=2.0 * jnp.ones_like(pair.carry))
        return [exact.pair_variance(mdp, x) for x in (unused, exploding, pair.replace(carry=exploding.carry))]

    unused, exploding, used = numpy(variances(mdp, probs))
    close(exploding, unused, rtol=1e-12)
    assert np.isfinite(unused)
    assert used == np.inf


@pytest.mark.parametrize("horizon", [None, 3])
def test_variance_split_adds_up(horizon):
    mdp, logits, probs = garnet(3, 0.8, horizon, 3, 2)
    value = np.cos(np.arange(3.0))

    @jax.jit
    def splits(mdp, probs, value):
        pair = exact.gae_pair(mdp, probs, value, lam=0.9)
        critic = exact.off_pac_pair(mdp, probs, exact.action_value(mdp, probs))
        pairs = pair, pair.replace(offset=pair.offset - 1.0), critic
        return [exact.variance_split(mdp, x) for x in pairs]

    split, shifted, critic = numpy(splits(mdp, probs, value))
    assert isinstance(split, exact.VarianceSplit)
    if horizon is not None:
        batch, weights = exact.trajectories(mdp, probs)
        each = (gae(batch, value, 0.8, 0.9)[..., None, None] * scores(batch, logits)).reshape(-1, 6)
        mass = (0.8 ** np.asarray(batch.step) * np.asarray(weights)).ravel()
        _, covariance = expectation(each, mass / mass.sum())
        close(split.state + split.action + split.trajectory, np.trace(covariance), rtol=1e-11)
    assert min(split.state, split.action, split.trajectory) > 0
    # A baseline of the state moves the middle term only; with Q in place of returns nothing follows.
    close([shifted.state, shifted.trajectory], [split.state, split.trajectory], rtol=1e-11)
    assert abs(shifted.action - split.action) > 1e-3
    close(critic.trajectory, 0.0, atol=1e-13)


def test_the_split_without_horizon_is_the_limit_of_long_ones():
    mdp, _, probs = garnet(3, 0.7, None, 3, 2)
    value = np.cos(np.arange(3.0))
    split = jax.jit(lambda mdp, probs: exact.variance_split(mdp, exact.gae_pair(mdp, probs, value, lam=0.9)))
    infinite, finite = split(mdp, probs), split(mdp.replace(horizon=120), probs)
    jax.tree.map(lambda a, b: close(a, b, rtol=1e-10), infinite, finite)


def test_mutants_of_the_moments_are_told_apart():
    mdp, logits, probs = garnet(2, 0.8, 4, 3, 2)

    @jax.jit
    def moments(mdp, probs, logits):
        pair = exact.gpomdp_pair(mdp, probs)
        one = jnp.ones_like(pair.decay)
        mutants = {
            "discount of the states missing": pair.replace(decay=one),
            "discount of the returns missing": pair.replace(carry=one),
            "off by one": pair.replace(slope=one),
            "wrong sign": pair.replace(offset=-pair.offset, slope=-pair.slope),
            "own reward missing": pair.replace(offset=0 * one),
        }
        each = {name: exact.pair_moments(mdp, mutant) for name, mutant in mutants.items()}
        return exact.pair_moments(mdp, pair), each, exact.policy_gradient(mdp, logits).ravel()

    correct, mutants, truth = numpy(moments(mdp, probs, logits))
    close(correct.mean, truth, atol=1e-13)
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant.mean - truth)) > 1e-3, name
    close(mutants["wrong sign"].covariance, correct.covariance, rtol=1e-12)
