"""Rules against the Monte Carlo expectations of TensorFlow Probability, which another hand wrote.

Its `expectation` has the score function and the path, and each is compared with the rule of that name.
"""

import functools
import importlib.util
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import expectation as ex

if importlib.util.find_spec("tensorflow_probability") is None:
    pytest.skip("tensorflow_probability is not installed: it comes with the extra `test`", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports; an error is one
    from tensorflow_probability.substrates.jax.distributions import Categorical, MultivariateNormalDiag
    from tensorflow_probability.substrates.jax.monte_carlo import expectation

close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
KEY, SAMPLES = jax.random.key(5), 64


def smooth(params: Any, x: Any) -> Any:
    """Of an action [..., 2], and of the parameters as well."""
    return jnp.sin(x[..., 0]) + x[..., 0] * x[..., 1] ** 2 + params["loc"][0] * x[..., 1]


def bell(params: Any) -> pg.Normal:
    return pg.Normal(params["loc"], jnp.exp(params["log_scale"]))


def their_bell(params: Any) -> Any:
    return MultivariateNormalDiag(params["loc"], jnp.exp(params["log_scale"]))


NORMAL = {"loc": np.array([0.3, -0.7]), "log_scale": np.array([-0.5, 0.2])}


@pytest.fixture(autouse=True)
def foreign() -> Any:
    """Let another library promote ranks and warn."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ours(rule: ex.Rule, noise: Any, make: Any, f: Any, params: Any) -> Any:
    """The gradient of the mean over given noise [N, ...]."""

    def mean(params: Any) -> Any:
        each = lambda x: rule.given({"x": x}, make(params), lambda a: f(params, a))  # noqa: E731
        return jnp.mean(jax.vmap(each)(noise))

    return jax.jit(jax.value_and_grad(mean))(params)


def theirs(samples: Any, make: Any, f: Any, params: Any, *, through_the_path: bool) -> Any:
    """The same by `tfp.monte_carlo.expectation` at the samples, a function of params."""

    def mean(params: Any) -> Any:
        return expectation(
            lambda x: f(params, x),
            samples(params),
            log_prob=make(params).log_prob,
            use_reparameterization=through_the_path,
        )

    return jax.jit(jax.value_and_grad(mean))(params)


@pytest.mark.parametrize(("rule", "through"), [(ex.score_function, False), (ex.dice, False), (ex.pathwise, True)])
def test_on_a_normal_score_function_and_path_agree_sample_by_sample(rule: Any, through: bool) -> None:
    noise = jax.random.normal(KEY, (SAMPLES, 2))
    at = lambda params: params["loc"] + jnp.exp(params["log_scale"]) * noise  # noqa: E731
    mine = ours(rule, noise, bell, smooth, NORMAL)
    other = theirs(at, their_bell, smooth, NORMAL, through_the_path=through)
    jax.tree.map(close, mine, other)
    # The two ways differ on so few samples, so that neither hides behind the other.
    apart = theirs(at, their_bell, smooth, NORMAL, through_the_path=not through)[1]
    assert np.abs(np.asarray(apart["loc"]) - mine[1]["loc"]).max() > 0.01


def test_on_choices_the_score_function_agrees_and_all_actions_are_its_mean() -> None:
    table = jnp.array([0.2, 1.1, -0.6])
    logits = jnp.array([0.4, -0.3, 0.1])
    f = lambda params, action: table[action] ** 2 + params[0] * (action == 1)  # noqa: E731
    actions = jax.random.randint(KEY, (SAMPLES,), 0, 3)
    make = lambda logits: Categorical(logits=logits)  # noqa: E731
    mine = ours(ex.score_function, ex.taken(actions), pg.Categorical, f, logits)
    other = theirs(lambda params: actions, make, f, logits, through_the_path=False)
    jax.tree.map(close, mine, other)

    # Each action as often as its probability says: three, four and one time in eight.
    eighths = jnp.log(jnp.array([3.0, 4.0, 1.0]))
    listed = jnp.array([0] * 3 + [1] * 4 + [2])
    every = lambda params: ex.enumerated.given({}, pg.Categorical(params), lambda a: f(params, a))  # noqa: E731
    other = theirs(lambda params: listed, make, f, eighths, through_the_path=False)
    jax.tree.map(close, jax.jit(jax.value_and_grad(every))(eighths), other)


def test_every_rule_for_a_normal_has_the_mean_of_their_reparametrised_samples() -> None:
    """By quadrature on this side, by many samples on the other: five of their standard errors."""
    noise = jax.random.normal(jax.random.key(8), (1_000, 200, 2))

    @jax.jit
    def rows(params: Any) -> Any:
        def mean(params: Any, z: Any) -> Any:
            samples = params["loc"] + jnp.exp(params["log_scale"]) * z
            return expectation(
                lambda x: smooth(params, x), samples, log_prob=their_bell(params).log_prob, use_reparameterization=True
            )

        return jax.lax.map(lambda z: ravel_pytree(jax.grad(mean)(params, z))[0], noise)

    found = np.asarray(rows(NORMAL))
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    problem = pg.exact.expectation_problem("x", bell, smooth, params=NORMAL, num_nodes=20)
    for certificate in pg.exact.certify_all(
        [ex.score_function, ex.pathwise, ex.quadrature, ex.measure_valued], problem
    ):
        assert (np.abs(certificate.mean - found.mean(0)) < 5 * error).all(), certificate.estimator
    assert (error < 0.02).all()
