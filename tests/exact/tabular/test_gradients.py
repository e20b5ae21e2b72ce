"""The exact gradient in all its forms."""

import functools

import jax
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE, TWO_STATE_HORIZON, rows

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, network, numpy, softmax, two_state

CASES = {
    "discounted": lambda seed: garnet(seed),
    "horizon": lambda seed: garnet(seed, 0.8, 4),
    "episodic": lambda seed: episodic(seed, 1.0),
    "discounted episodic": lambda seed: episodic(seed, 0.9),
}
every_case = pytest.mark.parametrize("case", CASES)


@jax.jit
def forms(mdp, logits):
    probs = jax.nn.softmax(logits)
    return {
        "theorem": exact.policy_gradient(mdp, logits),
        "autodiff": exact.policy_gradient_autodiff(mdp, logits),
        "unrolled": exact.policy_gradient_unrolled(mdp, logits),
        "of": exact.policy_gradient_of(mdp, logits, jax.nn.softmax),
        "critic": exact.critic_gradient(mdp, logits, exact.action_value(mdp, probs)),
        "sensitivity": exact.sensitivity(mdp, probs),
    }


def loop_objective(mdp, logits):
    """J by the recursion of the values, long enough for any discount that is used here."""
    steps = 400 if mdp.horizon is None else mdp.horizon
    return np.asarray(mdp.initial) @ loop_values(mdp, softmax(logits), steps)[0]


def test_two_state_gradient_and_hessian():
    mdp, logits, _ = two_state()
    gradient, hessian = numpy(
        jax.jit(lambda mdp, logits: (exact.policy_gradient(mdp, logits), exact.policy_hessian(mdp, logits)))(
            mdp, logits
        )
    )
    close(gradient, TWO_STATE.gradient, atol=PRINTED[10])
    close(hessian[0, 0].ravel(), TWO_STATE.hessian_first_row, atol=PRINTED[10])
    close(hessian[1, 0, 1, 0], TWO_STATE.hessian_second_state, atol=PRINTED[10])
    close(hessian, np.einsum("sbta->tasb", hessian), atol=1e-13)


def test_two_state_gradients_with_a_horizon():
    mdp, logits, _ = two_state()

    @jax.jit
    def gradients(mdp, logits):
        return {h: exact.policy_gradient(mdp.replace(horizon=h), logits) for h in TWO_STATE_HORIZON}

    for horizon, got in gradients(mdp, logits).items():
        close(got, rows(*TWO_STATE_HORIZON[horizon][:2]), atol=PRINTED[10])


@every_case
def test_all_forms_of_the_gradient_agree(case):
    for seed in range(3):
        mdp, logits, probs = CASES[case](seed)
        got = numpy(forms(mdp, logits))
        theorem = got["theorem"]
        for name in ("autodiff", "unrolled", "of"):
            close(got[name], theorem, atol=1e-13, err_msg=name)
        # With a horizon Q depends on time, and no critic of the state and action alone gives the gradient.
        assert np.allclose(got["critic"], theorem, atol=1e-13) == (mdp.horizon is None)
        weights = got["sensitivity"]
        close(probs * (weights - (probs * weights).sum(1, keepdims=True)), theorem, atol=1e-13)
        close(theorem.sum(1), 0.0, atol=1e-13)
        assert np.max(np.abs(theorem)) > 1e-2


@every_case
def test_the_sensitivity_is_visits_times_advantages(case):
    mdp, logits, probs = CASES[case](2)
    if mdp.horizon is None:
        value, q, visits = loop_values(mdp, probs, 400)
        want = np.where(np.arange(len(probs))[:, None] < 4, visits[:, None] * (q - value[:, None]), 0.0)
    else:
        chain, want = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1), 0.0
        for t in range(mdp.horizon):
            value, q, _ = loop_values(mdp, probs, mdp.horizon - t)
            visits = float(mdp.discount) ** t * np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, t)
            want = want + visits[:, None] * (q - value[:, None])
    close(forms(mdp, logits)["sensitivity"], want, atol=1e-11)


@every_case
def test_the_gradient_is_the_slope_of_the_objective(case):
    mdp, logits, _ = CASES[case](4)
    direction = np.sin(np.arange(float(logits.size))).reshape(logits.shape)
    up, down = (loop_objective(mdp, logits + step * direction) for step in (1e-4, -1e-4))
    close((up - down) / 2e-4, np.sum(np.asarray(forms(mdp, logits)["theorem"]) * direction), atol=1e-7)


def test_critic_gradient_with_a_horizon_weighs_by_all_visits():
    mdp, logits, probs = garnet(2, 0.8, 4)
    critic = np.cos(np.arange(12.0)).reshape(4, 3)
    visits = loop_values(mdp, probs, 4)[2]
    want = visits[:, None] * probs * (critic - (probs * critic).sum(1, keepdims=True))
    close(exact.critic_gradient(mdp, logits, critic), want, atol=1e-14)


def test_mutants_of_the_gradient_are_told_apart():
    mdp, logits, probs = garnet(4)
    truth = np.asarray(forms(mdp, logits)["theorem"])
    pull = lambda weights: probs * (weights - (probs * weights).sum(1, keepdims=True))  # noqa: E731
    _, q, visits = loop_values(mdp, probs, 400)
    chain = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
    transposed = np.linalg.solve(np.eye(4) - 0.9 * chain, mdp.initial)
    stationary = np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, 500)
    close(pull(visits[:, None] * q), truth, atol=1e-12)
    mutants = {
        "wrong sign": pull(-visits[:, None] * q),
        "transposed chain": pull(transposed[:, None] * q),
        "discount missing from the states": pull(10 * stationary[:, None] * q),
        "immediate reward for Q": pull(visits[:, None] * np.asarray(mdp.reward)),
        "normalised visits": pull(0.1 * visits[:, None] * q),
        "probabilities twice": pull(visits[:, None] * probs * q),
    }
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant - truth)) > 1e-2, name


@functools.partial(jax.jit, static_argnames="terms")
def value_gradients(mdp, logits, *, terms):
    """∇V by differentiating the value, and by each number of terms of the unrolled recursion."""
    truth = jax.jacobian(lambda x: exact.value(mdp, jax.nn.softmax(x)))(logits)
    return truth, [exact.value_gradient(mdp, logits, num_steps=k) for k in terms]


@pytest.mark.parametrize("horizon", [None, 4])
def test_value_gradient_unrolls_term_by_term(horizon):
    mdp, logits, probs = garnet(2, 0.9, horizon)
    all_of_them = 400 if horizon is None else horizon
    truth, got = numpy(value_gradients(mdp, logits, terms=(None, 1, 2, 3, all_of_them)))
    close(got[0], truth, atol=1e-12)
    close(got[4], truth, atol=1e-11)
    # Term k: γ^k times the chance of being in x after k steps, times what the action in x moves with the rest to come.
    chain, total = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1), np.zeros((4, 4, 3))
    for k in range(3):
        value, q, _ = loop_values(mdp, probs, 400 if horizon is None else horizon - k)
        source = probs * (q - value[:, None])
        total += 0.9**k * np.einsum("sx,xa->sxa", np.linalg.matrix_power(chain, k), source)
        close(got[k + 1], total, atol=1e-13)


def test_bad_numbers_of_terms_are_refused_by_name():
    mdp, logits, _ = garnet(2, 0.9, 3)
    with pytest.raises(ValueError, match=r"num_steps must not exceed mdp.horizon=3, got 4"):
        exact.value_gradient(mdp, logits, num_steps=4)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        exact.value_gradient(mdp.replace(horizon=None), logits, num_steps=0)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        exact.policy_gradient_unrolled(mdp, logits, num_steps=0)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_unrolled_gradient_is_that_of_the_values_of_first_states(num_steps):
    mdp, logits, _ = garnet(2, 0.9, 4)
    mdp = mdp.replace(initial=np.array([0.1, 0.2, 0.3, 0.4]))
    terms = numpy(value_gradients(mdp, logits, terms=(None, 1, 2, 3, 4))[1])
    got = exact.policy_gradient_unrolled(mdp, logits, num_steps=num_steps)
    close(got, np.einsum("s,sxa->xa", mdp.initial, terms[num_steps]), atol=1e-14)


@every_case
def test_gradient_of_a_network_with_aliased_states(case):
    mdp, _, _ = CASES[case](1)
    got, want = of_network(mdp, network(*mdp.reward.shape)[0])
    jax.tree.map(lambda a, b: close(a, b, atol=1e-13), got, want)


@jax.jit
def of_network(mdp, params):
    _, policy_probs = network(*mdp.reward.shape)
    by_theorem = exact.policy_gradient_of(mdp, params, policy_probs)
    return by_theorem, jax.grad(lambda p: exact.objective(mdp, policy_probs(p)))(params)


def test_hessian_is_the_slope_of_the_gradient():
    mdp, logits, _ = garnet(4, 0.9, 3)

    @jax.jit
    def both(mdp, logits):
        return exact.policy_hessian(mdp, logits), jax.jacfwd(lambda x: exact.policy_gradient(mdp, x))(logits)

    close(*both(mdp, logits), atol=1e-13)


def test_a_constant_reward_has_no_gradient():
    mdp, logits, _ = garnet(5)
    flat = mdp.replace(reward=np.full((4, 3), 2.5))
    close(forms(flat, logits)["theorem"], 0.0, atol=1e-12)
    close(forms(flat.replace(horizon=4), logits)["theorem"], 0.0, atol=1e-13)


def test_bad_arguments_are_refused_by_name():
    mdp = exact.two_state()
    with pytest.raises(ValueError, match=r"logits must have shape \[S, A\]"):
        exact.policy_gradient(mdp, np.ones(2))
    with pytest.raises(TypeError, match="policy_probs must be a function"):
        exact.policy_gradient_of(mdp, np.full((2, 2), 0.5), 3)
    with pytest.raises(ValueError, match=r"weights must have shape \[S, A\]"):
        exact.policy_gradient_of(mdp, np.zeros((2, 2)), jax.nn.softmax, weights=np.ones((2, 3)))
