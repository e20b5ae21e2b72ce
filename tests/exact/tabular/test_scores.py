"""Scores of a table of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from ..processes import close, garnet, network, numpy


@jax.jit
def scores(logits, probs):
    return jax.jacobian(jax.nn.log_softmax)(logits), exact.softmax_score(probs), exact.score_of(logits, jax.nn.softmax)


def test_softmax_score_is_the_gradient_of_the_log_probability():
    _, logits, probs = garnet(3)
    want, of_table, of_policy = numpy(scores(logits, probs))
    want = want.reshape(4, 3, 12)
    close(of_table, want, atol=1e-14)
    close(of_policy, want, atol=1e-14)
    close(np.einsum("sa,sap->sp", probs, want), 0.0, atol=1e-15)


def test_score_of_a_network_by_either_mode_of_differentiation():
    """More parameters than entries of the table, or fewer: the same definition."""
    for states, actions in ((4, 3), (14, 3)):
        params, policy_probs = network(states, actions)
        assert (states * actions < sum(leaf.size for leaf in params.values())) == (states == 4)
        got, want = jax.jit(lambda p, f=policy_probs: (exact.score_of(p, f), log_slopes(f, p)))(params)
        close(got, want, atol=1e-14)


def log_slopes(policy_probs, params):
    slopes = jax.jacfwd(lambda p: jnp.log(policy_probs(p)))(params)
    return jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(slopes)], axis=-1)


def test_the_score_of_an_action_without_probability_is_zero():
    square = lambda x: jnp.stack([x**2, 1 - x**2])[None]  # noqa: E731
    got = np.asarray(exact.score_of(jnp.array(0.0), square))
    close(got, np.zeros((1, 2, 1)))


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="policy_probs must be a function"):
        exact.score_of(np.zeros((2, 2)), 3)
    with pytest.raises(ValueError, match="probs must have at least 2 axes"):
        exact.softmax_score(np.ones(2))
