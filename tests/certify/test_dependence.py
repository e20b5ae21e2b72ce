"""What an estimator adds for one trajectory must not depend on the others, or it says on how many.

A baseline that sees its own sample came out as unbiased, because all listed trajectories ran as one batch.
"""

import jax.numpy as jnp
import pytest

import pgjax as pg
from certify.suite import chosen, close, faulty, problem_of, two_state
from pgjax import exact


def reinforce_with(weight, name="own"):
    """REINFORCE whose weights come from the returns [T, B]."""

    @pg.estimator
    def estimator(params, trajectory, *, policy, discount):
        t = trajectory
        returns = pg.discounted_returns(t.reward, terminated=t.terminated, truncated=t.truncated, discount=discount)
        weights, mask = weight(returns), None
        if isinstance(weights, tuple):
            weights, mask = weights

        def loss(params, trajectory, weights, state):
            log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
            return pg.policy_gradient_loss(log_prob, weights)

        return pg.Surrogate(loss, weights * pg.discount_weight(t.step, discount), mask)

    estimator.__name__ = name
    return estimator


LOOKING_AROUND = {
    "batch mean": lambda r: r - r.mean(-1, keepdims=True),
    "standard deviation": lambda r: r / (jnp.std(r) + 1e-8),
    "standardised": pg.standardize,
    "mask": lambda r: (r, r > jnp.median(r)),
    "batch size": lambda r: r / r.shape[-1],
    "largest": lambda r: r / jnp.abs(r).max(),
    "rank": lambda r: jnp.argsort(jnp.argsort(r, axis=-1), axis=-1).astype(r.dtype),
    "neighbour": lambda r: r - jnp.roll(r, 1, axis=-1),
    "running sum": lambda r: r - 0.1 * jnp.cumsum(r, axis=-1),
    "clipped at a quantile": lambda r: jnp.minimum(r, jnp.quantile(r, 0.9)),
    "a little": lambda r: r - 1e-3 * r.mean(),
}
ALONE = {
    "nothing": lambda r: r,
    "constant": lambda r: r - 1.7,
    "cancelling": lambda r: (r + 1e6) - 1e6,
    "over time": lambda r: r - r.mean(0, keepdims=True),
    "float32": lambda r: jnp.tanh(r.astype(jnp.float32) / 3).astype(r.dtype),
    "own mask": lambda r: (r, r > 1.0),
    "very different sizes": lambda r: jnp.where(r > 1.5, 1e12 * r, r),
    "NaN": lambda r: jnp.where(r > 1.5, jnp.nan, r),
}


@pytest.mark.parametrize("method", ["enumeration", "sampling"])
def test_finding_1_a_baseline_that_sees_its_own_sample_is_not_certified(method):
    problem = two_state(2)
    own = reinforce_with(LOOKING_AROUND["batch mean"])
    options = {"method": method, "num_trajectories": 20_000}
    message = r"own depends on the other trajectories of the batch: alone.* Pass group_size, .* group_size=2"
    with pytest.raises(ValueError, match=message):
        exact.certify(own, problem, **options)
    with pytest.raises(ValueError, match=message):
        exact.certify_all([pg.reinforce, own], problem, **options)
    found = exact.certify(own, problem, group_size=2, **options)
    assert not found.unbiased
    assert found.group_size == 2
    assert found.depends_on_others
    assert found.relative_bias == pytest.approx(0.5, abs=1e-12 if method == "enumeration" else 0.05)


def test_whatever_looks_around_is_asked_for_its_group_size_and_nothing_else():
    """Standardisation, a deviation, a mask, ...; and no false alarm for what looks at its own trajectory alone."""
    around = [reinforce_with(weight, name) for name, weight in LOOKING_AROUND.items()]
    alone = [reinforce_with(weight, name) for name, weight in ALONE.items()]
    with pytest.raises(ValueError, match="depend on the other trajectories") as caught:
        exact.certify_all([*around, *alone], two_state(2))
    assert str(caught.value).split(" depend on")[0].split(" and ") == list(LOOKING_AROUND)
    found = exact.certify_all(alone, two_state(2))
    assert not any(c.depends_on_others for c in found)
    assert [c.unbiased for c in found] == [name in ("nothing", "constant", "cancelling") for name in ALONE]


def test_a_function_baseline_is_seen_through():
    def plus(factor):
        return exact.Candidate("x", faulty, lambda p, t: {"baseline": lambda r: 0.1 * r[:1] + factor * r.mean()})

    with pytest.raises(ValueError, match="x depends on the other trajectories"):
        exact.certify(plus(1.0), two_state(2))
    assert not exact.certify(plus(0.0), two_state(2)).depends_on_others


def test_an_estimator_that_raises_alone_is_asked_too():
    needy = exact.Candidate("others", pg.reinforce, lambda p, t: {"baseline": pg.leave_one_out})
    with pytest.raises(
        ValueError, match=r"others depends .* with one trajectory it raises ValueError: .* group_size=2"
    ):
        exact.certify(needy, two_state(2))
    found = exact.certify(needy, two_state(2), group_size=3)
    assert found.group_size == 3
    assert found.depends_on_others

    @pg.estimator
    def broken(params, trajectory, *, policy):
        raise ValueError("broken whatever it is given")

    with pytest.raises(ValueError, match="broken whatever it is given"):
        exact.certify(broken, two_state(2))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_groups_of_a_bandit(size):
    problem = problem_of("softmax_bandit")
    estimators = [
        exact.Candidate(name, pg.reinforce, lambda p, t, b=b: {"baseline": b}, claim=claim)
        for name, b, claim in (("others", pg.leave_one_out, "gradient"), ("self", pg.batch_mean, None))
    ]
    others, own = exact.certify_all(estimators, problem, group_size=size)
    closed = exact.leave_one_out_moments(problem.params[0], problem.mdp.reward[0], num_samples=size)
    close(others.mean, closed.mean, atol=1e-14)
    close(others.covariance, closed.covariance, atol=1e-14)
    close(others.trace, size * closed.trace, atol=1e-13)
    close(others.spectrum, size * jnp.linalg.eigvalsh(closed.covariance)[::-1], atol=1e-13)
    close(own.mean, (size - 1) / size * others.gradient, atol=1e-14)
    close(own.cosine, 1.0, atol=1e-12)
    assert others.num_trajectories == problem.mdp.num_actions


def test_candidates_keep_their_group_size_unless_it_is_given():
    (candidate,) = chosen("REINFORCE, leave-one-out")
    problem = two_state(1)
    assert exact.certify(candidate, problem).group_size == 2
    assert exact.certify(candidate, problem, group_size=3).group_size == 3
    sampled = exact.certify(candidate, problem, method="sampling", group_size=3, num_trajectories=3000)
    assert sampled.group_size == 3
    assert sampled.num_trajectories == 3 * sampled.sampling.num_estimates >= 3000
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        exact.certify(candidate, problem, group_size=0)


def test_a_single_trajectory_is_enough_to_see_the_batch():
    """A process with one trajectory: there is nobody to differ from, but a batch of its copies."""
    mdp = exact.TabularMDP(jnp.ones((1, 1, 1)), jnp.ones((1, 1)), jnp.ones(1), 0.9, horizon=2)
    problem = exact.tabular_problem("one", mdp, params=jnp.zeros((1, 1)))
    assert problem.count() == 1
    assert exact.certify(pg.gpomdp, problem).depends_on_others is False
