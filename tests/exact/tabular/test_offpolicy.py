"""Data from another policy: the excursion objective, emphatic weights and the off-policy actor-critic."""

import jax
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE

from pgjax import exact
from pgjax.exact.tabular._equations import importance_ratio

from ..processes import close, garnet, loop_values, numpy, two_state


@jax.jit
def directions(mdp, logits, weights):
    probs = jax.nn.softmax(logits)
    return {
        "autodiff": jax.grad(lambda x: exact.excursion_objective(mdp, jax.nn.softmax(x), weights))(logits),
        "objective": exact.excursion_objective(mdp, probs, weights),
        "emphasis": exact.emphasis(mdp, probs, weights),
        "emphatic": exact.emphatic_gradient(mdp, logits, weights),
        "emphatic_sensitivity": exact.emphatic_sensitivity(mdp, probs, weights),
        "off_pac": exact.off_pac_gradient(mdp, logits, weights),
        "off_pac_sensitivity": exact.off_pac_sensitivity(mdp, probs, weights),
    }


def test_two_state_off_policy_figures():
    mdp, logits, probs = two_state()
    behaviour = exact.two_state_behaviour()
    weights = exact.stationary_distribution(mdp, behaviour)
    close(weights, TWO_STATE.behaviour_stationary, atol=PRINTED[10])
    got = directions(mdp, logits, weights)
    close(got["emphasis"], TWO_STATE.emphasis, atol=PRINTED[10])
    close(got["emphatic"], TWO_STATE.emphatic_gradient, atol=PRINTED[10])
    close(got["off_pac"], TWO_STATE.off_pac_gradient, atol=PRINTED[10])
    radius = exact.followon_spectral_radius(mdp, probs, behaviour)
    close(radius, TWO_STATE.followon_spectral_radius, atol=PRINTED[8])


def test_emphatic_gradient_is_that_of_the_excursion_objective_and_off_pac_is_not():
    mdp, logits, probs = garnet(5)
    weights = np.array([0.1, 0.5, 0.25, 0.15])
    got = numpy(directions(mdp, logits, weights))
    value, q, _ = loop_values(mdp, probs, 400)
    close(got["objective"], weights @ value, rtol=1e-12)
    close(got["emphatic"], got["autodiff"], atol=1e-13)
    assert np.max(np.abs(got["off_pac"] - got["autodiff"])) > 1e-2
    # Emphasis is visits from the weights instead of the first states, and the sensitivities weigh advantages by either.
    visits = loop_values(mdp.replace(initial=weights), probs, 400)[2]
    close(got["emphasis"], visits, rtol=1e-12)
    close(got["emphatic_sensitivity"], visits[:, None] * (q - value[:, None]), atol=1e-11)
    close(got["off_pac_sensitivity"], weights[:, None] * (q - value[:, None]), atol=1e-12)
    myopic = numpy(directions(mdp.replace(discount=0.0), logits, weights))
    close(myopic["off_pac"], myopic["emphatic"], atol=1e-15)
    on_policy = np.asarray(exact.policy_gradient(mdp.replace(initial=weights), logits))
    close(got["emphatic"], on_policy, atol=1e-13)


def test_alias_offpolicy_slopes():
    mdp, policy = exact.alias_offpolicy()
    params = np.array([[np.log(9.0), 0.0], [0.0, 0.0]])
    close(np.asarray(jax.jit(policy)(params))[:3, 0], [0.9, 0.5, 0.5], atol=1e-15)
    behaviour = np.tile([0.25, 0.75], (4, 1))
    visits = np.append(np.asarray(exact.visitation(mdp, behaviour))[:3], 0.0) / 2
    close(visits, [0.5, 0.125, 0.375, 0.0], atol=1e-15)

    @jax.jit
    def slopes(mdp, params, weights):
        probs = policy(params)
        of = lambda w: exact.policy_gradient_of(mdp, params, policy, weights=w)  # noqa: E731
        return (
            of(exact.emphatic_sensitivity(mdp, probs, weights)),
            of(exact.off_pac_sensitivity(mdp, probs, weights)),
            jax.grad(lambda p: exact.excursion_objective(mdp, policy(p), weights))(params),
        )

    first_only = visits * [1, 0, 0, 0]
    for weights, emphatic, off_pac in ((visits, 0.18125, -0.03125), (first_only, 0.2125, 0.0)):
        got = numpy(slopes(mdp, params, weights))
        close(got[0][1, 0], emphatic, atol=1e-14)
        close(got[1][1, 0], off_pac, atol=1e-14)
        close(got[0], got[2], atol=1e-14)


def test_an_action_that_the_behaviour_never_takes_has_ratio_zero():
    """Also where the policy does not take it either: 0 / 0 is no event, and counts as nothing."""
    probs, behaviour = np.array([[0.0, 0.4, 0.6], [0.5, 0.5, 0.0]]), np.array([[0.0, 1.0, 0.0], [0.25, 0.5, 0.25]])
    close(importance_ratio(probs, behaviour), [[0.0, 0.4, 0.0], [2.0, 1.0, 0.0]], atol=0.0)
    slope = jax.jit(jax.grad(lambda mu: importance_ratio(probs, mu).sum()))(behaviour)
    close(slope, -np.divide(probs, behaviour**2, out=np.zeros((2, 3)), where=behaviour > 0), rtol=1e-15)


def test_the_followon_radius_is_that_of_the_mean_squared_ratio():
    mdp, _, probs = garnet(5, 0.9)
    behaviour = np.tile([0.5, 0.3, 0.2], (4, 1))
    matrix = 0.81 * np.einsum("sa,sax->sx", probs**2 / behaviour, mdp.transition)
    close(exact.followon_spectral_radius(mdp, probs, behaviour), np.abs(np.linalg.eigvals(matrix)).max(), rtol=1e-12)


def test_bad_arguments_are_refused_by_name():
    mdp, logits, probs = two_state()
    with pytest.raises(ValueError, match="state_weights must have shape"):
        exact.emphasis(mdp, probs, np.ones(3))
    with pytest.raises(ValueError, match="emphasis is defined for processes without horizon"):
        exact.emphatic_gradient(mdp.replace(horizon=2), logits, np.ones(2))
    with pytest.raises(ValueError, match="off_pac_sensitivity is defined for processes without horizon"):
        exact.off_pac_gradient(mdp.replace(horizon=2), logits, np.ones(2))
