"""The mean of each rule over its noise is the exact value and the exact gradient, summed over nodes in float64.

That the sum could come out wrong is seen on changed data: another f and a tilted law, run by the same program.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation
from pgjax.expectation import mirrored

from . import cases
from .cases import MASK, THETA, Problem, W, estimates, flat


def control(z: Any) -> Any:
    """A smooth function of a relaxed sample, or of a tree of them."""
    rows = [x.reshape(*x.shape[: x.ndim - 1], -1) for x in jax.tree.leaves(z)]
    z = jnp.concatenate(rows, -1)
    return 0.3 + jnp.sum(0.4 * jnp.tanh(0.8 * z) + 0.1 * jnp.sin(z + jnp.arange(z.shape[-1])), axis=-1)


def multi_control(z: Any) -> Any:
    return control(z[..., 0, :])


COUPLED = {"couple": True}  # u and v enter in separate terms, so that one set of nodes for both gives the same mean
DISCRETE: dict[str, tuple[Any, Problem, dict[str, Any]]] = {
    "score bernoulli": (expectation.score_function, cases.bernoulli(2), {"baseline": 0.3}),
    "score categorical": (expectation.score_function, cases.categorical(), {}),
    "score masked": (expectation.score_function, cases.categorical(MASK), {"baseline": -2.0}),
    "score one-hot": (expectation.score_function, cases.one_hot(MASK), {}),
    "score multi": (expectation.score_function, cases.ragged(), {"baseline": 0.1}),
    "score tree": (expectation.score_function, cases.joint_discrete(), {"baseline": 0.1}),
    "leave one out": (expectation.score_leave_one_out, cases.categorical(), {"num_samples": 3}),
    "leave one out of two": (expectation.score_leave_one_out, cases.bernoulli(2), {"num_samples": 2}),
    "leave one out tree": (expectation.score_leave_one_out, cases.joint_discrete(), {"num_samples": 2}),
    "dice bernoulli": (expectation.dice, cases.bernoulli(2), {"baseline": 0.3}),
    "dice one-hot": (expectation.dice, cases.one_hot(), {}),
    "enumerated bernoulli": (expectation.enumerated, cases.bernoulli(3), {}),
    "enumerated masked": (expectation.enumerated, cases.categorical(MASK), {}),
    "enumerated one-hot": (expectation.enumerated, cases.one_hot(MASK), {}),
    "enumerated multi": (expectation.enumerated, cases.ragged(), {}),
    "enumerated tree": (expectation.enumerated, cases.joint_discrete(), {}),
    "relax bernoulli": (expectation.relax, cases.bernoulli(1), {"control": control, "scale": 0.7}),
    "relax two bits": (expectation.relax, cases.bernoulli(2), {"control": control, **COUPLED}),
    "relax categorical": (expectation.relax, cases.two_way(pg.Categorical), {"control": control, **COUPLED}),
    "relax one-hot": (expectation.relax, cases.two_way(pg.OneHotCategorical), {"control": control, **COUPLED}),
    "relax multi": (expectation.relax, cases.one_of_multi(), {"control": multi_control, **COUPLED}),
    "relax tree": (expectation.relax, cases.joint_bits(), {"control": control, "scale": 1.3, **COUPLED}),
    "rebar bernoulli": (expectation.rebar, cases.bernoulli(1), {"temperature": 0.6, "scale": 0.9}),
    "rebar one-hot": (expectation.rebar, cases.two_way(pg.OneHotCategorical), {"temperature": 0.7, **COUPLED}),
    "measure-valued bernoulli": (expectation.measure_valued, cases.bernoulli(3), {}),
    "measure-valued masked": (expectation.measure_valued, cases.categorical(MASK), {}),
    "measure-valued one-hot": (expectation.measure_valued, cases.one_hot(), {}),
    "measure-valued multi": (expectation.measure_valued, cases.ragged(), {}),
    "measure-valued tree": (expectation.measure_valued, cases.joint_discrete(), {}),
    "arm": (expectation.arm, cases.bernoulli(2), {}),
    "arm tree": (expectation.arm, cases.joint_bits(), {}),
    "disarm": (expectation.disarm, cases.bernoulli(2), {}),
    "disarm tree": (expectation.disarm, cases.joint_bits(), {}),
    "sum and sample": (expectation.sum_and_sample, cases.categorical(), {"top": 1, "baseline": 0.2}),
    "sum and sample one-hot": (expectation.sum_and_sample, cases.one_hot(), {"top": 1}),
    "sum and sample bits": (expectation.sum_and_sample, cases.bernoulli(2), {"top": 2}),
    "sum and sample multi": (expectation.sum_and_sample, cases.ragged(), {"top": 3, "baseline": -0.4}),
    "sum and sample tree": (expectation.sum_and_sample, cases.joint_discrete(), {"top": 1}),
    "unordered set": (expectation.unordered_set, cases.categorical(), {"num_samples": 2}),
    "unordered set bits": (expectation.unordered_set, cases.bernoulli(2), {"num_samples": 3}),
    "unordered set multi": (expectation.unordered_set, cases.ragged(), {"num_samples": 2}),
    "unordered set tree": (expectation.unordered_set, cases.joint_discrete(), {"num_samples": 2}),
    "mirrored bernoulli": (mirrored(expectation.score_function), cases.bernoulli(2), {"baseline": 0.3}),
    "mirrored masked": (mirrored(expectation.score_function), cases.categorical(MASK), {}),
    "mirrored multi": (mirrored(expectation.measure_valued), cases.ragged(), {}),
    "mirrored leave one out": (mirrored(expectation.score_leave_one_out), cases.one_hot(), {"num_samples": 2}),
}
CONTINUOUS: dict[str, tuple[Any, Problem, dict[str, Any]]] = {
    "score normal": (expectation.score_function, cases.normal(), {"baseline": 0.3}),
    "score tanh": (expectation.score_function, cases.tanh_normal(), {}),
    "score beta": (expectation.score_function, cases.beta(), {"baseline": 0.5}),
    "score tree": (expectation.score_function, cases.joint_mixed(), {}),
    "leave one out normal": (expectation.score_leave_one_out, cases.tanh_normal(), {"num_samples": 2}),
    "dice normal": (expectation.dice, cases.normal(), {}),
    "pathwise normal": (expectation.pathwise, cases.normal(), {}),
    "pathwise tanh": (expectation.pathwise, cases.tanh_normal(), {}),
    "measure-valued normal": (expectation.measure_valued, cases.normal(), {"size": 16}),
    "measure-valued tanh": (expectation.measure_valued, cases.tanh_normal(), {}),
    "measure-valued tree": (expectation.measure_valued, cases.joint_mixed(), {}),
    "mirrored score normal": (mirrored(expectation.score_function), cases.normal(), {}),
    "mirrored dice tree": (mirrored(expectation.dice), cases.joint_mixed(), {}),
    "mirrored measure-valued": (mirrored(expectation.measure_valued), cases.tanh_normal(), {}),
    "taylor 1": (expectation.taylor, cases.normal(), {"order": 1}),
    "taylor 2": (expectation.taylor, cases.normal(), {"order": 2}),
    "taylor pathwise 1": (expectation.taylor_pathwise, cases.normal(), {"order": 1}),
    "taylor pathwise 2": (expectation.taylor_pathwise, cases.normal(), {"order": 2}),
}


def noise_and_weights(rule: Any, problem: Problem, options: dict[str, Any]) -> tuple[Any, np.ndarray, dict[str, Any]]:
    options = dict(options)
    couple = options.pop("couple", False)
    distribution = problem.make(THETA)
    if not couple:
        found = expectation.nodes(rule, distribution, **options)
        options.pop("size", None)
        return *found, options
    part = expectation.Rule(lambda distribution, f, *, x, u: f, {"x": rule.laws["x"], "u": rule.laws["u"]})
    noise, weights = expectation.nodes(part, distribution)
    return {**noise, "v": noise["u"]}, weights, options


@pytest.mark.parametrize(
    ("case", "tolerance"), [*((name, 1e-13) for name in DISCRETE), *((f"~{name}", 1e-10) for name in CONTINUOUS)]
)
def test_the_mean_over_the_noise_is_the_exact_value_and_gradient(case: str, tolerance: float) -> None:
    rule, problem, options = CONTINUOUS[case[1:]] if case.startswith("~") else DISCRETE[case]
    if "u" in rule.laws:
        tolerance = max(tolerance, 2e-13)  # the nodes of the uniform law are that good
    noise, weights, options = noise_and_weights(rule, problem, options)
    run, truth = estimates(rule, problem, noise, **options), jax.jit(jax.value_and_grad(problem.exact, (0, 1)))
    numbers = {name: x for name, x in options.items() if isinstance(x, float)}
    rows, exact = flat(*run(THETA, W, noise, numbers)), flat(*truth(THETA, W))[0]
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-13)
    np.testing.assert_allclose(weights @ rows, exact, rtol=0.0, atol=tolerance * max(1.0, np.abs(exact).max()))
    # The same program, other data: the criterion can fail, and it fails where it should.
    other = flat(*run(THETA, W + 0.1, noise, numbers))
    assert np.abs(weights @ other - exact).max() > 1e-3
    np.testing.assert_allclose(
        weights @ other, flat(*truth(THETA, W + 0.1))[0], rtol=0.0, atol=tolerance * max(1.0, np.abs(exact).max())
    )
    if noise:
        tilted = weights * (0.1 + np.linspace(-0.5, 1.0, weights.size) ** 2)  # neither even nor odd about the middle
        assert np.abs(tilted / tilted.sum() @ rows - exact).max() > 1e-3


@pytest.mark.parametrize("case", ["score bernoulli", "dice one-hot", "relax bernoulli", "leave one out of two"])
def test_weights_of_another_law_are_noticed(case: str) -> None:
    """Nodes made for another theta are nodes of the wrong law."""
    rule, problem, options = DISCRETE[case]
    noise, _ = expectation.nodes(rule, problem.make(THETA), **options)
    _, weights = expectation.nodes(rule, problem.make(THETA + np.array([0.2, -0.1, 0.3])), **options)
    rows = flat(*estimates(rule, problem, noise, **options)(THETA, W, noise, {}))
    assert np.abs(weights @ rows - flat(*jax.jit(jax.value_and_grad(problem.exact, (0, 1)))(THETA, W))[0]).max() > 1e-3


@pytest.mark.parametrize("baseline", [0.0, 0.6])
def test_dice_is_exact_to_the_third_derivative_and_the_score_function_is_not(baseline: float) -> None:
    problem = cases.bernoulli(2)
    noise, weights = expectation.nodes(expectation.dice, problem.make(THETA))

    def derivatives(f: Any, theta: Any) -> Any:
        return jax.grad(f)(theta), jax.hessian(f)(theta), jax.jacfwd(jax.hessian(f))(theta)

    def both(theta: Any, noise: Any) -> Any:
        def mean(rule: Any) -> Any:
            def one(theta: Any, n: Any) -> Any:
                return rule.given(n, problem.make(theta), lambda x: problem.f(x, theta, W), baseline=baseline)

            return lambda theta: weights @ jax.vmap(one, (None, 0))(theta, noise)

        rules = (expectation.dice, expectation.score_function)
        return [derivatives(mean(rule), theta) for rule in rules], derivatives(lambda t: problem.exact(t, W), theta)

    (dice, score), exact = jax.jit(both)(THETA, noise)
    for x, y in zip(dice, exact, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-13)
    np.testing.assert_allclose(score[0], exact[0], atol=1e-13)
    assert np.abs(score[1] - exact[1]).max() > 0.05


def test_biased_rules_have_the_bias_that_they_say() -> None:
    """Gumbel-softmax is exact for the softened f; straight-through has the value, but not the gradient, of f."""
    problem, exact = (
        cases.bernoulli(1),
        flat(*jax.jit(jax.value_and_grad(cases.bernoulli(1).exact, (0, 1)))(THETA, W))[0],
    )
    found = {}
    for rule in (expectation.gumbel_softmax, expectation.straight_through):
        noise, weights = expectation.nodes(rule, problem.make(THETA))
        run = estimates(rule, problem, noise)
        found[rule.name] = [weights @ flat(*run(THETA, W, noise, {"temperature": t})) for t in (1.0, 0.5, 0.25)]
    for gumbel, straight in zip(found["gumbel_softmax"], found["straight_through"], strict=True):
        assert np.abs(gumbel - exact).max() > 5e-3
        assert abs(straight[0] - exact[0]) < 1e-13
        np.testing.assert_allclose(straight[4:], exact[4:], atol=1e-13)  # what f closes over
        assert np.abs(straight[1:4] - exact[1:4]).max() > 5e-3
    bias = [np.abs(x[1:4] - exact[1:4]).max() for x in found["gumbel_softmax"]]
    assert bias[0] > bias[1] > bias[2]
    # The mean over the noise of f(soften(z)), by another quadrature: Gauss-Legendre on 400 intervals.
    x, w = np.polynomial.legendre.leggauss(20)
    u = ((x[:, None] + 1) / 2 + np.arange(400)).ravel() / 400
    soft = 1.0 / (1.0 + np.exp(-(THETA[0] + np.log(u) - np.log1p(-u)) / 0.5))
    softened = np.repeat(w[:, None], 400, 1).ravel() / 800 @ np.asarray(cases.vector_f(soft[:, None], THETA, W))
    assert found["gumbel_softmax"][1][0] == pytest.approx(softened, abs=1e-10)


def test_at_mode_is_exact_for_what_is_linear_and_only_there() -> None:
    make = lambda theta: pg.Normal(theta[:2], jnp.exp(theta[2]))  # noqa: E731
    linear, square = (lambda x: x @ W[:2]), (lambda x: (x @ W[:2]) ** 2)
    grad = lambda f: jax.grad(lambda theta: expectation.at_mode.given({}, make(theta), f))(THETA)  # noqa: E731
    np.testing.assert_allclose(grad(linear), [*W[:2], 0.0], rtol=1e-13)
    np.testing.assert_allclose(grad(square), [*(2 * (W[:2] @ THETA[:2]) * W[:2]), 0.0], rtol=1e-13)
    assert expectation.nodes(expectation.at_mode, make(THETA))[1].tolist() == [1.0]
