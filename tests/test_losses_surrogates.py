"""Surrogates on ratios against the table of their gradients, written in NumPy; bad arguments, of sequences too."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
# None of them at the edge of a clip, where the derivative is not defined.
RATIOS = np.array([0.01, 0.3, 0.5, 0.79, 0.81, 0.99, 1.0, 1.01, 1.19, 1.21, 1.27, 1.29, 2.0, 2.9, 3.1, 50.0])
ADVANTAGES = np.array([-2.0, -0.1, 0.0, 0.1, 2.0])
RATIO, ADVANTAGE = np.meshgrid(RATIOS, ADVANTAGES, indexing="ij")


class Row(NamedTuple):
    """A surrogate, and in NumPy the gradient coefficient of the score and the objective; None if it has none."""

    loss: Callable[..., Any]
    coefficient: Callable[[Any, Any], Any]
    objective: Callable[[Any, Any], Any] | None


def clipped(low: float, high: float) -> tuple[Any, Any]:
    def coefficient(r: Any, a: Any) -> Any:
        return np.where(((a > 0) & (r > 1 + high)) | ((a < 0) & (r < 1 - low)), 0.0, r * a)

    return coefficient, lambda r, a: np.minimum(r * a, np.clip(r, 1 - low, 1 + high) * a)


def dual_clipped() -> tuple[Any, Any]:
    coefficient, objective = clipped(0.2, 0.2)
    return (
        lambda r, a: np.where((a < 0) & (r > 3.0), 0.0, coefficient(r, a)),
        lambda r, a: np.where(a < 0, np.maximum(objective(r, a), 3.0 * a), objective(r, a)),
    )


def discovered() -> tuple[Any, Any]:
    """The derivative of x - s tanh(x/s) is the square of tanh(x/s), times that of x: r A or A."""

    def coefficient(r: Any, a: Any) -> Any:
        rise = np.where(r > 1, r * a / np.cosh(np.minimum((r - 1) * a / 2.0, 300.0)) ** 2, r * a)
        fall = np.where(r < 1, r * a - a * np.tanh(np.log(r) * a / 0.6) ** 2, r * a)
        return np.where(a >= 0, rise, fall)

    def objective(r: Any, a: Any) -> Any:
        up, down = (r - 1) * a, np.log(r) * a
        drift_up, drift_down = up - 2.0 * np.tanh(up / 2.0), down - 0.6 * np.tanh(down / 0.6)
        return r * a - np.where(a >= 0, np.maximum(drift_up, 0.0), np.maximum(drift_down, 0.0))

    return coefficient, objective


def penalised(log_ratio: Any, advantage: Any) -> Any:
    """With half the squared log-ratio for a divergence, whose slope is the log-ratio."""
    return pg.kl_penalty_loss(log_ratio, advantage, kl=0.5 * jnp.square(log_ratio), coefficient=0.7)


IMPORTANCE = pg.importance_weighted_loss
TABLE: dict[str, Row] = {
    "importance weighting": Row(IMPORTANCE, lambda r, a: r * a, None),
    "importance weighting, its value": Row(
        functools.partial(pg.ppo_clip_loss, clip=np.inf), lambda r, a: r * a, lambda r, a: r * a
    ),
    "truncated": Row(functools.partial(IMPORTANCE, upper=1.5), lambda r, a: np.minimum(r, 1.5) * a, None),
    "CISPO": Row(
        functools.partial(IMPORTANCE, lower=0.8, upper=1.28), lambda r, a: np.clip(r, 0.8, 1.28) * a, None
    ),
    "PPO": Row(pg.ppo_clip_loss, *clipped(0.2, 0.2)),
    "clip-higher": Row(functools.partial(pg.ppo_clip_loss, clip=0.2, clip_upper=0.28), *clipped(0.2, 0.28)),
    "dual clip": Row(functools.partial(pg.ppo_clip_loss, dual_clip=3.0), *dual_clipped()),
    "SPO": Row(
        pg.spo_loss,
        lambda r, a: (a - np.abs(a) * (r - 1) / 0.2) * r,
        lambda r, a: r * a - np.abs(a) * (r - 1) ** 2 / 0.4,
    ),
    "discovered": Row(pg.discovered_loss, *discovered()),
    "PPO-KL": Row(
        penalised, lambda r, a: r * a - 0.7 * np.log(r), lambda r, a: r * a - 0.35 * np.log(r) ** 2
    ),
}  # fmt: skip
every_row = pytest.mark.parametrize("name", TABLE)


@functools.cache
def all_rows() -> Any:
    """One program for the whole table: the value and both slopes of each surrogate."""

    def one(loss: Any, x: Any, a: Any) -> Any:
        value, pull = jax.vjp(loss, x, a)
        return (value, *pull(jnp.ones_like(value)))

    return jax.jit(lambda x, a: {name: one(row.loss, x, a) for name, row in TABLE.items()})


@functools.cache
def on_the_grid() -> dict[str, Any]:
    return jax.tree.map(np.asarray, all_rows()(jnp.log(RATIO), jnp.asarray(ADVANTAGE)))


@every_row
def test_the_table_of_gradients_and_values(name: str) -> None:
    row, (value, slope, of_advantage) = TABLE[name], on_the_grid()[name]
    close(slope, -row.coefficient(RATIO, ADVANTAGE), rtol=1e-9)
    close(of_advantage, 0.0)
    if row.objective is not None:
        close(value, -row.objective(RATIO, ADVANTAGE), rtol=1e-9)


@every_row
def test_the_table_itself_is_consistent_and_its_rows_differ(name: str) -> None:
    """A coefficient is the derivative of its objective by log r; and no other row would pass in its place."""
    row, step = TABLE[name], 1e-6
    if row.objective is not None:
        up, down = (row.objective(RATIO * np.exp(sign * step), ADVANTAGE) for sign in (1, -1))
        close((up - down) / (2 * step), row.coefficient(RATIO, ADVANTAGE), rtol=1e-6, atol=1e-7)
    for other in set(TABLE) - {name}:
        if "importance weighting" in name and "importance weighting" in other:
            continue
        gap = np.abs(TABLE[other].coefficient(RATIO, ADVANTAGE) - row.coefficient(RATIO, ADVANTAGE)).max()
        assert gap > 0.05, other


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_extreme_ratios_are_finite_and_have_no_gradient_beyond_20_nats(dtype: Any) -> None:
    far = [1e4, -1e4, np.inf, -np.inf]
    log_ratio, advantage = jnp.array(far * 2, dtype), jnp.array([1.0] * 4 + [-1.0] * 4, dtype)
    for name, (value, slope, _) in all_rows()(log_ratio, advantage).items():
        if name != "PPO-KL":  # its divergence is the caller's
            assert np.isfinite(np.asarray(value, float)).all(), name
            np.testing.assert_array_equal(np.asarray(slope, float), 0.0, err_msg=name)
    assert np.isnan(np.asarray(pg.spo_loss(jnp.array([jnp.nan]), jnp.ones(1)))).all()  # passed on, not hidden


def test_options_may_differ_from_step_to_step() -> None:
    each = {"lower": 0.9 * np.ones_like(RATIO), "upper": 1.1 + 0.0 * RATIO}
    got = jax.grad(lambda x: IMPORTANCE(x, jnp.asarray(ADVANTAGE), **each).sum())(jnp.log(RATIO))
    close(got, -np.clip(RATIO, 0.9, 1.1) * ADVANTAGE)
    x, a = jnp.log(RATIO), jnp.asarray(ADVANTAGE)
    close(pg.spo_loss(x, a, clip=0.3 + 0.0 * RATIO), pg.spo_loss(x, a, clip=0.3))
    loose = pg.discovered_loss(x, a, alpha=1e6, beta=1e6)
    close(loose, -RATIO * ADVANTAGE + 0.0, rtol=1e-6)  # a drift that allows everything
    close(pg.ppo_clip_loss(x, a, dual_clip=1e9 + 0.0 * RATIO), pg.ppo_clip_loss(x, a))


# --- with a policy ----------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Data of a softmax policy with linear logits, and in NumPy its scores at the parameters that collected them."""

    weights: Any
    obs: Any
    action: Any
    advantage: Any
    score: Any  # [T, B, F, K]
    probs: Any


def policy_rows(num_steps: int = 6, batch: int = 4) -> Rows:
    random = np.random.default_rng(0)
    weights, obs = random.normal(size=(3, 4)), random.normal(size=(num_steps, batch, 3))
    action, advantage = random.integers(4, size=(num_steps, batch)), random.normal(size=(num_steps, batch))
    logits = obs @ weights
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    score = obs[..., :, None] * (np.eye(4)[action] - probs)[..., None, :]
    return Rows(weights, obs, action, advantage, score, probs)


def log_ratio_of(rows: Rows, weights: Any) -> Any:
    now, then = (pg.Categorical(jnp.asarray(rows.obs) @ w) for w in (weights, jnp.asarray(rows.weights)))
    return now.log_prob(jnp.asarray(rows.action)) - then.log_prob(jnp.asarray(rows.action))


def test_identity_06_at_ratio_1_every_surrogate_follows_the_policy_gradient() -> None:
    rows = policy_rows()
    advantage = jnp.asarray(rows.advantage)
    surrogates = {name: row.loss for name, row in TABLE.items()}
    surrogates["GSPO-token"] = lambda x, a: pg.ppo_clip_loss(pg.sequence_log_ratio(x, per_token=True), a)
    surrogates["GSPO"] = lambda x, a: pg.ppo_clip_loss(pg.sequence_log_ratio(x), a)

    def gradients(weights: Any) -> Any:
        return {
            name: jax.grad(lambda w, f=loss: f(log_ratio_of(rows, w), advantage).sum())(weights)
            for name, loss in surrogates.items()
        }

    found = jax.jit(gradients)(jnp.asarray(rows.weights))
    wanted = -np.einsum("tb,tbfk->fk", rows.advantage, rows.score)
    mixed = -np.einsum("b,bfk->fk", rows.advantage.mean(0), rows.score.sum(0))
    for name, got in found.items():
        close(got, mixed if name == "GSPO" else wanted, err_msg=name)
    assert np.abs(mixed - wanted).max() > 0.1  # a mean over the sequence is another estimate
    for weight in (pg.exponential_weight(advantage), pg.binary_weight(advantage)):  # and so is a weighted likelihood
        got = -np.einsum("tb,tbfk->fk", np.asarray(weight), rows.score)
        assert np.abs(got - wanted).max() > 0.1


def test_identity_31_the_penalty_starts_flat_and_bends_by_the_fisher_information() -> None:
    rows = policy_rows()
    here, obs = jnp.asarray(rows.weights).ravel(), jnp.asarray(rows.obs)
    old = pg.Categorical(obs @ here.reshape(3, 4))

    def loss(flat: Any, advantage: Any, kl: Any) -> Any:
        new = pg.Categorical(obs @ flat.reshape(3, 4))
        x = log_ratio_of(rows, flat.reshape(3, 4))
        return pg.kl_penalty_loss(x, advantage, kl=kl(old, new), coefficient=2.5).sum()

    everything = np.eye(4)[None, None] - rows.probs[..., None, :]  # the score of each action by the logits
    scores = (rows.obs[..., None, :, None] * everything[..., :, None, :]).reshape(6, 4, 4, 12)
    fisher = np.einsum("tba,tbai,tbaj->ij", rows.probs, scores, scores)
    nothing, advantage = jnp.zeros((6, 4)), jnp.asarray(rows.advantage)
    for kl in (lambda a, b: a.kl_divergence(b), lambda a, b: b.kl_divergence(a)):
        value, slope, bend = jax.jit(
            lambda x, kl=kl: (
                loss(x, nothing, kl), jax.grad(loss)(x, nothing, kl), jax.hessian(loss)(x, nothing, kl),
            )
        )(here)  # fmt: skip
        close(value, 0.0)
        close(slope, 0.0)
        close(bend, 2.5 * fisher, rtol=1e-10, atol=1e-10)
        wanted = -np.einsum("tb,tbfk->fk", rows.advantage, rows.score).ravel()
        close(jax.grad(loss)(here, advantage, kl), wanted)
    assert np.linalg.matrix_rank(fisher) == 9  # and not merely 0 = 0


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    two, three, ints = jnp.zeros(2), jnp.zeros(3), jnp.zeros(3, jnp.int32)
    for loss in (IMPORTANCE, pg.spo_loss, pg.discovered_loss):
        with pytest.raises(ValueError, match=r"^advantage must have the shape of log_ratio, \[2\], got \[3\]"):
            loss(two, three)
        with pytest.raises(TypeError, match=r"^log_ratio must have a floating dtype, got int32"):
            loss(ints, three)
    for loss, option in (
        (IMPORTANCE, "lower"), (IMPORTANCE, "upper"), (pg.spo_loss, "clip"), (pg.discovered_loss, "alpha"),
        (pg.discovered_loss, "beta"), (pg.ppo_clip_loss, "dual_clip"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{option} must be a scalar or have shape \[3\], got \[2\]"):
            loss(three, three, **{option: two})
    with pytest.raises(TypeError, match=r"^mask must be boolean"):
        pg.sequence_log_ratio(three, three)
    with pytest.raises(ValueError, match=r"^log_ratio must have at least 1 axes \(time first\)"):
        pg.sequence_log_ratio(jnp.zeros(()))
    with pytest.raises(ValueError, match=r"^mask must have shape \[3\], got \[2\]"):
        pg.sequence_mean(three, two > 0)
    with pytest.raises(ValueError, match=r"^length must be a scalar or have shape \[4\], got \[3\]"):
        pg.sequence_mean(jnp.zeros((3, 4)), length=three)
