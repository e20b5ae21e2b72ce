"""The fixed point of V-trace and the bias of generalised advantage estimation."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_answers import PRINTED, TWO_STATE

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, numpy, two_state


@jax.jit
def vtrace(mdp, probs, behaviour, clip):
    fixed = exact.vtrace_value(mdp, probs, behaviour, clip_rho=clip)
    return exact.vtrace_policy(probs, behaviour, clip), fixed


@pytest.mark.parametrize("clip", TWO_STATE.vtrace)
def test_vtrace_fixed_point(clip):
    mdp, _, probs = two_state()
    behaviour = np.asarray(exact.two_state_behaviour())
    policy, fixed = numpy(vtrace(mdp, probs, behaviour, clip))
    close(policy, TWO_STATE.vtrace[clip][0], atol=PRINTED[10])
    close(fixed, TWO_STATE.vtrace[clip][1], atol=PRINTED[10])
    # At the fixed point the clipped TD error has mean zero in each state.
    ratio = np.minimum(clip, probs / behaviour)
    delta = np.asarray(mdp.reward) + 0.9 * np.asarray(mdp.transition) @ fixed - fixed[:, None]
    close((behaviour * ratio * delta).sum(1), 0.0, atol=1e-14)


@jax.jit
def bias(mdp, logits, estimate, lam):
    """The bias of the estimate of the advantage, and of the gradient."""
    of_advantage = exact.gae_bias(mdp, jax.nn.softmax(logits), estimate, lam=lam)
    return of_advantage, exact.critic_gradient(mdp, logits, of_advantage)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.floats(0.0, 1.0))
def test_identity_32_gae_bias_is_that_of_the_infinite_sum(seed, lam):
    mdp, logits, probs = garnet(seed, 0.8)
    value, q, _ = loop_values(mdp, probs, 200)
    estimate = value + np.sin(np.arange(4.0) + seed)
    chain, transition = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1), np.asarray(mdp.transition)
    delta = np.asarray(mdp.reward) + 0.8 * transition @ estimate - estimate[:, None]
    ahead = sum((0.8 * lam) ** k * np.linalg.matrix_power(chain, k) for k in range(200)) @ (probs * delta).sum(1)
    want = delta + 0.8 * lam * transition @ ahead - (q - value[:, None])
    close(bias(mdp, logits, estimate, lam)[0], want, atol=1e-11)
    close(bias(mdp, logits, estimate, 1.0)[1], 0.0, atol=1e-11)


def test_two_state_gae_bias_of_the_gradient():
    mdp, logits, _ = two_state()
    estimate = np.add(TWO_STATE.value, TWO_STATE.wrong_by)
    for lam, (norm, _) in TWO_STATE.gae_at_wrong_value.items():
        close(np.linalg.norm(bias(mdp, logits, estimate, lam)[1]), norm, atol=PRINTED[8])


def test_gae_bias_ignores_the_estimate_of_terminal_states():
    mdp, logits, _ = episodic(3, 0.9)
    estimates = [np.array([0.5, -1.0, 2.0, 0.3, end]) for end in (0.0, 50.0)]
    first, second = (numpy(bias(mdp, logits, estimate, 0.7)[0]) for estimate in estimates)
    close(first, second, atol=1e-14)
    close(first[4], 0.0)


def test_bad_arguments_are_refused_by_name():
    mdp, _, probs = two_state()
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        exact.gae_bias(mdp, probs, np.ones(2), lam=2.0)
    with pytest.raises(ValueError, match="gae_bias is defined for processes without horizon"):
        exact.gae_bias(mdp.replace(horizon=2), probs, np.ones(2), lam=0.5)
    with pytest.raises(ValueError, match="behaviour must have the shape of probs"):
        exact.vtrace_policy(probs, np.ones((2, 3)), 1.0)
