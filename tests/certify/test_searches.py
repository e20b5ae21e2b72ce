"""Searches are certified over every perturbation: against f itself, and against f smoothed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from certify.suite import SEARCHES, chosen, close, problem_of, require_kept, two_state
from pgjax import exact
from pgjax import expectation as ex
from pgjax.certify.candidates.searches import as_rule

KEPT = 8_000  # samples where nothing is listed


@functools.cache
def certificates(name):
    problem = problem_of(name)
    found = exact.certify_all(
        [c for c in exact.registry() if c.fits(problem)], problem, controls=True, num_trajectories=KEPT
    )
    return {c.estimator: c for c in found}


def test_the_searches_of_the_suite_in_closed_form():
    """E (a + σz)^4 = a^4 + 6 a² σ² + 3 σ^4, and E sin is sin times exp(-σ²/2) for each unit of frequency."""
    x, y, s = 0.5, -0.8, 0.3
    sine = np.exp(-2.0 * s**2)
    problem = problem_of("search")
    close(problem.objective, np.sin(2 * x) + x * y**2 + 0.5 * y**4, atol=1e-15)
    close(problem.direction("plain"), [2 * np.cos(2 * x) + y**2, 2 * x * y + 2 * y**3], atol=1e-14)
    smoothed = [2 * np.cos(2 * x) * sine + y**2 + s**2, 2 * x * y + 2 * y**3 + 6 * y * s**2]
    close(problem.direction("smoothed"), smoothed, atol=1e-13)
    free = problem_of("search, mean and scale")
    assert free.directions == ("smoothed",)
    mean = np.sin(2 * x) * sine + x * (y**2 + s**2) + 0.5 * (y**4 + 6 * y**2 * s**2 + 3 * s**4)
    close(free.objective, mean, rtol=1e-14)
    by_scale = [-4 * s * np.sin(2 * x) * sine, 2 * x * s + 6 * y**2 * s + 6 * s**3]
    close(free.direction(), [*smoothed, *by_scale], atol=1e-13)
    quadratic = problem_of("search, quadratic")
    close(quadratic.direction("plain"), quadratic.direction("smoothed"), atol=1e-14)
    assert "quadratic f" in quadratic.offers
    assert "quadratic f" not in problem.offers


@pytest.mark.slow
def test_the_return_that_is_searched_is_that_of_the_process():
    problem, process = problem_of("search, two_state"), two_state(3)
    close(problem.objective, -process.objective, atol=1e-14)
    close(problem.direction("plain"), -process.direction(), atol=1e-14)
    lqr = exact.lqr_problem("x", *exact.scalar_lqr(), num_steps=3)
    close(problem_of("search, scalar_lqr").direction("plain"), -lqr.direction(), atol=1e-13)


@pytest.mark.parametrize("name", [*SEARCHES[:3], *(pytest.param(x, marks=pytest.mark.slow) for x in SEARCHES[3:])])
def test_every_search_keeps_its_claim_and_shows_its_bias(name):
    for search, certificate in certificates(name).items():
        # Differences of a quadratic function are right, and what claims nothing may be.
        require_kept(certificate, 0.0 if name == "search, quadratic" else 2e-3)
        if certificate.claim is None or certificate.controls is None:
            continue
        assert certificate.controls["another law"] > 1e-3 or certificate.trace < 1e-25, search
        # Of a quadratic function plain and smoothed are one, and of another function they are not.
        assert certificate.controls["another f"] > 1e-2, search


def test_what_is_right_is_told_apart_from_what_claims_nothing():
    found, quadratic = certificates("search"), certificates("search, quadratic")
    assert {c.found[0] for c in found.values() if c.claim} == {"smoothed"}
    assert found["evolution strategy"].relative_bias > 0.1
    assert "the claim holds, but it is not the gradient of f" in str(found["evolution strategy"])
    assert "The expected estimate is the gradient of f smoothed by the perturbations" in str(
        found["evolution strategy"]
    )
    assert "the gradient is right" in str(quadratic["SPSA, quadratic f"])
    assert "over all 4 values of the noise" in str(quadratic["SPSA, quadratic f"])
    assert quadratic["regressed differences, quadratic f"].method == "sampling"
    assert quadratic["regressed differences, quadratic f"].trace < 1e-20
    assert "central differences, quadratic f" not in found


def test_the_variances_on_a_quadratic_are_the_closed_forms():
    """(P + 1)‖g‖² for a pair of an evolution strategy, (P - 1)‖g‖² for one of SPSA, nothing along the axes."""
    found, gradient = certificates("search, quadratic"), problem_of("search, quadratic").direction("plain")
    square = float(gradient @ gradient)
    close(found["evolution strategy"].trace, 3 * square, rtol=1e-12)
    close(found["evolution strategy, 2 pairs"].trace, 1.5 * square, rtol=1e-12)
    close(found["SPSA, quadratic f"].trace, square, rtol=1e-12)
    assert found["central differences, quadratic f"].trace == 0.0
    assert found["evolution strategy, one-sided"].trace > 5 * found["evolution strategy"].trace


@pytest.mark.parametrize(
    ("search", "order"),
    [("evolution strategy", 2), ("central differences", 2), ("SPSA", 2), ("forward differences", 1)],
)
def test_the_bias_against_the_gradient_of_f_falls_as_a_power_of_the_step(search, order):
    f = lambda x: jnp.sin(2.0 * x[0]) + x[0] * x[1] ** 2 + 0.5 * x[1] ** 4  # noqa: E731
    biases = [
        exact.certify_all(
            chosen(search), exact.search_problem("x", f, params=np.array([0.5, -0.8]), scale=scale, num_nodes=16)
        )[0].relative_bias
        for scale in (0.02, 0.01)
    ]
    close(biases[0] / biases[1], 2.0**order, rtol=0.02)


def test_a_search_of_a_wrong_size_is_rejected():
    """Half the gradient, and one whose noise does not match its weights."""
    problem = problem_of("search")

    def half(key, at, f, scale, number):
        grads, info = ex.evolution_strategy(key, at, f, num_pairs=number, scale=scale)
        return 0.5 * grads, info

    def wide(key, at, f, scale, number):
        return ex.evolution_strategy(key, at, f, num_pairs=number, scale=2.0 * scale)

    halved, widened = exact.certify_all(
        [exact.Candidate(call.__name__, as_rule(call), claim="smoothed") for call in (half, wide)], problem
    )
    assert halved.found == ("smoothed", pytest.approx(0.5))
    assert not halved.unbiased
    assert not widened.unbiased
    opposite = exact.Candidate(
        "x",
        as_rule(lambda *a: jax.tree.map(jnp.negative, ex.evolution_strategy(*a[:3], num_pairs=a[4], scale=a[3]))),
        claim="smoothed",
    )
    text = str(exact.certify(opposite, problem))
    assert "points the opposite way: it is minus the gradient of f smoothed" in text
    assert "A search gives the gradient of f itself, which is minimised." in text


def test_the_noise_in_place_of_a_key_is_used_row_by_row():
    """One pair by hand, of two parameters with scales of their own."""
    problem = exact.search_problem("x", lambda p: p["a"] ** 3 + 2.0 * p["b"], params={"a": 1.0, "b": 0.5}, scale=0.5)
    rule = chosen("evolution strategy")[0].estimator
    d = problem.distribution(problem.params)
    noise = {"noise": jnp.array([[0.3, -1.0]])}
    value = lambda loc: rule.given(noise, d.replace(loc=loc), lambda x: problem.f(problem.params, x))  # noqa: E731
    middle, slope = jax.value_and_grad(value)(d.loc)
    up, down = (1.15**3 + 2 * 0.0), (0.85**3 + 2 * 1.0)
    close(middle, (up + down) / 2, rtol=1e-14)
    close(slope, (up - down) / (2 * 0.5) * np.array([0.3, -1.0]), rtol=1e-13)


def test_mpo_follows_the_soft_maximum_with_all_actions_and_with_two_it_does_not():
    for name in ("one-hot", "Bernoulli"):
        problem = problem_of(name)
        every, two = exact.certify_all(chosen("MPO, all actions", "MPO, 2 actions drawn"), problem)
        assert every.unbiased
        assert every.claim == "exponentiated"
        assert every.trace == 0.0
        assert every.relative_bias > 0.01
        away = np.linalg.norm(two.mean - every.mean) / np.linalg.norm(every.mean)
        assert 0.3 < away < 0.7  # half of what is normalised over two is lost: identity 8
    assert "the gradient of the logarithm of the expected exponential" in str(every)


def test_search_problems_that_make_no_sense_are_refused_by_name():
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        exact.search_problem("x", jnp.sum, params=np.ones(2), scale=0.0)
    with pytest.raises(TypeError, match="f must be"):
        exact.search_problem("x", 3.0, params=np.ones(2), scale=0.1)
    with pytest.raises(ValueError, match="the result of f must have shape"):
        exact.search_problem("x", lambda x: x, params=np.ones(2), scale=0.1)
    with pytest.raises(ValueError, match=r"direction must be one of .'plain', 'smoothed'. on this problem"):
        exact.certify(ex.score_function, problem_of("search"))
