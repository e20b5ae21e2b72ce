"""What an estimate costs: the batch that was asked for, and the runs after the first."""

import json
import time

import jax

from certify.suite import chosen, problem_of, two_state
from pgjax import exact
from pgjax.certify.measure.cost import median_seconds


def test_costs_are_those_of_the_batch():
    problem = problem_of("softmax_bandit")
    small, large = (exact.certify_all(chosen("REINFORCE"), problem, cost_batch=n)[0] for n in (1, 64))
    assert (small.cost.batch_size, large.cost.batch_size) == (1, 64)
    assert large.cost.flops > 16 * small.cost.flops
    assert large.cost.bytes_accessed > 64 * 8
    assert large.cost.compile_seconds > large.cost.run_seconds > 0
    figures = json.loads(json.dumps(large.as_dict(), allow_nan=False))
    assert figures["cost"]["batch_size"] == 64
    assert figures["unbiased"] is True
    assert figures["terms"] is None
    assert exact.certify_all(chosen("REINFORCE"), problem)[0].cost is None


def test_the_first_run_does_not_count():
    waits = [0.2, *[0.002] * 4, 0.1, *[0.002] * 5]
    seconds = median_seconds(lambda: time.sleep(waits.pop(0)))
    assert waits == []
    assert 0.002 <= seconds < 0.05


def test_noise_that_an_estimator_takes_is_drawn_for_its_cost():
    (candidate,) = chosen("RELAX at the action taken, wrong critic")
    problem = two_state(1)
    batch = exact.sample_trajectories(jax.random.key(0), problem, 4)
    assert exact.measure_cost(candidate, problem, batch).batch_size == 4
