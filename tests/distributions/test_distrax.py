"""Distributions against those of distrax, where that is installed."""

import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.distributions import Beta, TanhNormal, log_prob_of, sample_action

from .cases import KEY, examples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    distrax = pytest.importorskip("distrax")

pytestmark = pytest.mark.usefixtures("foreign")


@pytest.fixture
def foreign() -> Iterator[None]:
    """Let another library promote ranks and warn."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_agrees_with_distrax_where_distrax_is_right() -> None:
    d = examples(5)
    independent = lambda x: distrax.Independent(x, reinterpreted_batch_ndims=1)  # noqa: E731
    n, b, t = d["normal"], d["beta"], d["tanh"]
    pairs = [
        (d["categorical"], distrax.Categorical(d["categorical"].logits)),
        (d["bernoulli"], independent(distrax.Bernoulli(d["bernoulli"].logits))),
        (n, independent(distrax.Normal(n.loc, n.scale))),
        (Beta(b.alpha, b.beta), independent(distrax.Beta(b.alpha, b.beta))),
    ]
    for ours, theirs in pairs:
        action, raw, log_prob = jax.jit(sample_action)(theirs, KEY)
        assert raw is None
        report = jax.jit(lambda d, a: (log_prob_of(d, a), d.entropy()))
        np.testing.assert_allclose(report(ours, action), report(theirs, action), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(report(ours, action)[0], log_prob, rtol=1e-4, atol=1e-5)
    squashed = distrax.Transformed(distrax.Normal(t.loc, t.scale), distrax.Tanh())
    action = squashed.sample(seed=KEY)
    ours = TanhNormal(t.loc, t.scale)
    np.testing.assert_allclose(ours.log_prob(action), squashed.log_prob(action).sum(-1), rtol=1e-3)


def test_distrax_is_not_finite_where_ours_is() -> None:
    squashed = distrax.Transformed(distrax.Normal(jnp.zeros(1), jnp.ones(1)), distrax.Tanh())
    edge = jnp.ones(1)
    assert not bool(jnp.all(jnp.isfinite(squashed.log_prob(edge))))
    assert bool(jnp.isfinite(TanhNormal(jnp.zeros(1), 1.0).log_prob(edge)))
