"""REINFORCE with the return of the whole episode: the figures, and enumeration."""

import jax
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE_HORIZON, TWO_STATE_THREE

from pgjax import exact

from ..processes import close, episodic, expectation, garnet, numpy, returns_to_go, scores, two_state

CASES = {
    "continuing": lambda: garnet(2, 0.8, 4, 3, 2),
    "undiscounted": lambda: garnet(2, 1.0, 3, 3, 2),
    "terminal": lambda: episodic(2, 0.9, 3),
}


def test_two_state_three_steps():
    mdp, _, probs = two_state(3)

    @jax.jit
    def baselines(mdp, probs):
        scalar, each = exact.optimal_return_baseline(mdp, probs), exact.optimal_parameter_baseline(mdp, probs)
        trace = lambda b: exact.reinforce_moments(mdp, probs, baseline=b).trace  # noqa: E731
        at = [(exact.reinforce_moments(mdp, probs, baseline=b), jax.grad(trace)(b)) for b in (scalar, each)]
        return exact.reinforce_moments(mdp, probs), each, at

    plain, each, at = numpy(baselines(mdp, probs))
    close(np.trace(plain.covariance), TWO_STATE_THREE.reinforce_variance, atol=PRINTED[8])
    close(each[::2], TWO_STATE_THREE.parameter_baseline, atol=PRINTED[10])
    wanted = TWO_STATE_THREE.scalar_baseline_variance, TWO_STATE_THREE.parameter_baseline_variance
    for (moments, slope), want in zip(at, wanted, strict=True):
        close(np.trace(moments.covariance), want, atol=PRINTED[8])
        close(moments.mean[::2], TWO_STATE_HORIZON[3][:2], atol=PRINTED[10])
        close(slope, 0.0, atol=1e-12)


@jax.jit
def of_returns(mdp, probs, baselines):
    moments = jax.vmap(lambda b: exact.reinforce_moments(mdp, probs, baseline=b))(baselines)
    best = exact.optimal_return_baseline(mdp, probs), exact.optimal_parameter_baseline(mdp, probs)
    return moments, exact.return_moments(mdp, probs), best


@pytest.mark.parametrize("case", CASES)
def test_reinforce_matches_enumeration(case):
    mdp, logits, probs = CASES[case]()
    batch, weights = numpy(exact.trajectories(mdp, probs))
    total, score = returns_to_go(batch, float(mdp.discount))[0], scores(batch, logits).sum(0).reshape(len(weights), -1)
    size = score.shape[1]
    baselines = np.stack([np.zeros(size), np.full(size, 0.7), np.cos(np.arange(float(size)))])
    moments, joint, (scalar, each) = numpy(of_returns(mdp, probs, baselines))
    for i, b in enumerate(baselines):
        mean, covariance = expectation((total[:, None] - b) * score, weights)
        close(moments.mean[i], mean, atol=1e-12)
        close(moments.covariance[i], covariance, rtol=1e-11, atol=1e-12)
    assert isinstance(joint, exact.ReturnMoments)
    for j in range(3):
        close(joint.plain[j], weights @ total**j, rtol=1e-12)
        close(joint.score[j], np.einsum("n,n,np->p", weights, total**j, score), atol=1e-13)
        close(joint.square[j], np.einsum("n,n,np,nq->pq", weights, total**j, score, score), atol=1e-12)
    square = np.einsum("n,np->np", weights, score**2)
    close(scalar, (total @ square).sum() / square.sum(), rtol=1e-12)
    safe = np.where(square.sum(0) > 0, square.sum(0), 1.0)
    close(each, np.where(square.sum(0) > 0, total @ square / safe, 0.0), rtol=1e-11, atol=1e-14)


def test_bad_arguments_are_refused_by_name():
    mdp, _, probs = two_state()
    with pytest.raises(ValueError, match=r"return_moments needs mdp.horizon, got None"):
        exact.reinforce_moments(mdp, probs)
    with pytest.raises(ValueError, match="baseline must be a scalar or have shape"):
        exact.reinforce_moments(mdp.replace(horizon=2), probs, baseline=np.ones(3))
