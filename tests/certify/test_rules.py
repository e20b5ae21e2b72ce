"""Rules are certified over every node of their noise, against an expectation that is computed without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from certify.suite import EXPECTATIONS, certificates, chosen, close, problem_of, require_kept, two_state
from pgjax import exact
from pgjax import expectation as ex


def square(params, x):
    return 1.0 * x[..., 0] ** 2


def test_the_expectations_of_the_suite_in_closed_form():
    normal, one_hot, bernoulli = (problem_of(name) for name in EXPECTATIONS)
    m, s = np.array([0.3, -0.7]), np.exp([-0.5, 0.2])
    sine = np.exp(-(s[0] ** 2) / 2)
    close(normal.objective, np.sin(m[0]) * sine + m[0] * (m[1] ** 2 + s[1] ** 2) + m @ m, atol=1e-13)
    # The derivative with respect to loc, through the action and through f; then with respect to log_scale.
    by_loc = [np.cos(m[0]) * sine + m[1] ** 2 + s[1] ** 2 + 2 * m[0], 2 * m[0] * m[1] + 2 * m[1]]
    by_scale = [-np.sin(m[0]) * sine * s[0] ** 2, 2 * m[0] * s[1] ** 2]
    close(normal.direction(), [*by_loc, *by_scale], atol=1e-12)
    values, probs = np.array([0.2, 1.1, -0.6]), np.asarray(jax.nn.softmax(one_hot.params))
    f = (values - 0.45) ** 2
    close(one_hot.objective, probs @ f, atol=1e-15)
    close(one_hot.direction(), probs * (f - probs @ f), atol=1e-15)
    p = 1 / (1 + np.exp(-0.4))
    close(bernoulli.direction(), [p * (1 - p) * (0.55**2 - 0.45**2)], atol=1e-15)
    for problem in (normal, one_hot, bernoulli):
        assert problem.takes_rules
        listed = ("exponentiated",) if problem is not normal else ()
        assert problem.directions == ("expectation", *listed)
    weighted = probs * np.exp(f) / (probs @ np.exp(f))  # what MPO imitates at temperature 1
    close(one_hot.direction("exponentiated"), weighted - probs, atol=1e-15)


@pytest.mark.parametrize(
    ("distribution", "params", "value", "slope"),
    [
        (lambda p: pg.Normal(p, 0.5), [1.0], 1.25, [2.0]),
        (lambda p: pg.Beta(p, jnp.array([2.0])), [3.0], 0.4, None),
        (lambda p: pg.TanhNormal(p, jnp.array([0.5]), -2.0, 2.0), [0.0], None, [0.0]),
        (lambda p: pg.MultiCategorical((p, -p)), [0.3, 0.1], None, None),
        (pg.Bernoulli, [0.0, 0.7], 0.5, [0.25, 0.0]),
    ],
)
def test_expectations_of_all_kinds_of_distributions(distribution, params, value, slope):
    """By a grid over the actions or a list of them; the gradient also by differences."""
    problem = exact.expectation_problem("x", distribution, square, params=np.array(params))
    if value is not None:
        close(problem.objective, value, atol=1e-12)
    if slope is not None:
        close(problem.direction(), slope, atol=1e-12)
    shifted = [
        [float(problem.expectation(problem.params + sign * 1e-5 * step)) for sign in (1, -1)]
        for step in np.eye(len(params))
    ]
    close(problem.direction(), [(up - down) / 2e-5 for up, down in shifted], atol=1e-9)


def test_a_tree_of_distributions_is_an_expectation_too():
    problem = exact.expectation_problem(
        "two parts",
        lambda p: {"which": pg.Categorical(p["logits"]), "how": pg.Normal(p["loc"], 1.0)},
        lambda p, x: jnp.where(x["which"] == 0, x["how"][..., 0] ** 2, 1.0 - x["how"][..., 0]),
        params={"logits": np.array([0.2, -0.1]), "loc": np.array([0.5])},
    )
    p = 1 / (1 + np.exp(-0.3))
    close(problem.objective, p * 1.25 + (1 - p) * 0.5, atol=1e-12)
    found = exact.certify(ex.score_function, problem, num_nodes=32)
    assert found.unbiased
    assert found.num_trajectories == 2 * 32


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_every_rule_keeps_its_claim_and_shows_its_bias(name):
    for rule, certificate in certificates(name).items():
        require_kept(certificate, 5e-3)
        if certificate.claim is None or certificate.controls is None:
            continue
        # For another f, and under another law of the noise if the gradient depends on it, the same program misses.
        assert certificate.controls["another f"] > 1e-3, rule
        assert certificate.controls["another law"] > 5e-4 or certificate.trace < 1e-25, rule


@pytest.mark.parametrize("name", ["one-hot", "Bernoulli"])
def test_relax_has_less_variance_than_the_score_function(name):
    found = certificates(name)
    relax = found["RELAX, interpolating control variate"]
    assert relax.unbiased
    margin = 0.0 if relax.sampling is None else 5 * relax.sampling.trace_error
    assert relax.trace + margin < found["score function, mean as baseline"].trace < found["score function"].trace
    assert f"{relax.estimator} on {name}" in str(relax)


def test_rules_are_measured_by_nodes_where_there_are_few_enough():
    normal, one_hot, bernoulli = (certificates(name) for name in EXPECTATIONS)
    assert {c.method for c in [*normal.values(), *bernoulli.values()]} == {"enumeration"}
    assert bernoulli["REBAR"].num_trajectories == 2 * 96**2
    assert one_hot["REBAR"].method == "sampling"
    assert one_hot["score function"].num_trajectories == 3
    assert normal["score function, leave-one-out of 2"].num_trajectories == 20**4
    assert normal["pathwise"].trace < normal["score function"].trace
    assert one_hot["enumerated"].trace == 0.0
    text = str(exact.certify_all(chosen("score function", "pathwise"), problem_of("normal"))[0])
    assert "the gradient of the expectation, to " in text
    assert "over all 400 values of the noise" in text
    assert "One sample has variance" in text
    assert "times the samples of pathwise for the same variance" in text


def test_sampled_rules_agree_with_listed_ones():
    problem = problem_of("Bernoulli")
    rules = [ex.score_function, ex.rebar]
    listed = exact.certify_all(rules, problem)
    sampled = exact.certify_all(rules, problem, method="sampling", num_trajectories=20_000)
    for one, other in zip(listed, sampled, strict=True):
        assert other.unbiased
        assert abs(one.trace - other.trace) < 5 * other.sampling.trace_error
        assert other.num_trajectories == other.sampling.num_estimates >= 20_000


@ex.rule(x="own")
def forgetful(distribution, f, *, x, sign=1.0, keep=1.0):
    """A score function with the wrong sign, or that forgets what f closes over."""
    x = jax.lax.stop_gradient(distribution.sample_from(x))
    value = f(x)
    return keep * value + sign * jax.lax.stop_gradient(value) * ex.gradient_only(distribution.log_prob(x))


def test_wrong_rules_are_rejected_and_described():
    normal, one_hot = problem_of("normal"), problem_of("one-hot")
    wrong = exact.certify(forgetful.using(sign=-1.0), one_hot)
    assert "points the opposite way: it is minus the gradient of the expectation" in str(wrong)
    assert "A rule gives the gradient of E f itself" in str(wrong)
    right, missing = exact.certify_all([forgetful, forgetful.using(keep=0.0)], normal)
    assert right.unbiased
    assert not missing.unbiased
    # What f closes over adds 2 m to the derivative with respect to loc, half of it through f itself.
    close(right.mean - missing.mean, [0.3, -0.7, 0.0, 0.0], atol=1e-12)


def test_rules_and_problems_that_do_not_belong_together_are_refused_by_name():
    with pytest.raises(ValueError, match="score_function must be an estimator on problem 'two_state'"):
        exact.certify(ex.score_function, two_state(1))
    with pytest.raises(ValueError, match="gpomdp must be a rule on problem 'one-hot'"):
        exact.certify(pg.gpomdp, problem_of("one-hot"))
    with pytest.raises(ValueError, match="limit=2 is exceeded by the 3 nodes of the noise of 'score_function'"):
        exact.certify(ex.score_function, problem_of("one-hot"), method="enumeration", limit=2)
    with pytest.raises(ValueError, match="method must be 'auto', 'enumeration' or 'sampling' for rules"):
        exact.certify(ex.score_function, problem_of("one-hot"), method="recursion")
    with pytest.raises(ValueError, match="group_size must be 1 for a rule, got 2"):
        exact.certify(ex.score_function, problem_of("one-hot"), group_size=2)
    with pytest.raises(ValueError, match=r"direction must be one of .'expectation', 'exponentiated'"):
        problem_of("one-hot").direction("discounted")
    with pytest.raises(ValueError, match="the result of f for one action must have shape"):
        exact.expectation_problem("x", pg.Bernoulli, lambda p, x: x, params=[0.3])
    with pytest.raises(TypeError, match="f must be"):
        exact.expectation_problem("x", pg.Bernoulli, 3.0, params=[0.3])
    candidate = exact.Candidate("x", ex.score_function)
    assert (candidate.claim, candidate.needs) == ("expectation", ())
    assert candidate.fits(problem_of("normal"))
    assert not candidate.fits(two_state(1))
