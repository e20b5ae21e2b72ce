"""Comparing estimators on the same keys: against NumPy, against exact variances, and what the pairing buys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import comparison, exact
from pgjax.comparison import compare_estimators, pair_statistics

close = np.testing.assert_allclose
LOGITS = np.array([[0.2, -0.3], [0.1, 0.4]])


def noisy(scale):
    return lambda key, params: params + scale * jax.random.normal(key, params.shape, params.dtype)


def scalar_cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.usefixtures("x64")
def test_pair_statistics_are_those_of_numpy():
    key, params, reference = jax.random.key(2), jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, -0.2, 0.1])
    got = pair_statistics(key, params, estimate=noisy(0.7), num_pairs=6, reference=reference)
    for i in range(6):
        halves = jax.random.split(jax.random.fold_in(key, i))
        a, b = (np.asarray(noisy(0.7)(half, params)) for half in halves)
        close(got.cosine[i], scalar_cosine(a, b), rtol=1e-13)
        toward = (scalar_cosine(a, np.asarray(reference)) + scalar_cosine(b, np.asarray(reference))) / 2
        close(got.reference_cosine[i], toward, rtol=1e-13)
        close(got.signal[i], a @ b, rtol=1e-13)
        close(got.variance[i], np.sum((a - b) ** 2) / 2, rtol=1e-13)
        close(got.projection[i], (a + b) @ np.asarray(reference) / 2 / np.sum(np.asarray(reference) ** 2), rtol=1e-13)
    alone = pair_statistics(key, params, estimate=noisy(0.7), num_pairs=6)
    assert alone.reference_cosine is None
    assert alone.projection is None
    nowhere = pair_statistics(key, params, estimate=noisy(0.7), num_pairs=6, reference=0 * reference)
    close(nowhere.projection, np.zeros(6), atol=0.0)


def test_known_noise_is_measured():
    """Normal noise in four dimensions: tr Cov = 4 σ² and signal-to-noise |μ|² / (4 σ²), inside five half-widths."""
    params = jnp.array([1.0, -2.0, 0.5, 0.1])
    signal = float(jnp.sum(params**2))
    result = compare_estimators(
        jax.random.key(0),
        params,
        estimators={"quiet": noisy(0.5), "loud": noisy(2.0)},
        num_pairs=4000,
        reference=params,
        steps_per_estimate={"quiet": 10, "loud": 3},
    )
    for name, scale, steps in (("quiet", 0.5, 10), ("loud", 2.0, 3)):
        noise = result.noise[name]
        for interval, want in (
            (noise.variance, 4 * scale**2),
            (noise.variance_per_step, 4 * scale**2 * steps),
            (noise.signal_to_noise, signal / (4 * scale**2)),
        ):
            assert abs(interval.mean - want) < 2.5 * (interval.high - interval.low)
            assert interval.low < interval.mean < interval.high
        close(noise.variance_per_second, np.array(noise.variance) * noise.seconds, rtol=1e-6)
        assert noise.seconds > 0
        assert noise.compile_seconds > 100 * noise.seconds  # compilation is not in the time of an estimate
    width = result.noise["loud"].variance.high - result.noise["loud"].variance.low
    # ½ |g - g'|² is σ² times a χ² of 4 degrees, whose variance is 8.
    close(width, 2 * 1.96 * 4.0 * np.sqrt(8 / 4000), rtol=0.15)
    assert result.noise["quiet"].reference_cosine.low > result.noise["loud"].reference_cosine.high
    assert result.noise["quiet"].cosine.low > result.noise["loud"].cosine.high


def interval(x):
    """Mean ± 1.96 standard errors."""
    x = np.asarray(x, np.float64)
    half = 1.96 * np.sqrt(np.sum((x - x.mean()) ** 2) / (len(x) - 1) / len(x))
    return x.mean(), x.mean() - half, x.mean() + half


def test_every_interval_is_that_of_numpy_on_the_statistics(monkeypatch):
    """The clock is played: 5 s of compilation and 12 s for 6 pairs, then 7 s and 24 s."""
    ticks = iter([0.0, 5.0, 17.0, 100.0, 107.0, 131.0])
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: next(ticks))
    params, steps = jnp.array([1.0, -2.0, 0.5]), {"first": 10, "second": 3}
    result = compare_estimators(
        jax.random.key(4),
        params,
        estimators={"first": noisy(0.7), "second": lambda k, p: 0.5 * p + noisy(0.4)(jax.random.fold_in(k, 1), p)},
        num_pairs=6,
        reference=params + 0.3,
        steps_per_estimate=steps,
    )
    rows = {name: jax.tree.map(lambda x: np.asarray(x, np.float64), s) for name, s in result.statistics.items()}
    for name, seconds, compile_seconds in (("first", 1.0, 5.0), ("second", 2.0, 7.0)):
        noise, row = result.noise[name], rows[name]
        assert (noise.seconds, noise.compile_seconds) == (seconds, compile_seconds)
        close(noise.cosine, interval(row.cosine), rtol=1e-5)
        close(noise.reference_cosine, interval(row.reference_cosine), rtol=1e-5)
        close(noise.variance, interval(row.variance), rtol=1e-5)
        close(noise.variance_per_step, interval(steps[name] * row.variance), rtol=1e-5)
        close(noise.variance_per_second, interval(seconds * row.variance), rtol=1e-5)
        # To first order the ratio of two means errs as the mean of signal - ratio * variance, over the mean variance.
        ratio = row.signal.mean() / row.variance.mean()
        half = interval(row.signal - ratio * row.variance)[2] / row.variance.mean()
        close(noise.signal_to_noise, (ratio, ratio - half, ratio + half), rtol=1e-5)
    first, second, difference = rows["first"], rows["second"], result.difference["second"]
    assert list(result.difference) == ["second"]
    close(difference.cosine, interval(second.cosine - first.cosine), rtol=1e-4)
    close(difference.reference_cosine, interval(second.reference_cosine - first.reference_cosine), rtol=1e-4)
    close(difference.variance, interval(second.variance - first.variance), rtol=1e-4)
    close(difference.variance_per_step, interval(3 * second.variance - 10 * first.variance), rtol=1e-4)


def test_every_estimator_sees_the_same_keys():
    twice = compare_estimators(
        jax.random.key(0),
        jnp.ones(3),
        estimators={"one": noisy(1.0), "same": noisy(1.0), "double": lambda k, p: 2 * noisy(1.0)(k, p)},
        num_pairs=50,
        reference=jnp.ones(3),
    )
    zero = (0.0, 0.0, 0.0)
    assert set(twice.difference) == {"same", "double"}
    assert twice.difference["same"].cosine == twice.difference["same"].variance == zero
    assert twice.difference["same"].reference_cosine == zero
    close(twice.difference["double"].cosine, 0.0, atol=1e-6)
    close(twice.statistics["double"].variance, 4 * twice.statistics["one"].variance, rtol=1e-6)
    again = compare_estimators(jax.random.key(0), jnp.ones(3), estimators={"one": noisy(1.0)}, num_pairs=50)
    assert np.array_equal(again.statistics["one"].signal, twice.statistics["one"].signal)
    other = compare_estimators(jax.random.key(1), jnp.ones(3), estimators={"one": noisy(1.0)}, num_pairs=50)
    assert not np.array_equal(other.statistics["one"].signal, twice.statistics["one"].signal)


# The two-state process with three steps, one trajectory for each estimate.


def softmax_policy(params, obs):
    return pg.Categorical(obs @ params)


def value_baseline_table():
    """[3, 2] exact values with one, two and three steps to go, and what they leave unexplained."""
    mdp = exact.two_state().replace(horizon=3)
    return exact.values_over_time(mdp, jax.nn.softmax(jnp.asarray(LOGITS)))[:3]


def contribution(params, trajectory, table=None):
    """Reward-to-go with the weight γ^t and, if given, a baseline [3, 2]: leaves [B, ...]."""
    baseline = None
    if table is not None:
        baseline = jnp.einsum("tbs,ts->tb", trajectory.obs, table.astype(trajectory.obs.dtype))
    weight = pg.discount_weight(trajectory.step, 0.9)
    return pg.reinforce.per_trajectory(
        params, trajectory, policy=softmax_policy, discount=0.9, step_weight=weight, baseline=baseline
    )[0]


def sampled(table=None):
    env = exact.TabularEnvironment(exact.two_state().replace(horizon=3))

    def estimate(key, params):
        start, run = jax.random.split(key)
        state = pg.init_rollout(start, env, env.default_params, num_envs=1)
        _, trajectory = pg.rollout(
            run, params, state, policy=softmax_policy, env=env, env_params=env.default_params, num_steps=3
        )
        return contribution(params, trajectory, table)[0]

    return estimate


def test_the_same_keys_make_the_difference_of_two_estimators_more_certain():
    """All pairs of trajectories give the exact spread of the difference; sampling must reproduce both widths."""
    with jax.enable_x64(True):
        mdp, logits = exact.two_state().replace(horizon=3), jnp.asarray(LOGITS)
        batch, weights = exact.trajectories(mdp, jax.nn.softmax(logits))
        rows = [
            np.asarray(contribution(logits, batch, table)).reshape(len(weights), -1)
            for table in (None, value_baseline_table())
        ]
        table = np.asarray(value_baseline_table(), np.float32)
        index, pair_weights = (np.asarray(x) for x in exact.groups(weights, 2))
    half_gaps = [0.5 * np.sum((g[index[:, 0]] - g[index[:, 1]]) ** 2, axis=1) for g in rows]

    def spread(x):
        return pair_weights @ x**2 - (pair_weights @ x) ** 2

    plain, with_value = (pair_weights @ x for x in half_gaps)
    close(plain, 3.99767005, rtol=1e-6)  # ½ E|g - g'|² is tr Cov
    paired, apart = spread(half_gaps[1] - half_gaps[0]), spread(half_gaps[0]) + spread(half_gaps[1])
    assert paired < 0.95 * apart

    count = 20_000
    result = compare_estimators(
        jax.random.key(1),
        jnp.asarray(LOGITS, jnp.float32),
        estimators={"plain": sampled(), "value": sampled(jnp.asarray(table))},
        num_pairs=count,
    )
    half_width = lambda interval: (interval.high - interval.low) / 2  # noqa: E731
    difference = result.difference["value"].variance
    close(half_width(difference), 1.96 * np.sqrt(paired / count), rtol=0.1)
    each = [half_width(result.noise[name].variance) for name in ("plain", "value")]
    close(each, 1.96 * np.sqrt([spread(x) / count for x in half_gaps]), rtol=0.1)
    for interval, want in (
        (difference, with_value - plain),
        (result.noise["plain"].variance, plain),
        (result.noise["value"].variance, with_value),
    ):
        assert abs(interval.mean - want) < 2.5 * 2 * half_width(interval)
    assert difference.high < 0  # the baseline helps, and it is seen


def test_memory_does_not_grow_with_the_number_of_pairs():
    params = jnp.ones(10_000)

    def used(count):
        run = lambda key: pair_statistics(key, params, estimate=noisy(1.0), num_pairs=count, reference=params)  # noqa: E731
        return jax.jit(run).lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    assert used(1_000) - used(10) < 1_000 * 40  # a few numbers for each pair, not a gradient
    assert used(1_000) < 20 * params.nbytes


def test_no_noise_and_no_signal_are_finite_or_say_so():
    result = compare_estimators(
        jax.random.key(0),
        jnp.ones(2),
        estimators={"exact": lambda k, p: p, "silent": lambda k, p: 0 * p, "mute": lambda k, p: noisy(1.0)(k, 0 * p)},
        num_pairs=100,
        reference=jnp.ones(2),
    )
    perfect, silent = result.noise["exact"], result.noise["silent"]
    assert perfect.signal_to_noise == (np.inf, np.inf, np.inf)
    assert perfect.variance == (0.0, 0.0, 0.0)
    close(perfect.cosine, 1.0, rtol=1e-6)
    assert silent.signal_to_noise == silent.cosine == silent.reference_cosine == (0.0, 0.0, 0.0)
    low, high = result.noise["mute"].signal_to_noise[1:]
    assert low < 0 < high


def test_bad_arguments_are_refused_by_name():
    key, params = jax.random.key(0), jnp.ones(2)

    def compare(estimators, num_pairs=3, **kwargs):
        return compare_estimators(key, params, estimators=estimators, num_pairs=num_pairs, **kwargs)

    with pytest.raises(ValueError, match="estimators must hold at least one estimator, got none"):
        compare({})
    with pytest.raises(TypeError, match=r"estimators\['a'\] must be a function, got int"):
        compare({"a": 3})
    with pytest.raises(ValueError, match="num_pairs must be at least 2, got 1"):
        compare({"a": noisy(1.0)}, num_pairs=1)
    with pytest.raises(ValueError, match=r"steps_per_estimate must have the names of estimators, \['a'\], got \['b'\]"):
        compare({"a": noisy(1.0)}, steps_per_estimate={"b": 1})
    with pytest.raises(ValueError, match="steps_per_estimate must be at least 1, got 0"):
        compare({"a": noisy(1.0)}, steps_per_estimate=0)
    with pytest.raises(TypeError, match="must be called outside jit and vmap"):
        jax.jit(lambda p: compare_estimators(key, p, estimators={"a": noisy(1.0)}, num_pairs=3).noise)(params)
    with pytest.raises(ValueError, match=r"estimate\(key, params\) must have the tree structure of params"):
        pair_statistics(key, params, estimate=lambda k, p: (p, p), num_pairs=3)
    with pytest.raises(ValueError, match="reference must have the tree structure of params"):
        pair_statistics(key, params, estimate=noisy(1.0), num_pairs=3, reference={"a": params})
    with pytest.raises(ValueError, match=r"must have the shape of first, \[2\], got \[3\]"):
        pair_statistics(key, params, estimate=noisy(1.0), num_pairs=3, reference=jnp.ones(3))
