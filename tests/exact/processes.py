"""Random processes and enumerated estimators for the tests of the truth: NumPy throughout, so that nothing compiles."""

import functools
from typing import Any

import jax
import numpy as np

from pgjax import exact

close = np.testing.assert_allclose
Process = tuple[exact.TabularMDP, np.ndarray, np.ndarray]  # the process, logits [S, A], and their softmax


def numpy(tree: Any) -> Any:
    """The same pytree with NumPy arrays for leaves."""
    return jax.tree.map(np.asarray, tree)


def softmax(logits: Any) -> np.ndarray:
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def garnet(seed: int, discount: float = 0.9, horizon: int | None = None, states: int = 4, actions: int = 3) -> Process:
    """A random process with two successors for each action, and a random policy."""
    random = np.random.default_rng(seed)
    transition = np.zeros((states, actions, states))
    for s, a in np.ndindex(states, actions):
        transition[s, a, random.permutation(states)[:2]] = random.dirichlet(np.ones(2))
    reward, logits = random.normal(size=(2, states, actions))
    mdp = exact.TabularMDP(transition, reward, np.full(states, 1 / states), discount, horizon)
    return mdp, logits, softmax(logits)


def episodic(seed: int, discount: float = 1.0, horizon: int | None = None) -> Process:
    """A random process of which half of each step leads into a terminal state, the last."""
    mdp, logits, _ = garnet(seed)
    states, actions = mdp.reward.shape
    transition = np.zeros((states + 1, actions, states + 1))
    transition[:states, :, :states] = 0.5 * np.asarray(mdp.transition)
    transition[:states, :, states] = 0.5
    transition[states, :, states] = 1.0
    reward = np.vstack([mdp.reward, np.zeros(actions)])
    initial = np.append(np.asarray(mdp.initial), 0.0)
    logits = np.vstack([logits, np.linspace(0.0, 1.0, actions)])
    return exact.TabularMDP(transition, reward, initial, discount, horizon), logits, softmax(logits)


def two_state(horizon: int | None = None) -> Process:
    """The process of the known answers and its policy."""
    logits = np.asarray(exact.two_state_logits())
    return exact.two_state().replace(horizon=horizon), logits, softmax(logits)


@functools.cache
def network(states: int, actions: int) -> tuple[Any, Any]:
    """Parameters and a small network on features that two states share: a `policy_probs`."""
    features = np.sin(np.arange(states * 3.0)).reshape(states, 3)
    features[1] = features[0]

    def policy_probs(params: Any) -> jax.Array:
        return jax.nn.softmax(jax.numpy.tanh(features @ params["in"]) @ params["out"])

    random = np.random.default_rng(9)
    return {"in": random.normal(size=(3, 4)), "out": random.normal(size=(4, actions))}, policy_probs


def raveled(tree: Any) -> np.ndarray:
    """The leaves of a pytree one after the other, as `ravel_pytree` puts them."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def expectation(contributions: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean [P] and covariance [P, P] of contributions [N, ...] with probabilities [N]."""
    each, weights = np.asarray(contributions).reshape(len(weights), -1), np.asarray(weights)
    mean = weights @ each
    return mean, (weights[:, None] * (each - mean)).T @ (each - mean)


def states_of(batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """State, action and next state of each step, [H, N] integers; padding reads as state 0."""
    return np.argmax(batch.obs, -1), np.asarray(batch.action), np.argmax(batch.next_obs, -1)


def scores(batch: Any, logits: Any) -> np.ndarray:
    """The score of each step with respect to tabular logits, [H, N, S, A]; zero in the padding."""
    obs = np.asarray(batch.obs)
    error = np.eye(np.shape(logits)[1])[np.asarray(batch.action)] - softmax(obs @ np.asarray(logits))
    return obs[..., None] * error[..., None, :]


def returns_to_go(batch: Any, discount: float) -> np.ndarray:
    """Σ_{k≥t} γ^(k-t) r_k of one episode, [H, N]; rewards after its end are zero."""
    reward, going = np.asarray(batch.reward), 1 - np.asarray(batch.terminated)
    returns = np.zeros((len(reward) + 1, reward.shape[1]))
    for t in reversed(range(len(reward))):
        returns[t] = reward[t] + discount * returns[t + 1] * going[t]
    return returns[:-1]


def reward_to_go(batch: Any, logits: Any, discount: float, baseline: Any = None) -> np.ndarray:
    """The contribution of each trajectory to the reward-to-go estimator, [N, S, A]."""
    advantage = returns_to_go(batch, discount)
    if baseline is not None:
        advantage = advantage - np.asarray(batch.obs) @ np.asarray(baseline)
    return np.einsum("hn,hnsa->nsa", discount ** np.asarray(batch.step) * advantage, scores(batch, logits))


def gae(batch: Any, value: Any, discount: float, lam: float) -> np.ndarray:
    """Advantages of each step, [H, N], by a loop."""
    value, reward, going = np.asarray(value), np.asarray(batch.reward), 1.0 - np.asarray(batch.terminated)
    delta = reward + discount * going * (np.asarray(batch.next_obs) @ value) - np.asarray(batch.obs) @ value
    advantage, later = np.zeros_like(reward), 0.0
    for t in reversed(range(len(reward))):
        later = delta[t] + discount * lam * going[t] * later
        advantage[t] = later
    return advantage


def loop_values(mdp: exact.TabularMDP, probs: Any, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V [S], Q [S, A] and discounted visits [S] of ``steps`` steps, by the recursions of the definitions."""
    p, r, pi, mass = (np.asarray(x) for x in (mdp.transition, mdp.reward, probs, mdp.initial))
    gamma, weight = float(mdp.discount), 1.0
    value, q, visits = np.zeros(len(r)), np.zeros_like(r), np.zeros(len(r))
    for _ in range(steps):
        q = r + gamma * np.array([[p[s, a] @ value for a in range(r.shape[1])] for s in range(len(r))])
        value = (pi * q).sum(1)
        visits = visits + weight * mass
        mass = sum(mass[s] * pi[s, a] * p[s, a] for s, a in np.ndindex(*r.shape))
        weight *= gamma
    return value, q, visits
