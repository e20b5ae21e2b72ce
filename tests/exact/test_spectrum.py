"""The spectral radius."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjax import exact

from .processes import close


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_spectral_radius_matches_the_eigenvalues(seed):
    matrix = np.random.default_rng(seed).normal(size=(5, 5))
    close(exact.spectral_radius(matrix), np.abs(np.linalg.eigvals(matrix)).max(), rtol=1e-12)


def test_spectral_radius_of_special_matrices():
    close(exact.spectral_radius(np.array([[0.5, 1.0], [0.0, 0.5]])), 0.5, rtol=1e-12)
    close(exact.spectral_radius(np.array([[0.0, 2.0], [-2.0, 0.0]])), 2.0, rtol=1e-12)
    assert float(exact.spectral_radius(np.array([[0.0, 1.0], [0.0, 0.0]]))) == 0.0


def test_bad_matrices_are_refused_by_name():
    with pytest.raises(ValueError, match=r"matrix must have shape \[N, N\]"):
        exact.spectral_radius(np.ones((2, 3)))
