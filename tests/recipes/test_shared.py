"""What recipes share, function by function: counting, hyper-parameters, functions from a model, normalised ones."""

import types
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax as pg
from pgjax import recipes


class Two(NamedTuple):
    """Two hyper-parameters, one of which may be switched off."""

    learning_rate: Any = 0.5
    value_clip: Any = None


def test_updates_are_counted_whole() -> None:
    assert recipes.count_updates(100, num_envs=4, num_steps=8) == 3
    with pytest.raises(ValueError, match=r"^total_steps must allow one update of num_envs \* num_steps = 32 steps"):
        recipes.count_updates(31, num_envs=4, num_steps=8)
    with pytest.raises(ValueError, match=r"^num_envs must be at least 1, got 0"):
        recipes.count_updates(31, num_envs=0, num_steps=8)


def test_a_divisor_is_asked_for_by_name() -> None:
    recipes.require_divisor("num_minibatches", 4, 12)
    with pytest.raises(ValueError, match=r"^num_minibatches=5 must divide the 12 rows"):
        recipes.require_divisor("num_minibatches", 5, 12)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("discount", 99.0, r"^discount must lie in \[0, 1\], got 99.0"),
        ("lam", 95, r"^lam must lie in \[0, 1\], got 95.0"),
        ("clip", -0.2, r"^clip must lie in \(0, inf\], got -0.2"),
        ("kl_factor", 0.5, r"^kl_factor must lie in \[1, inf\), got 0.5"),
        ("shrink", 1.0, r"^shrink must lie in \(0, 1\), got 1.0"),
        ("entropy_coef", float("nan"), "^entropy_coef must not be NaN"),
        ("discount", np.ones(2), "^discount must be a scalar"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(name: str, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.check_hyper({name: x})


def test_hyper_parameters_are_filled_in_and_traced() -> None:
    assert recipes.check_hyper({"discount": 1, "value_clip": None})["value_clip"] is None
    hyper = recipes.traced(Two, {"learning_rate": 1})
    assert isinstance(hyper, Two)
    assert isinstance(hyper.learning_rate, jax.Array)
    assert hyper.value_clip is None
    assert float(recipes.traced(Two, {}).learning_rate) == 0.5
    with pytest.raises(TypeError, match=r"^unknown hyper-parameter learnin_rate; this recipe has"):
        recipes.traced(Two, {"learnin_rate": 1.0})


def test_hyper_parameters_have_the_dtype_of_the_parameters_and_single_precision_at_least() -> None:
    with jax.enable_x64(True):
        for params, dtype in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
            hyper = recipes.traced(Two, {"learning_rate": 0.1}, {"w": jnp.ones(2, params)})
            assert hyper.learning_rate.dtype == dtype
        assert recipes.traced(Two, {}).learning_rate.dtype == "float64"


def test_the_return_is_unknown_until_every_environment_has_finished_an_episode() -> None:
    state = types.SimpleNamespace(episode_return=jnp.array([2.0, jnp.nan, 4.0, jnp.nan]))
    metrics = recipes.episode_metrics(state)
    assert np.isnan(metrics["episode_return"])
    assert float(metrics["finished"]) == 0.5
    metrics = recipes.episode_metrics(types.SimpleNamespace(episode_return=jnp.array([2.0, 5.0])))
    assert (float(metrics["episode_return"]), float(metrics["finished"])) == (3.5, 1.0)


def test_functions_are_taken_as_they_are_or_made_of_a_model() -> None:
    env, env_params = gymnax.make("CartPole-v1")
    policy = lambda params, obs: pg.Categorical(obs @ params)  # noqa: E731
    value = lambda params, obs: obs @ params[:, 0]  # noqa: E731
    given = recipes.as_functions(
        env, env_params, num_envs=2, policy=policy, value=value, init_params=lambda key: jnp.ones((4, 2))
    )
    assert given.policy is policy
    assert given.init_params(jax.random.key(0), jnp.zeros((2, 4)), None).shape == (4, 2)
    made = recipes.as_functions(env, env_params, num_envs=2)
    params = jax.eval_shape(made.init_params, jax.random.key(0), jnp.zeros((2, 4)), None)
    assert jax.eval_shape(lambda p, obs: made.policy(p, obs).logits, params, jnp.zeros((2, 4))).shape == (2, 2)
    with pytest.raises(TypeError, match=r"^value must be a function, got NoneType; policy, init_params, value"):
        recipes.as_functions(env, env_params, num_envs=2, policy=policy, init_params=lambda key: 1.0)


def test_a_policy_with_a_memory_is_refused_where_a_recipe_cannot_carry_it() -> None:
    plain = recipes.Functions(lambda w, obs: pg.Categorical(obs @ w), None, lambda key, obs, memory: jnp.eye(2), None)
    assert recipes.require_feed_forward(plain) is plain
    with pytest.raises(TypeError, match=r"^this recipe takes feed-forward policies only"):
        recipes.require_feed_forward(plain._replace(policy_state=jnp.zeros((2, 3))))


def test_normalised_functions_standardise_what_they_see_and_start_from_the_identity() -> None:
    plain = recipes.Functions(
        lambda w, obs: pg.Categorical(obs @ w), lambda w, obs: obs @ w[:, 0], lambda key, obs, memory: jnp.eye(2), None
    )
    functions = recipes.normalized(plain)
    obs = jnp.array([[1.0, 4.0], [3.0, 8.0]])
    params = functions.init_params(jax.random.key(0), obs, None)
    np.testing.assert_allclose(functions.policy(params, obs).logits, plain.policy(jnp.eye(2), obs).logits, rtol=1e-6)
    moved = params._replace(statistics=pg.envs.update_statistics(params.statistics, obs))
    np.testing.assert_allclose(functions.value(moved, obs), [-1.0, 1.0], rtol=1e-5)
    critic = recipes.normalizing(lambda w, obs, action: (obs @ w)[:, 0] + action)  # of one function alone
    np.testing.assert_allclose(critic(moved, obs, jnp.array([10.0, 20.0])), [9.0, 21.0], rtol=1e-5)


def test_time_and_environments_change_places() -> None:
    x = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(recipes.swap_time({"x": x})["x"], x.T)


def test_a_step_with_a_minibatch_descends_and_tells_of_its_gradient() -> None:
    """½ c (w - x)² from w = 5 at x = 1, by plain steps: 5 - 0.1 · 3 · 4; then with a weight that is not finite."""

    def loss(params: Any, x: Any, weight: Any) -> Any:
        return jnp.sum(0.5 * weight * (params - x) ** 2), {"x": x}

    transform = optax.sgd(0.1)
    start = jnp.array([5.0, 1.0])
    for weight, expected in ((3.0, [3.8, 1.0]), (jnp.array([3.0, jnp.nan]), [3.8, jnp.nan])):
        step = recipes.minibatch_step(loss, transform, weight)
        (params, _), metrics = step((start, transform.init(start)), jnp.float32(1.0))
        np.testing.assert_allclose(params, expected, rtol=1e-6)
        assert metrics["num_nonfinite"] == np.isnan(expected).sum()
        assert metrics["x"] == 1.0
        np.testing.assert_allclose(metrics["grad_norm"], np.nan if np.isnan(expected).any() else 12.0)


def test_a_step_with_a_minibatch_is_that_of_optax_on_the_tree() -> None:
    """Adam with a bound on the norm, three steps, against the same optimiser leaf by leaf."""

    def loss(params: Any, x: Any) -> Any:
        return jnp.mean(jnp.square(x @ params["w"] - params["b"])), {}

    start = {"w": jnp.arange(2.0), "b": jnp.float32(0.5)}
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
    step = recipes.minibatch_step(loss, optax.flatten(transform))
    found, expected = (start, optax.flatten(transform).init(start)), (start, transform.init(start))
    for x in jax.random.normal(jax.random.key(1), (3, 4, 2)):
        grads = jax.grad(lambda params, x=x: loss(params, x)[0])(expected[0])
        updates, opt_state = transform.update(grads, expected[1])
        expected = optax.apply_updates(expected[0], updates), opt_state
        found, metrics = step(found, x)
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    for name, x in expected[0].items():
        np.testing.assert_allclose(found[0][name], x, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^opt_state is not that of an optimiser of one vector.* with optax\.flatten"):
        step((start, transform.init(start)), x)


def test_a_value_function_learns_by_itself() -> None:
    """V(s) = w s with w = 1, one step of 0.1 on rows s = 1, 2 and v = 3, 4: the mean of (w s - v) s is -3."""
    transform = optax.flatten(optax.sgd(0.1))
    step = recipes.value_step(lambda w, obs: w * obs, transform)
    start = jnp.float32(1.0)
    (w, _), metrics = step((start, transform.init(start)), (jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])))
    np.testing.assert_allclose(w, 1.3, rtol=1e-6)
    np.testing.assert_allclose([metrics["value_loss"], metrics["grad_norm"]], [2.0, 3.0], rtol=1e-6)


def test_ratios_are_summarised_by_name() -> None:
    log_ratio = np.log([1.0, 1.1, 1.5, 0.5])
    found = recipes.ratio_metrics(jnp.asarray(log_ratio, jnp.float32), clip=0.2)
    np.testing.assert_allclose(found.pop("kl"), np.mean(np.exp(log_ratio) - 1 - log_ratio), rtol=1e-5)
    assert found == {"clip_fraction": 0.5, "bound_fraction": 0.0}
