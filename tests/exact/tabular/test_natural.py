"""The Fisher matrix, the natural gradient and the compatible critic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, network, numpy, raveled, softmax, two_state


@jax.jit
def directions(mdp, logits):
    return {
        "gradient": exact.policy_gradient(mdp, logits),
        "natural": exact.natural_gradient(mdp, logits),
        "fisher": exact.fisher_matrix(mdp, logits),
        "critic": exact.compatible_critic(mdp, logits),
    }


def test_two_state_fisher_matrix():
    mdp, logits, _ = two_state()
    fisher = np.asarray(exact.fisher_matrix(mdp, logits))
    block = np.array([[1, -1], [-1, 1]])
    for state in range(2):
        close(fisher[state, :, state], TWO_STATE.fisher[state] * block, atol=PRINTED[10])
        close(fisher[state, :, 1 - state], 0.0, atol=1e-15)


def test_identity_17_natural_gradient_and_compatible_critic():
    mdp, logits, probs = garnet(3)
    got = numpy(directions(mdp, logits))
    value, q, visits = loop_values(mdp, probs, 400)
    advantage = q - value[:, None]
    centred = advantage - advantage.mean(1, keepdims=True)
    close(got["natural"], centred / 0.1, rtol=1e-9, atol=1e-9)
    fisher, critic = got["fisher"].reshape(12, 12), got["critic"].ravel()
    close(fisher @ critic, 0.1 * got["gradient"].ravel(), atol=1e-12)
    # The critic's scores in place of the advantage leave the gradient exact.
    score = np.einsum("st,sab->satb", np.eye(4), np.eye(3) - probs[:, None, :]).reshape(4, 3, 12)
    weights = visits[:, None] * (score @ critic)
    close(probs * (weights - (probs * weights).sum(1, keepdims=True)), got["gradient"], atol=1e-11)
    # One step of the natural gradient multiplies the policy by exp(α A / (1 - γ)).
    want = probs * np.exp(0.1 * advantage)
    close(softmax(logits + 0.01 * got["natural"]), want / want.sum(1, keepdims=True), atol=1e-10)


@jax.jit
def of_network(mdp, params):
    _, policy_probs = network(*mdp.reward.shape)
    return {
        "critic": exact.compatible_critic_of(mdp, params, policy_probs),
        "score": exact.score_of(params, policy_probs),
        "probs": policy_probs(params),
        "gradient": exact.policy_gradient_of(mdp, params, policy_probs),
        "natural": exact.natural_gradient_of(mdp, params, policy_probs),
        "fisher": exact.fisher_matrix_of(mdp, params, policy_probs),
    }


def test_compatible_critic_of_a_network_leaves_the_gradient_exact():
    mdp, _, _ = garnet(3)
    got = numpy(of_network(mdp, network(4, 3)[0]))
    value, q, visits = loop_values(mdp, got["probs"], 400)
    fitted = got["score"] @ raveled(got["critic"])
    assert np.max(np.abs(fitted - (q - value[:, None]))) > 1e-3
    mass = visits[:, None] * got["probs"]
    close(np.einsum("sa,sap->p", mass * fitted, got["score"]), raveled(got["gradient"]), atol=1e-10)
    # By the definitions: F = E ψ ψᵀ under normalised visits, and F times the natural gradient is the gradient.
    fisher = np.einsum("sa,sap,saq->pq", 0.1 * mass, got["score"], got["score"])
    close(got["fisher"], fisher, atol=1e-13)
    close(fisher @ raveled(got["natural"]), raveled(got["gradient"]), atol=1e-10)


def test_identity_17_natural_gradient_moves_the_policy_alike_in_every_parametrisation():
    mdp, logits, _ = garnet(3)
    mix = np.eye(12) + 0.3 * np.cos(np.arange(144.0)).reshape(12, 12)
    mixed = lambda x: jax.nn.softmax((mix @ x).reshape(4, 3))  # noqa: E731
    velocity = lambda f, x, d: jax.jvp(f, (x,), (d,))[1]  # noqa: E731

    @jax.jit
    def velocities(mdp, logits, inner):
        return (
            velocity(jax.nn.softmax, logits, exact.natural_gradient(mdp, logits)),
            velocity(mixed, inner, exact.natural_gradient_of(mdp, inner, mixed)),
            velocity(jax.nn.softmax, logits, exact.policy_gradient(mdp, logits)),
            velocity(mixed, inner, exact.policy_gradient_of(mdp, inner, mixed)),
        )

    natural, natural_mixed, vanilla, vanilla_mixed = velocities(mdp, logits, np.linalg.solve(mix, logits.ravel()))
    close(natural_mixed, natural, atol=1e-8)
    assert np.max(np.abs(np.asarray(vanilla) - vanilla_mixed)) > 1e-2


@pytest.mark.parametrize("case", [lambda: garnet(3, 0.8, 3), lambda: episodic(3)], ids=["horizon", "episodic"])
def test_identity_16_fisher_matrix_is_the_curvature_of_the_divergence(case):
    mdp, logits, probs = case()
    visits = loop_values(mdp, probs, mdp.horizon or 200)[2][:4]
    distribution = np.append(visits, 0.0)[: len(probs)] / visits.sum()

    @jax.jit
    def matrices(mdp, logits):
        def divergence(x, forward):
            log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(x)
            first, second = (log_p, log_q) if forward else (log_q, log_p)
            return distribution @ jnp.sum(jnp.exp(first) * (first - second), axis=1)

        curvatures = [jax.hessian(lambda x, f=f: divergence(x, f))(logits) for f in (True, False)]
        return exact.fisher_matrix(mdp, logits), *curvatures

    fisher, forward, backward = numpy(matrices(mdp, logits))
    close(fisher, forward, atol=1e-13)
    close(fisher, backward, atol=1e-13)


def test_the_compatible_critic_refuses_a_horizon():
    mdp, logits, _ = two_state(2)
    with pytest.raises(ValueError, match="compatible_critic is defined for processes without horizon"):
        exact.compatible_critic(mdp, logits)
