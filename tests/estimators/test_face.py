"""What a user sees of an estimator: its signature, its forms, the functions that it takes, and what it refuses."""

import functools
import inspect
import pathlib
import pydoc
import warnings
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from mypy import api as mypy
from tabular import policy, random_window

import pgjax as pg
from pgjax import _functions
from pgjax.estimators import Contributions, Estimator, GradientInfo

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
ROOT = pathlib.Path(__file__).parents[2]
LOGITS = np.random.default_rng(7).normal(size=(3, 2))


def estimators() -> dict[str, Any]:
    return {name: getattr(pg, name) for name in pg.__all__ if isinstance(getattr(pg, name), Estimator)}


# --- the face ---------------------------------------------------------------------------------------------------------


def test_every_estimator_shows_its_signature_and_its_result() -> None:
    assert {"reinforce", "actor_critic", "ppo", "vtrace_actor_critic", "expected_gradient"} <= estimators().keys()
    for name, estimator in estimators().items():
        shown = inspect.signature(estimator)
        data = "state" if name == "pathwise_gradient" else "trajectory"
        assert list(shown.parameters)[:3] == ["params", data, "policy"], name
        assert shown.return_annotation == tuple[Any, GradientInfo], name
        page = pydoc.plain(pydoc.render_doc(estimator))
        assert "policy: " in page, name
        assert "-> tuple[" in page, name
        assert inspect.signature(estimator.surrogate).return_annotation is jax.Array


@pytest.mark.parametrize("form", ["__call__", "per_trajectory", "surrogate"])
def test_a_misspelt_argument_is_named_with_the_one_that_was_meant(form: str) -> None:
    with pytest.raises(
        TypeError, match=r"^reinforce\(\) got an unexpected argument 'basline': did you mean 'baseline'"
    ):
        getattr(pg.reinforce, form)(LOGITS, random_window(0, 2), policy=policy, discount=0.9, basline=0.0)
    with pytest.raises(TypeError, match=r"^reinforce\(\) misses the argument discount"):
        getattr(pg.reinforce, form)(LOGITS, random_window(0, 2), policy=policy)
    with pytest.raises(TypeError, match=r"^reinforce\(\) takes 2 arguments by position"):
        getattr(pg.reinforce, form)(LOGITS, random_window(0, 2), policy)


def test_mypy_rejects_a_misspelt_argument(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings of the project, so that what `make types` found out before need not be found out again."""
    program = """
import pgjax as pg
from typing import Any
x: Any = None
g, info = pg.reinforce(x, x, policy=x, discount=0.9, baseline=0.0)
info.grad_norm
pg.reinforce(x, x, policy=x, discount=0.9, basline=0.0)
@pg.estimator
def f(params: Any, trajectory: pg.Trajectory, *, k: int) -> pg.Surrogate: return x
f(x, x, k=1)
f(x, x, j=1)
"""
    monkeypatch.chdir(ROOT)
    (tmp_path / "program.py").write_text(program)
    told = mypy.run(["--no-error-summary", str(tmp_path / "program.py")])[0]
    errors = [line for line in told.splitlines() if ": error:" in line]
    assert [int(line.split(":")[1]) for line in errors] == [7, 11], told
    assert 'Unexpected keyword argument "basline"' in errors[0]
    assert 'Unexpected keyword argument "j"' in errors[1]


# --- forms ------------------------------------------------------------------------------------------------------------


@pg.estimator
def halves(params: Any, trajectory: pg.Trajectory, *, policy: Any) -> Contributions:
    """Estimate half the score of each trajectory: a descent direction."""
    score, _ = scores.per_trajectory(params, trajectory, policy=policy)
    return Contributions(jax.tree.map(lambda x: 0.5 * x, score), trajectory.reward)


@pg.estimator
def scores(params: Any, trajectory: pg.Trajectory, *, policy: Any) -> pg.Surrogate:
    """Estimate the sum of the scores: a descent direction."""

    def loss(params: Any, t: pg.Trajectory, targets: Any, state: Any) -> Any:
        distribution = pg.action_distribution(params, t, policy=policy)
        log_prob = pg.log_prob_taken(distribution, t)
        return log_prob, {"entropy": distribution.entropy()}

    return pg.Surrogate(loss)


def test_contributions_are_averaged_and_have_no_surrogate() -> None:
    batch = random_window(1, 2, 3)
    whole, info = halves(LOGITS, batch, policy=policy)
    each, _ = halves.per_trajectory(LOGITS, batch, policy=policy)
    close(each, 0.5 * scores.per_trajectory(LOGITS, batch, policy=policy)[0])
    close(whole, np.asarray(each).mean((0, 1)))
    close(info.grad_norm, np.linalg.norm(whole))
    assert np.isnan(info.loss)
    close(info.targets, batch.reward)
    with pytest.raises(TypeError, match=r"^halves has no surrogate"):
        halves.surrogate(LOGITS, batch, policy=policy)


def test_contributions_of_another_shape_are_refused() -> None:
    @pg.estimator
    def summed(params: Any, trajectory: pg.Trajectory) -> Contributions:
        return Contributions(jnp.zeros((3, 2)))

    with pytest.raises(ValueError, match=r"^each leaf of the result of summed must have shape \[B, ...\]"):
        summed(LOGITS, random_window(1, 4))


def test_the_surrogate_has_the_estimate_as_its_gradient_and_a_hessian() -> None:
    batch = random_window(2, 3)
    surrogate = lambda logits: pg.reinforce.surrogate(logits, batch, policy=policy, discount=0.9)  # noqa: E731
    close(jax.grad(surrogate)(LOGITS), pg.reinforce(LOGITS, batch, policy=policy, discount=0.9)[0])
    hessian = np.asarray(jax.hessian(surrogate)(LOGITS))
    # Of log softmax: minus the covariance of the one-hot action, weighed by the return.
    probs = np.asarray(jax.nn.softmax(LOGITS))
    returns = pg.discounted_returns(batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=0.9)
    want = np.zeros((3, 2, 3, 2))
    for s in range(3):
        mass = float(np.sum(np.asarray(batch.obs)[..., s] * np.asarray(returns))) / 3
        want[s, :, s, :] = mass * (np.diag(probs[s]) - np.outer(probs[s], probs[s]))
    close(hessian, want, atol=1e-10)


def test_metrics_are_means_over_the_steps_that_count() -> None:
    batch = random_window(3, 4)
    _, info = scores(LOGITS, batch, policy=policy)
    entropy = np.asarray(policy(LOGITS, batch.obs).entropy())
    close(info.metrics["entropy"], entropy.mean())
    mask = jnp.asarray(np.random.default_rng(0).random((7, 4)) < 0.5)
    arguments = {"policy": policy, "value": lambda p, obs: obs @ jnp.ones(3), "discount": 0.9, "lam": 0.9, "mask": mask}
    _, info = pg.actor_critic(LOGITS, batch, **arguments, entropy_coef=0.1)
    close(info.metrics["entropy"], entropy[np.asarray(mask)].mean())
    _, parts = pg.actor_critic.per_trajectory(LOGITS, batch, **arguments, entropy_coef=0.1)
    counts = np.maximum(np.asarray(mask).sum(0), 1)
    close(parts.metrics["entropy"], np.where(mask, entropy, 0.0).sum(0) / counts)


# --- the state of a rollout as data -----------------------------------------------------------------------------------


class Line:
    """A point on a line that the action moves; pays minus the squared distance. No chance, no end."""

    def reset(self, key: Any, params: Any) -> Any:
        x = jax.random.normal(key, (1,))
        return x, x

    def step(self, key: Any, x: Any, action: Any, params: Any) -> Any:
        new = x + 0.5 * action
        no = jnp.asarray(False)
        return new, new, -jnp.sum(jnp.square(x) + 0.1 * jnp.square(action)), no, no, {"final_observation": new}


LINE = Line()


@pg.estimator("num_steps")
def pathwise(params: Any, state: pg.RolloutState, *, noise: Any, num_steps: int) -> pg.Surrogate:
    """Estimate the gradient of minus the sum of rewards through the environment: a descent direction."""

    def loss(params: Any, state: pg.RolloutState, noise: Any, _: Any) -> Any:
        act = lambda w, obs: pg.Normal(obs * jnp.broadcast_to(w, obs.shape), 0.2)  # noqa: E731
        key = jax.random.key(0)
        _, t = pg.rollout(key, params, state, policy=act, env=LINE, env_params=None, num_steps=num_steps, noise=noise)
        return -t.reward

    return pg.Surrogate(loss, noise)


def test_a_rollout_state_may_be_the_data() -> None:
    state = pg.init_rollout(jax.random.key(1), LINE, None, num_envs=3)
    noise = jnp.asarray(np.random.default_rng(4).normal(size=(4, 3, 1)))
    weight = jnp.array([-0.7])

    def by_hand(w: float) -> np.ndarray:
        x, total = np.asarray(state.obs, np.float64), np.zeros(3)
        for t in range(4):
            action = w * x + 0.2 * np.asarray(noise[t])
            total -= (np.square(x) + 0.1 * np.square(action))[:, 0]
            x = x + 0.5 * action
        return -total

    each, _ = pathwise.per_trajectory(weight, state, noise=noise, num_steps=4)
    whole, _ = pathwise(weight, state, noise=noise, num_steps=4)
    slope = (by_hand(-0.7 + 1e-6) - by_hand(-0.7 - 1e-6)) / 2e-6
    np.testing.assert_allclose(each[:, 0], slope, rtol=1e-6)
    close(whole[0], np.asarray(each)[:, 0].mean())
    with pytest.raises(TypeError, match=r"^state must be a RolloutState, got Trajectory"):
        pathwise(weight, random_window(0, 2), noise=noise, num_steps=4)


# --- functions that own arrays ----------------------------------------------------------------------------------------


def test_the_arrays_of_a_bound_function_are_followed_and_differentiable() -> None:
    batch = random_window(5, 3)
    scaled = lambda scale, logits, obs: pg.Categorical(obs @ logits * scale)  # noqa: E731
    call = lambda scale: pg.reinforce(LOGITS, batch, policy=pg.bind(scaled, scale), discount=0.9)[0]  # noqa: E731
    for scale in (1.0, 0.5):
        written = functools.partial(lambda scale, logits, obs: pg.Categorical(obs @ logits * scale), scale)
        close(call(jnp.asarray(scale)), pg.reinforce(LOGITS, batch, policy=written, discount=0.9)[0])
    slope = jax.jacobian(call)(jnp.asarray(0.5))
    change = (call(jnp.asarray(0.5 + 1e-6)) - call(jnp.asarray(0.5 - 1e-6))) / 2e-6
    np.testing.assert_allclose(slope, change, rtol=1e-6, atol=1e-8)


def test_a_baseline_with_arrays_is_a_constant_in_the_gradient() -> None:
    batch = random_window(5, 3)

    def bound(shift: Any) -> Any:
        baseline = pg.bind(lambda shift, g: 0.0 * g + shift, shift)
        return pg.reinforce(LOGITS, batch, policy=policy, discount=0.9, baseline=baseline)[0]

    close(jax.jacobian(bound)(jnp.asarray(0.3)), 0.0)
    close(bound(jnp.asarray(0.3)), pg.reinforce(LOGITS, batch, policy=policy, discount=0.9, baseline=0.3)[0])


class Normaliser:
    """An object with arrays that a policy reads."""

    def __init__(self) -> None:
        self.mean = jnp.zeros(3)

    def policy(self, logits: Any, obs: Any) -> Any:
        return pg.Categorical((obs - jnp.broadcast_to(self.mean, obs.shape)) @ logits)


GLOBAL_MEAN = jnp.zeros(3)


def global_policy(logits: Any, obs: Any) -> Any:
    return pg.Categorical((obs - jnp.broadcast_to(GLOBAL_MEAN, obs.shape)) @ logits)


def test_finding_4_arrays_that_changed_since_a_function_was_compiled_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = random_window(6, 2)
    run = lambda policy: pg.reinforce(LOGITS, batch, policy=policy, discount=0.9)  # noqa: E731
    shared, normaliser, mean = {"mean": np.zeros(3)}, Normaliser(), jnp.zeros(3)
    closure = lambda logits, obs: pg.Categorical((obs - jnp.broadcast_to(mean, obs.shape)) @ logits)  # noqa: E731
    holder = lambda logits, obs: pg.Categorical(  # noqa: E731
        (obs - jnp.broadcast_to(jnp.asarray(shared["mean"]), obs.shape)) @ logits)  # fmt: skip
    for policy_ in (closure, holder, normaliser.policy, global_policy):
        run(policy_)
        run(policy_)
    mean = jnp.ones(3)
    shared["mean"] += 1.0
    normaliser.mean = jnp.ones(3)
    monkeypatch.setitem(globals(), "GLOBAL_MEAN", jnp.ones(3))
    names = ("mean", r"shared\['mean'\]", "Normaliser.mean", "GLOBAL_MEAN")
    for policy_, name in zip((closure, holder, normaliser.policy, global_policy), names, strict=True):
        with pytest.raises(ValueError, match=f"^policy reads {name} from its closure, which has changed"):
            run(policy_)


def test_many_programs_of_one_function_are_warned_of() -> None:
    batch = random_window(7, 2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(_functions.MANY_PROGRAMS + 2):
            pg.reinforce(LOGITS, batch, policy=lambda logits, obs: pg.Categorical(obs @ logits), discount=0.9)
    assert [str(w.message)[:60] for w in seen] == ["reinforce has compiled 8 programs, one for each new function"[:60]]
    assert "passed as policy" in " ".join(str(seen[0].message).split())


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_finding_12_a_trajectory_with_the_batch_first_is_refused() -> None:
    batch = random_window(8, 5)
    swapped = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
    with pytest.raises(ValueError, match=r"^trajectory must be time-major, \[T, B\], got step of shape \[5, 7\]"):
        pg.reinforce(LOGITS, swapped, policy=policy, discount=0.9)


def test_finding_9_a_masked_row_may_hold_nan_anywhere() -> None:
    batch = random_window(9, 3)
    mask = jnp.ones((7, 3), bool).at[2, 1].set(False)
    value = lambda logits, obs: obs @ logits[:, 0]  # noqa: E731
    arguments = {"policy": policy, "value": value, "discount": 0.9, "lam": 0.9, "mask": mask, "entropy_coef": 0.1}
    # The reward and the values of the row reach its neighbours; what is not there at all is its observation.
    cut = batch.replace(terminated=batch.terminated.at[1:3, 1].set(True))
    dirty = cut.replace(obs=cut.obs.at[2, 1].set(jnp.nan))
    grads, info = pg.actor_critic(LOGITS, dirty, **arguments)
    want, _ = pg.actor_critic(LOGITS, cut, **arguments)
    assert int(info.num_nonfinite) == 0
    close(grads, want)


# --- findings that were wrong results ---------------------------------------------------------------------------------


def test_finding_2_gpomdp_with_leave_one_out_points_where_reinforce_does_when_columns_are_at_different_steps() -> None:
    env, env_params = gymnax.make("CartPole-v1")
    params = 0.1 * jax.random.normal(jax.random.key(3), (4, 2))
    act = lambda params, obs: pg.Categorical(obs @ params)  # noqa: E731
    with jax.enable_x64(False):
        params = params.astype(jnp.float32)
        state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=64)
        _, t = pg.rollout(jax.random.key(1), params, state, policy=act, env=env, env_params=env_params, num_steps=100)
        assert int(jnp.ptp(t.step, 1).max()) > 10
        arguments = {"policy": act, "discount": 0.99, "baseline": pg.leave_one_out}
        got, _ = pg.gpomdp(params, t, **arguments)
        want, _ = pg.reinforce(params, t, **arguments, step_weight=pg.discount_weight(t.step, 0.99))
        plain, _ = pg.reinforce(params, t, **arguments)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert float(pg.diagnostics.cosine(got, plain)) > 0.8


def test_finding_2_gpomdp_with_leave_one_out_compares_rewards_one_by_one_where_steps_agree() -> None:
    mdp, logits, batch, _ = tabular.every_trajectory("two_state", 3)
    reward = batch.reward * tabular.weight(batch, mdp)
    one_by_one, _ = pg.gpomdp(logits, batch, policy=policy, discount=mdp.discount, baseline=pg.leave_one_out(reward))
    got, _ = pg.gpomdp(logits, batch, policy=policy, discount=mdp.discount, baseline=pg.leave_one_out)
    close(got, one_by_one)


def test_a_zero_entropy_coefficient_is_a_number_like_any_other() -> None:
    batch = random_window(10, 3)
    arguments = {"policy": policy, "value": lambda p, obs: obs @ p[:, 0], "discount": 0.9, "lam": 0.9}
    without, _ = pg.actor_critic(LOGITS, batch, **arguments)
    zero, info = pg.actor_critic(LOGITS, batch, **arguments, entropy_coef=0.0)
    close(without, zero)
    assert "entropy" in info.metrics
