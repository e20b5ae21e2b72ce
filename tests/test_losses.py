"""Losses by the table of their gradients, and reductions against loops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
RATIOS = np.array([0.01, 0.5, 0.79, 0.81, 0.99, 1.0, 1.01, 1.19, 1.21, 1.27, 1.29, 2.0, 50.0])
ADVANTAGES = np.array([-2.0, -0.1, 0.0, 0.1, 2.0])


def slope(loss: Any, *args: Any, **kwargs: Any) -> Any:
    """d loss / d first argument, entry by entry."""
    return jax.jit(jax.grad(lambda first: loss(first, *args[1:], **kwargs).sum()))(args[0])


def grid() -> tuple[Any, Any]:
    ratio, advantage = np.meshgrid(RATIOS, ADVANTAGES, indexing="ij")
    return jnp.asarray(np.log(ratio)), jnp.asarray(advantage)


# --- policy gradient and PPO ------------------------------------------------------------------------------------------


def test_the_policy_gradient_loss_has_minus_the_advantage_as_slope_and_no_other_gradient() -> None:
    log_prob, advantage = grid()
    close(pg.policy_gradient_loss(log_prob, advantage), -np.asarray(log_prob) * np.asarray(advantage))
    close(slope(pg.policy_gradient_loss, log_prob, advantage), -np.asarray(advantage))
    close(jax.jit(jax.grad(lambda a: pg.policy_gradient_loss(log_prob, a).sum()))(advantage), 0.0)


@pytest.mark.parametrize("upper", [None, 0.28, 0.1])
def test_the_table_of_ppo_gradients(upper: float | None) -> None:
    """-ρA where the minimum takes the ratio itself, 0 where it takes the clipped one."""
    log_ratio, advantage = grid()
    rise = 0.2 if upper is None else upper
    got = slope(pg.ppo_clip_loss, log_ratio, advantage, clip=0.2, clip_upper=upper)
    loss = pg.ppo_clip_loss(log_ratio, advantage, clip=0.2, clip_upper=upper)
    zeros = 0
    for i, rho in enumerate(RATIOS):
        for j, a in enumerate(ADVANTAGES):
            out = (a > 0 and rho > 1 + rise) or (a < 0 and rho < 0.8)
            zeros += out
            close(got[i, j], 0.0 if out else -rho * a)
            close(loss[i, j], -min(rho * a, min(max(rho, 0.8), 1 + rise) * a))
    assert zeros > 10
    close(jax.jit(jax.grad(lambda a: pg.ppo_clip_loss(log_ratio, a).sum()))(advantage), 0.0)


def test_at_ratio_1_ppo_follows_the_policy_gradient() -> None:
    advantage = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    now = jnp.zeros((5, 3))
    expected = slope(pg.policy_gradient_loss, now, advantage)
    for upper in (None, 0.05):
        np.testing.assert_array_equal(slope(pg.ppo_clip_loss, now, advantage, clip=0.1, clip_upper=upper), expected)
    kl = 0.5 * jnp.square(now)
    got = jax.jit(jax.grad(lambda x: pg.kl_penalty_loss(x, advantage, kl=kl, coefficient=3.0).sum()))(now)
    np.testing.assert_array_equal(got, expected)


def test_a_wide_clip_is_importance_weighting() -> None:
    log_ratio, advantage = grid()
    close(pg.ppo_clip_loss(log_ratio, advantage, clip=1e9), -np.exp(log_ratio) * np.asarray(advantage))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_extreme_log_ratios_are_finite(dtype: Any) -> None:
    log_ratio = jnp.array([1e4, -1e4, 1e4, -1e4], dtype)
    advantage = jnp.array([1.0, 1.0, -1.0, -1.0], dtype)
    kl = jnp.zeros(4, dtype)
    for loss in (pg.ppo_clip_loss, functools.partial(pg.kl_penalty_loss, kl=kl, coefficient=1.0)):
        assert np.isfinite(loss(log_ratio, advantage)).all()
        assert np.isfinite(slope(loss, log_ratio, advantage).astype(jnp.float32)).all()
    np.testing.assert_allclose(
        pg.ppo_clip_loss(log_ratio, advantage), [-1.2, 0.0, np.exp(20.0), 0.8], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_ratios_are_bounded_at_20_nats_and_have_no_gradient_beyond(sign: float) -> None:
    """A negative advantage with a ratio that has run away: the loss is exp(20) |A|, and nothing brings it back."""
    log_ratio = sign * jnp.array([19.0, 20.5, 1e4])
    advantage, ratio = jnp.array([-2.0, -2.0, -2.0]), np.exp(sign * np.array([19.0, 20.0, 20.0]))
    for loss in (
        functools.partial(pg.ppo_clip_loss, clip=1.0, clip_upper=1e12),
        functools.partial(pg.kl_penalty_loss, kl=jnp.zeros(3), coefficient=1.0),
    ):
        np.testing.assert_allclose(loss(log_ratio, advantage), 2.0 * ratio, rtol=1e-12)
        np.testing.assert_allclose(slope(loss, log_ratio, advantage), [2.0 * ratio[0], 0.0, 0.0], rtol=1e-12)


def test_the_kl_penalty_has_no_gradient_at_the_old_policy() -> None:
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)))
    action, advantage = jnp.array([0, 1, 2, 3, 1, 0]), jnp.zeros(6)
    old = pg.Categorical(logits)

    def loss(logits: Any, coefficient: float) -> Any:
        new = pg.Categorical(logits)
        log_ratio = new.log_prob(action) - old.log_prob(action)
        return pg.kl_penalty_loss(log_ratio, advantage, kl=old.kl_divergence(new), coefficient=coefficient).sum()

    close(jax.jit(jax.grad(loss))(logits, 10.0), 0.0)
    close(loss(logits, 10.0), 0.0)
    away = logits.at[:, 0].add(0.5)
    assert float(loss(away, 1.0)) > 0.01
    close(loss(away, 3.0), 3 * loss(away, 1.0))
    # Σ_a π_old log(π_old / π) differentiated by hand: π - π_old
    close(jax.jit(jax.grad(loss))(away, 2.0), 2.0 * (jax.nn.softmax(away) - jax.nn.softmax(logits)))


def test_policy_inference_loss_is_likelihood_with_a_bonus() -> None:
    """Of a normal against the formula and its slopes by hand; without the bonus, minus the log-probability."""
    random = np.random.default_rng(7)
    action, loc, log_scale = random.normal(size=(3, 50, 2))

    def loss(loc: Any, log_scale: Any, coefficient: Any) -> Any:
        guess = pg.Normal(loc, jnp.exp(log_scale))
        return pg.policy_inference_loss(guess.log_prob(jnp.asarray(action)), guess.entropy(), coefficient=coefficient)

    z = (action - loc) / np.exp(log_scale)
    constant = 0.5 * np.log(2 * np.pi)
    wanted = np.sum(0.5 * z**2 + log_scale + constant - 0.3 * (log_scale + constant + 0.5), -1)
    close(loss(jnp.asarray(loc), jnp.asarray(log_scale), 0.3), wanted)
    slopes = jax.grad(lambda loc, log_scale: loss(loc, log_scale, 0.3).sum(), argnums=(0, 1))(
        jnp.asarray(loc), jnp.asarray(log_scale)
    )
    close(slopes[0], -z / np.exp(log_scale))
    close(slopes[1], 1 - z**2 - 0.3)
    close(pg.policy_inference_loss(jnp.asarray(z[:, 0]), jnp.asarray(z[:, 1]), coefficient=0.0), -z[:, 0])


def test_entropy_loss_is_minus_the_entropy() -> None:
    np.testing.assert_array_equal(pg.entropy_loss(jnp.array([0.5, 2.0])), [-0.5, -2.0])


# --- value losses -----------------------------------------------------------------------------------------------------


def test_value_losses_against_loops() -> None:
    random = np.random.default_rng(2)
    value, target, old = (random.normal(size=(40,)) for _ in range(3))
    args = (jnp.asarray(value), jnp.asarray(target))
    close(pg.value_loss(*args), 0.5 * (value - target) ** 2)
    close(slope(pg.value_loss, *args), value - target)
    close(jax.jit(jax.grad(lambda t: pg.value_loss(args[0], t).sum()))(args[1]), 0.0)

    got, rise = pg.clipped_value_loss(*args, old_value=jnp.asarray(old), clip=0.3), []
    for v, t, o, x in zip(value, target, old, got, strict=True):
        near = o + min(max(v - o, -0.3), 0.3)
        close(x, 0.5 * max((v - t) ** 2, (near - t) ** 2))
        rise.append(0.0 if (near - t) ** 2 > (v - t) ** 2 else v - t)
    assert 0 < np.count_nonzero(rise) < 40
    close(slope(pg.clipped_value_loss, *args, old_value=jnp.asarray(old), clip=0.3), rise)
    close(pg.clipped_value_loss(*args, old_value=args[0], clip=0.1), pg.value_loss(*args))
    close(slope(pg.clipped_value_loss, *args, old_value=args[0], clip=0.1), value - target)
    for wrong in (0, 1):
        both = lambda t, o: pg.clipped_value_loss(args[0], t, old_value=o).sum()  # noqa: E731
        close(jax.grad(both, argnums=wrong)(args[1], jnp.asarray(old)), 0.0)


# --- reductions -------------------------------------------------------------------------------------------------------

NUMBERS = hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3, width=32))
MASKS = hnp.arrays(np.bool_, (3, 4))


@given(NUMBERS, MASKS, st.sampled_from([None, 0, 1, (0, 1)]))
@settings(max_examples=25, deadline=None)
def test_masked_mean_is_the_mean_of_what_counts(x: Any, mask: Any, axis: Any) -> None:
    filled = np.where(mask, x, np.nan)
    count = mask.sum(axis)
    expected = np.where(count > 0, np.nansum(filled, axis) / np.maximum(count, 1), 0.0)
    np.testing.assert_allclose(pg.masked_mean(jnp.asarray(filled), jnp.asarray(mask), axis=axis), expected, atol=1e-9)
    if axis != (0, 1):
        np.testing.assert_allclose(pg.masked_mean(jnp.asarray(x), axis=axis), x.mean(axis), atol=1e-9)


def test_what_a_mean_leaves_out_has_no_gradient_and_may_be_anything() -> None:
    x = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    mask = jnp.array([True, False, True, False])
    close(pg.masked_mean(x, mask), 2.0)
    close(jax.jit(jax.grad(lambda x: pg.masked_mean(x, mask)))(x), [0.5, 0.0, 0.5, 0.0])
    none = jnp.zeros(4, bool)
    close(pg.masked_mean(x, none), 0.0)
    close(jax.jit(jax.grad(lambda x: pg.masked_mean(x, none)))(x), 0.0)
    assert np.isnan(pg.masked_mean(x, ~none))


def by_hand(x: Any, mask: Any, eps: float) -> Any:
    inside = x[mask]
    out = np.zeros_like(x)
    if inside.size and np.ptp(inside) > 0:
        out[mask] = (inside - inside.mean()) / (inside.std() + eps)
    return out


@given(hnp.arrays(np.float64, (3, 4), elements=st.integers(-50, 50).map(lambda n: n / 4)), MASKS)
@settings(max_examples=25, deadline=None)
def test_standardize_agrees_with_numpy(x: Any, mask: Any) -> None:
    everything = np.ones_like(mask)
    close(pg.standardize(jnp.asarray(x), eps=0.01), by_hand(x, everything, 0.01))
    filled = jnp.asarray(np.where(mask, x, np.nan))
    got = pg.standardize(filled, jnp.asarray(mask), eps=0.01)
    close(got, by_hand(x, mask, 0.01))
    # The smallest difference is 1/4, so the default eps of 1e-8 cannot be seen at this tolerance.
    np.testing.assert_allclose(
        pg.standardize(jnp.asarray(3.0 * x + 7.0)), pg.standardize(jnp.asarray(x)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1, -3e-7, 0.0])
def test_equal_numbers_standardize_to_exactly_zero(constant: float) -> None:
    x = jnp.full((3, 7), constant, jnp.float32)
    np.testing.assert_array_equal(pg.standardize(x, eps=0.0), 0.0)
    mask = jnp.arange(21).reshape(3, 7) % 3 == 1
    np.testing.assert_array_equal(pg.standardize(jnp.where(mask, x, 5.0), mask, eps=0.0), 0.0)
    assert np.isfinite(jax.jit(jax.grad(lambda x: pg.standardize(x).sum()))(x)).all()


def test_standardize_of_one_sample_of_nothing_and_of_nan() -> None:
    np.testing.assert_array_equal(pg.standardize(jnp.array([3.0])), [0.0])
    x = jnp.array([3.0, jnp.nan, 5.0])
    np.testing.assert_array_equal(pg.standardize(x, jnp.zeros(3, bool)), 0.0)
    np.testing.assert_array_equal(pg.standardize(x, jnp.array([True, False, False])), 0.0)
    assert np.isnan(pg.standardize(x)).all()  # trouble is passed on, not hidden
    mask = jnp.array([True, False, True])
    close(pg.standardize(x, mask, eps=0.0), [-1.0, 0.0, 1.0])
    gradient = jax.grad(lambda x: (pg.standardize(x, mask) * jnp.array([1.0, 2.0, 3.0])).sum())(x)
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    two, three, ints = jnp.zeros(2), jnp.zeros(3), jnp.zeros(3, jnp.int32)
    with pytest.raises(TypeError, match="log_prob must have a floating dtype, got int32"):
        pg.policy_gradient_loss(ints, three)
    with pytest.raises(ValueError, match=r"advantage must have the shape of log_prob, \[2\], got \[3\]"):
        pg.policy_gradient_loss(two, three)
    with pytest.raises(ValueError, match=r"advantage must have the shape of log_ratio"):
        pg.ppo_clip_loss(two, three)
    with pytest.raises(ValueError, match=r"clip must be a scalar or have shape \[2, 3\], got \[3\]"):
        pg.ppo_clip_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), clip=three)
    with pytest.raises(ValueError, match=r"clip_upper must be a scalar or have shape \[3\], got \[2\]"):
        pg.ppo_clip_loss(three, three, clip_upper=two)
    with pytest.raises(ValueError, match=r"kl must have the shape of log_ratio, \[3\], got \[2\]"):
        pg.kl_penalty_loss(three, three, kl=two, coefficient=1.0)
    with pytest.raises(ValueError, match=r"coefficient must be a scalar or have shape \[3\], got \[2\]"):
        pg.kl_penalty_loss(three, three, kl=three, coefficient=two)
    with pytest.raises(ValueError, match=r"target must have the shape of value, \[3\], got \[2\]"):
        pg.value_loss(three, two)
    with pytest.raises(ValueError, match=r"old_value must have the shape of value, \[3\], got \[2\]"):
        pg.clipped_value_loss(three, three, old_value=two)
    with pytest.raises(ValueError, match=r"clip must be a scalar or have shape \[3\], got \[2\]"):
        pg.clipped_value_loss(three, three, old_value=three, clip=two)
    with pytest.raises(ValueError, match=r"entropy must have the shape of log_prob, \[3\], got \[2\]"):
        pg.policy_inference_loss(three, two, coefficient=0.1)
    with pytest.raises(ValueError, match=r"coefficient must be a scalar or have shape \[3\], got \[2\]"):
        pg.policy_inference_loss(three, three, coefficient=two)
    with pytest.raises(TypeError, match="entropy must have a floating dtype"):
        pg.entropy_loss(ints)
    with pytest.raises(TypeError, match="mask must be boolean, got float64"):
        pg.masked_mean(three, three)
    with pytest.raises(ValueError, match=r"mask must have shape \[3\], got \[2\]"):
        pg.standardize(three, two > 0)
    with pytest.raises(ValueError, match="x is empty"):
        pg.masked_mean(jnp.zeros((0, 3)))
    with pytest.raises(TypeError, match="axis must be hashable"):
        pg.masked_mean(three, axis=[0])
