"""The figures that a certificate derives from mean and covariance, and the test of a sampled bias."""

import json
import math

import numpy as np
import pytest

from certify.suite import as_certificate, close
from pgjax import exact
from pgjax.certify.certificate import bias_test


def test_samples_for_a_cosine_are_those_at_which_the_part_across_is_small_enough():
    covariance = np.array([[9.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    one = as_certificate([2.0, 0.1, 0.0], covariance, [3.0, 0.0, 0.0])
    n = one.samples_for_cosine(0.9)
    across = 0.1**2 + (4.0 + 2.0) / n
    close(across, (1 / 0.9**2 - 1) * 2.0**2, rtol=1e-12)
    noise = np.random.default_rng(0).multivariate_normal(one.mean, covariance / round(n), size=20_000)
    close(np.mean(np.abs(noise[:, 0]) / np.linalg.norm(noise, axis=1)), 0.87, atol=0.05)
    assert as_certificate([2.0, 0.1, 0.0], 0 * covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == 1.0
    assert as_certificate([-2.0, 0.0, 0.0], covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == math.inf
    assert as_certificate([2.0, 2.0, 0.0], covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == math.inf
    close(one.signal_to_noise, 4.01 / 15.0, rtol=1e-12)
    close([one.bias_norm, one.relative_bias], [math.hypot(1.0, 0.1), math.hypot(1.0, 0.1) / 3.0], rtol=1e-12)
    with pytest.raises(ValueError, match=r"cosine must lie in \(0, 1\), got 1.0"):
        one.samples_for_cosine(1.0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_variances_are_quoted_for_one_trajectory(size):
    """The covariance is that of a mean over K trajectories: K times it belongs to one."""
    covariance = np.array([[9.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    one = as_certificate([2.0, 0.1, 0.0], covariance, [3.0, 0.0, 0.0])
    group = as_certificate([2.0, 0.1, 0.0], covariance / size, [3.0, 0.0, 0.0], group_size=size)
    close(group.trace, 15.0, rtol=1e-14)
    close(group.spectrum, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-12)
    assert group.spectrum[0] > group.spectrum[-1]
    close(group.signal_to_noise, one.signal_to_noise, rtol=1e-12)
    close(group.samples_for_cosine(), one.samples_for_cosine(), rtol=1e-12)
    close(group.samples_for_cosine(), 6.0 / ((1 / 0.81 - 1) * 4.0 - 0.01), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_unbiased_means_to_rounding_in_any_unit_of_reward(scale):
    covariance = scale**2 * np.eye(2)
    for error, unbiased in ((0.0, True), (1e-12, True), (1e-8, False), (1e-3, False), (1e-2, False)):
        mean = scale * np.array([1.0 + error, 1.0])
        assert as_certificate(mean, covariance, scale * np.ones(2)).unbiased == unbiased
    assert not as_certificate(scale * np.ones(2), covariance, scale * np.ones(2), claim=None).unbiased
    right_for_another = as_certificate(
        scale * np.ones(2), covariance, scale * np.array([1.0, 0.0]), target=scale * np.ones(2)
    )
    assert right_for_another.unbiased
    assert right_for_another.relative_bias == 1.0
    # Where variance is infinite, the length of the target is the measure.
    assert as_certificate(scale * np.ones(2), np.full((2, 2), np.inf), scale * np.ones(2)).unbiased
    assert not as_certificate([np.nan, scale], covariance, scale * np.ones(2)).unbiased


def test_a_gradient_that_is_zero_can_be_certified():
    certificate = as_certificate([0.0, 0.0], np.eye(2), [0.0, 0.0])
    assert certificate.unbiased
    assert "which is zero" in str(certificate)
    assert as_certificate([0.1, 0.0], np.eye(2), [0.0, 0.0]).relative_bias == math.inf
    assert "The gradient is zero" in str(as_certificate([0.1, 0.0], np.eye(2), [0.0, 0.0]))


def test_the_dictionary_is_json():
    certificate = as_certificate([-1.0, 0.0], np.eye(2), [1.0, 0.0])
    figures = json.loads(json.dumps(certificate.as_dict(), allow_nan=False))
    assert figures["found"] == ["discounted", -1.0]
    assert figures["samples_for_cosine_0.9"] == "inf"
    assert figures["unbiased"] is False
    assert figures["sampling"] is None
    assert "known" not in figures


def test_the_power_statement_and_the_interval():
    # 1% of a gradient of squared length 21.75 at a trace of 12.94 takes about 2.1e5 episodes.
    target, covariance = np.array([math.sqrt(21.75), 0.0]), np.diag([12.0, 0.94])
    none = bias_test(np.zeros(2), covariance, target, num_estimates=214_000)
    close(none.detectable, 0.01, rtol=0.02)
    assert none.p_value == 1.0
    # Of as many experiments as detect a bias with probability 0.9, most do.
    random = np.random.default_rng(1)
    draws = random.multivariate_normal(none.detectable * target, covariance / 214_000, size=300)
    tests = [bias_test(d, covariance, target, num_estimates=214_000) for d in draws]
    assert np.mean([test.p_value < test.significance for test in tests]) > 0.85
    norm = float(np.linalg.norm(none.detectable * target))
    assert np.mean([test.interval[0] <= norm <= test.interval[1] for test in tests]) > 0.93
    assert {test.significance for test in tests} == {1e-6}
    assert np.mean([test.interval[0] > 0.5 * norm for test in tests]) > 0.5
    draws = random.multivariate_normal(np.zeros(2), covariance / 100, size=2000)
    p_values = [bias_test(d, covariance, target, num_estimates=100).p_value for d in draws]
    close(np.mean(np.array(p_values) < 0.1), 0.1, atol=0.03)


def test_a_shift_where_nothing_varies_is_no_chance():
    target = np.array([math.sqrt(21.75), 0.0])
    certain = bias_test(np.array([0.0, 0.1]), np.diag([1.0, 0.0]), target, num_estimates=10)
    assert (certain.p_value, certain.degrees) == (0.0, 1)
    rounding = bias_test(np.array([0.0, 1e-9]), np.diag([1.0, 0.0]), target, num_estimates=10)
    assert rounding.p_value > 0.9
    assert math.isnan(rounding.trace_error)


def test_a_certificate_is_a_record():
    certificate = as_certificate([1.0], [[1.0]], [1.0])
    assert "mean=array([1.])" in repr(certificate)
    assert "the gradient is right" in str(certificate)
    assert isinstance(certificate, exact.Certificate)
