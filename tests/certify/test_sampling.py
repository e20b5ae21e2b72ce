"""Certificates from rollouts agree with those from lists, and reject what lists reject."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from certify.suite import chosen, problem_of, two_state
from pgjax import exact
from pgjax.certify.certificate import bias_test


@pytest.mark.parametrize(
    ("name", "estimators"),
    [
        ("two_state, other data", ("V-trace, other data, clips 1, wrong value",)),
        pytest.param(
            "alias_discount",
            ("likelihood ratio", "REINFORCE, mean with self", "actor-critic λ=0.95, wrong value"),
            marks=pytest.mark.slow,
        ),
        pytest.param("two_state, cut", ("PPO, first step, exact value",), marks=pytest.mark.slow),
    ],
)
def test_sampling_agrees_with_enumeration(name, estimators):
    problem = problem_of(name)
    candidates = chosen(*estimators)
    everything = exact.certify_all(candidates, problem, method="enumeration")
    for sampled, listed in zip(exact.certify_all(candidates, problem, method="sampling"), everything, strict=True):
        found = sampled.sampling
        test = bias_test(sampled.mean - listed.mean, sampled.covariance, listed.mean, num_estimates=found.num_estimates)
        assert test.p_value > 1e-6
        assert abs(listed.trace - sampled.trace) < 5 * listed.group_size * found.trace_error
        assert found.trace_error < 0.1 * sampled.trace / sampled.group_size
        shown = listed.claim_error > 2 * found.detectable * np.linalg.norm(listed.target)
        assert (found.p_value < found.significance) == shown


def test_as_many_trajectories_are_drawn_as_are_counted():
    """Each batch has a key of its own, and each trajectory is used once."""
    problem, drawn = two_state(1), []

    def sample(key, problem, num_envs):
        def remember(obs, action):
            drawn.append(np.asarray(action))

        trajectory = exact.sample_trajectories(key, problem, num_envs)
        jax.debug.callback(remember, trajectory.obs, trajectory.action)
        return trajectory

    (certificate,) = exact.certify_all(
        chosen("REINFORCE, leave-one-out"), problem, method="sampling", num_trajectories=10_001, sample=sample
    )
    jax.effects_barrier()
    # The first batch is drawn once more, to see whether trajectories depend on each other.
    distinct = {x.tobytes() for x in drawn}
    assert len(drawn) == len(distinct) + 1
    total = sum(x.size for x in drawn) - drawn[0].size
    assert certificate.num_trajectories == total == 2 * certificate.sampling.num_estimates >= 10_001


def test_another_key_gives_another_sample():
    options = {"method": "sampling", "num_trajectories": 1000}
    one, again, other = (
        exact.certify(pg.gpomdp, two_state(1), key=jax.random.key(seed), **options) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.mean, again.mean)
    assert not np.array_equal(one.mean, other.mean)


def test_one_key_for_policy_and_environment_is_rejected():
    problem = problem_of("two_state")
    env, env_params = problem.environment, problem.environment.default_params

    def rollout(same):
        def sample(key, problem, num_envs):
            def step(carry, keys):
                obs, state = carry
                act, move = (keys[0], keys[0]) if same else (keys[0], keys[1])
                action = problem.policy(problem.params, obs).sample(act)
                after, state, reward, terminated, _ = env.step_env(move, state, action, env_params)
                return (after, state), (obs, action, reward, after, terminated)

            def one(key):
                start, *keys = jax.random.split(key, 1 + 2 * problem.num_steps)
                keys = jnp.stack(keys).reshape(problem.num_steps, 2)
                return jax.lax.scan(step, env.reset_env(start, env_params), keys)[1]

            obs, action, reward, after, terminated = jax.vmap(one, out_axes=1)(jax.random.split(key, num_envs))
            time = jnp.broadcast_to(jnp.arange(problem.num_steps)[:, None], reward.shape)
            return pg.Trajectory(obs, action, reward, after, terminated, ~(terminated | True), 0.0 * reward, time)

        return sample

    for same in (False, True):
        (certificate,) = exact.certify_all(chosen("REINFORCE"), problem, method="sampling", sample=rollout(same))
        assert certificate.unbiased == (not same)
