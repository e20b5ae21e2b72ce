"""Other objectives: the average reward, and the direction that drops the discount of the states."""

import jax
import numpy as np
from known_answers import PRINTED, TWO_STATE, TWO_STATE_THREE

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, numpy, two_state


@jax.jit
def average(mdp, logits):
    weights = exact.average_reward_sensitivity(mdp, jax.nn.softmax(logits))
    return {
        "autodiff": jax.grad(lambda x: exact.average_reward(mdp, jax.nn.softmax(x)))(logits),
        "theorem": exact.average_reward_gradient(mdp, logits),
        "of": exact.policy_gradient_of(mdp, logits, jax.nn.softmax, weights=weights),
        "weights": weights,
        "discounted": exact.policy_gradient(mdp, logits),
    }


def test_average_reward_gradient():
    mdp, logits, probs = garnet(6)
    got = numpy(average(mdp, logits))
    close((probs * got["weights"]).sum(1), 0.0, atol=1e-14)
    close(got["theorem"], got["autodiff"], atol=1e-13)
    close(got["of"], got["autodiff"], atol=1e-13)
    errors = []
    for discount in (0.99, 0.999, 0.9999):
        scaled = (1 - discount) * np.asarray(average(mdp.replace(discount=discount), logits)["discounted"])
        errors.append(np.max(np.abs(scaled - got["autodiff"])))
    close(np.array(errors[1:]) / np.array(errors[:-1]), 0.1, rtol=0.05)


@jax.jit
def dropped(mdp, logits):
    probs = jax.nn.softmax(logits)
    return exact.dropped_discount_gradient(mdp, logits), exact.dropped_discount_sensitivity(mdp, probs)


def test_two_state_direction_without_the_discount_of_the_states():
    mdp, logits, _ = two_state()
    close(dropped(mdp, logits)[0], TWO_STATE.dropped_discount_gradient, atol=PRINTED[10])
    close(dropped(mdp.replace(horizon=3), logits)[0], TWO_STATE_THREE.dropped_gradient, atol=PRINTED[10])


def test_visits_are_counted_without_discount_and_advantages_with_it():
    """d_1 A_γ, with d_1 the visits of an episode if something ends it, and else the stationary distribution."""
    for mdp, logits, probs in (garnet(4), episodic(4, 0.8), garnet(4, 0.7, 3)):
        value, q, _ = loop_values(mdp, probs, mdp.horizon or 400)
        chain = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
        if mdp.horizon is not None:
            steps = [loop_values(mdp, probs, mdp.horizon - t) for t in range(mdp.horizon)]
            visits = [np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, t) for t in range(mdp.horizon)]
            want = sum(d[:, None] * (q - v[:, None]) for d, (v, q, _) in zip(visits, steps, strict=True))
        elif len(probs) == 5:
            ends = np.diag([1.0, 1, 1, 1, 0])
            visits = sum(np.asarray(mdp.initial) @ np.linalg.matrix_power(ends @ chain @ ends, t) for t in range(100))
            want = visits[:, None] * (q - value[:, None])
        else:
            want = (np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, 500))[:, None] * (q - value[:, None])
        gradient, weights = numpy(dropped(mdp, logits))
        close(weights, want, atol=1e-12)
        close(gradient, probs * (want - (probs * want).sum(1, keepdims=True)), atol=1e-12)


def test_alias_discount_slopes():
    mdp, policy = exact.alias_discount()

    @jax.jit
    def slopes(mdp, params):
        probs = policy(params)
        return (
            probs[0, 1],
            exact.policy_gradient_of(mdp, params, policy),
            exact.policy_gradient_of(mdp.replace(discount=mdp.discount * 0 + 1), params, policy),
            exact.policy_gradient_of(mdp, params, policy, weights=exact.dropped_discount_sensitivity(mdp, probs)),
        )

    for logit in (-1.0, 0.0, 2.0):
        x, *each = numpy(slopes(mdp, np.array([[0.0, logit], [0.0, 0.0]])))
        close([g[0, 1] / (x * (1 - x)) for g in each], [0.25, 1.0, -0.5], atol=1e-13)
