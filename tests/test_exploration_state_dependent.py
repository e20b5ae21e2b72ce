"""Noise that is a function of the state for several steps: its law, when it is drawn, and what learns through it."""

import functools
import math
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import pgjax as pg
from pgjax.distributions import draw_noise, tempered
from pgjax.exploration import StateDependentNormal, StateDependentTanhNormal, WarmUp
from pgjax.networks import StateDependentPolicy, default_actor_critic

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(5)
PENDULUM = gymnax.make("Pendulum-v1")
B, F, D = 4, 3, 2


def arrays(seed: int = 0, *lead: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, features and deviations."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*lead, D)), rng.normal(size=(*lead, F)), np.exp(rng.normal(size=(F, D)))


def scales(features: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The standard deviations of one action of each row, by loops."""
    found = np.zeros((len(features), deviation.shape[1]))
    for b, row in enumerate(features):
        for j in range(deviation.shape[1]):
            found[b, j] = math.sqrt(sum((row[i] * deviation[i, j]) ** 2 for i in range(len(row))))
    return found


def test_one_action_by_itself_has_the_law_of_a_normal(x64: None) -> None:
    (loc, features, deviation), (other_loc, other_features, _) = arrays(0, B), arrays(1, B)
    d = StateDependentNormal(*map(jnp.asarray, (loc, features, deviation)), hold=3)
    other = d.replace(loc=jnp.asarray(other_loc), features=jnp.asarray(other_features))
    scale, other_scale = scales(features, deviation), scales(other_features, deviation)
    action = np.random.default_rng(2).normal(size=(5, B, D))
    law = scipy.stats.norm(loc, scale)
    np.testing.assert_allclose(d.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(d.log_prob(action), law.logpdf(action).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(d.entropy(), law.entropy().sum(-1), rtol=1e-12)
    np.testing.assert_array_equal(d.mode(), loc)
    kl = np.log(other_scale / scale) + (scale**2 + (loc - other_loc) ** 2) / (2 * other_scale**2) - 0.5
    np.testing.assert_allclose(d.kl_divergence(other), kl.sum(-1), rtol=1e-12)
    raw = np.asarray(d.sample_from(d.base_noise(KEY)))
    noise = np.asarray(d.base_noise(KEY))
    for b in range(B):
        np.testing.assert_allclose(raw[b], loc[b] + (features[b] @ (deviation * noise[b])), rtol=1e-12)
    assert np.abs(np.asarray(d.entropy()) - d.replace(features=2 * d.features).entropy()).min() > 1.0


def test_a_temperature_is_that_of_the_normal_of_one_action_and_keeps_what_is_held() -> None:
    loc, features, deviation = map(jnp.asarray, arrays(0, B))
    for made in (
        StateDependentNormal(loc, features, deviation, hold=3),
        StateDependentTanhNormal(loc, features, deviation, hold=3, low=-2.0),
    ):
        flatter, expected = tempered(made, 1.7), tempered(made.marginal, 1.7)
        assert type(flatter) is type(made)
        assert flatter.hold == 3
        np.testing.assert_allclose(flatter.scale, expected.scale, rtol=1e-5)
        np.testing.assert_array_equal(flatter.loc, expected.loc)
    with pytest.raises(ValueError, match="temperature"):
        tempered(made, 0.0)


def test_actions_of_a_window_covary_by_their_features_and_those_of_two_windows_do_not() -> None:
    """Cov(a_t, a_u) = φ_tᵀ diag(σ²) φ_u while a matrix is held, for each component; over many environments."""
    number, hold = 40_000, 2
    features = np.array([[1.0, 0.5, -0.3], [0.8, -0.6, 0.4], [1.0, 0.5, -0.3]])  # of steps 0, 1 and 2
    deviation = np.array([[0.5, 1.0], [1.0, 0.2], [0.3, 2.0]])

    def act(key: Any) -> Any:
        like = StateDependentNormal(jnp.zeros((number, D)), jnp.zeros((number, F)), jnp.asarray(deviation), hold)
        noise = draw_noise(like, key, num_draws=len(features))
        rows = [jnp.broadcast_to(jnp.asarray(row, jnp.float32), (number, F)) for row in features]
        return jnp.stack([like.replace(features=row).sample_from(x) for row, x in zip(rows, noise, strict=True)])

    actions = np.asarray(jax.jit(act)(KEY), np.float64)
    for t in range(3):
        for u in range(3):
            held = t // hold == u // hold
            for j in range(D):
                spread = [math.sqrt(features[s] ** 2 @ deviation[:, j] ** 2) for s in (t, u)]
                wanted = held * (features[t] * deviation[:, j] ** 2 @ features[u])
                found = np.mean(actions[t, :, j] * actions[u, :, j])
                assert abs(found - wanted) < 5 * math.prod(spread) * math.sqrt(2 / number), (t, u, j)
            cross = np.mean(actions[t, :, 0] * actions[u, :, 1])  # components have columns of their own
            assert abs(cross) < 5 * 1.3 * 1.5 / math.sqrt(number)
    assert abs(features[0] * deviation[:, 0] ** 2 @ features[1]) > 0.1  # or the bound could not tell the windows apart


def linear(params: Any, obs: Any, *, hold: int = 4, cls: type = StateDependentNormal) -> Any:
    """A policy whose features are the observation: [weights, logarithms of the deviations], each [3, 1]."""
    bounds = {"low": -2.0, "high": 2.0} if cls is StateDependentTanhNormal else {}
    return cls(obs @ params[0], obs, jnp.exp(params[1]), hold=hold, **bounds)


PARAMS = jnp.array([[[0.3], [-0.2], [0.1]], [[-1.0], [-0.5], [-2.0]]])


@functools.cache
def window(cls: type = StateDependentNormal, num_steps: int = 10) -> Any:
    """(state before, trajectory) of the linear policy on Pendulum-v1, B environments."""
    env, env_params = PENDULUM
    state = pg.init_rollout(KEY, env, env_params, num_envs=B)
    policy = functools.partial(linear, cls=cls)
    run = jax.jit(
        lambda key: pg.rollout(key, PARAMS, state, policy=policy, env=env, env_params=env_params, num_steps=num_steps)
    )
    return state, run(jax.random.key(7))[1]


def left_over(obs: np.ndarray, noise: np.ndarray) -> float:
    """What no one matrix explains of the noise of some steps of one environment, relative to it."""
    matrix = np.linalg.lstsq(obs, noise, rcond=None)[0]
    return float(np.abs(obs @ matrix - noise).max() / np.abs(noise).max())


def test_a_rollout_holds_one_matrix_for_each_environment_and_draws_another_when_its_steps_are_over() -> None:
    t = jax.tree.map(lambda x: np.asarray(x, np.float64), window()[1])
    noise = t.action - t.obs @ np.asarray(PARAMS[0], np.float64)
    for b in range(B):
        for first in (0, 4):
            assert left_over(t.obs[first : first + 4, b], noise[first : first + 4, b]) < 1e-3
        assert left_over(t.obs[2:6, b], noise[2:6, b]) > 1e-2  # over the edge
    matrices = [
        np.linalg.lstsq(t.obs[f : f + 4, b], noise[f : f + 4, b], rcond=None)[0] for f in (0, 4) for b in (0, 1)
    ]
    for i, x in enumerate(matrices):
        for y in matrices[:i]:
            assert np.abs(x - y).max() > 1e-2
    # With as many unknowns as steps anything would be explained: the observations are not on a plane.
    assert all(np.linalg.matrix_rank(t.obs[:4, b]) == 3 for b in range(B))


@pytest.mark.parametrize("random", [False, True])
def test_a_warm_up_holds_the_noise_as_long_as_the_distribution_inside(random: bool) -> None:
    d = StateDependentTanhNormal(jnp.zeros((2, D)), jnp.ones((2, F)), jnp.ones((F, D)), 3, -1.0, 1.0)
    warm = WarmUp(random, d, -1.0, 1.0)
    noise = draw_noise(warm, jax.random.key(0), num_draws=7)
    actions = np.asarray(jax.vmap(warm.sample_from)(noise))
    for t in range(7):
        np.testing.assert_array_equal(actions[t], actions[3 * (t // 3)])
    assert np.abs(actions[::3][1:] - actions[::3][:-1]).min() > 1e-3
    assert WarmUp(random, pg.Normal(jnp.zeros((2, D)), 1.0), -1.0, 1.0).hold == 1


@pytest.mark.parametrize(
    ("hold", "number", "lead"), [(1, 7, (2,)), (3, 3, (2,)), (3, 3, ()), (3, 3, (2, 3)), (7, 1, (2,)), (100, 1, (2,))]
)
def test_noise_is_drawn_once_for_the_steps_that_hold_it(hold: int, number: int, lead: tuple[int, ...]) -> None:
    d = StateDependentNormal(*(x.astype(np.float32) for x in arrays(0, *lead)), hold=hold)
    noise = np.asarray(jax.jit(functools.partial(draw_noise, num_draws=7))(d, KEY))
    assert noise.shape == (7, *lead, F, D)
    assert len(np.unique(noise)) == number * math.prod((*lead, F, D))
    for t in range(7):
        np.testing.assert_array_equal(noise[t], noise[hold * (t // hold)])


@pytest.mark.parametrize("cls", [StateDependentNormal, StateDependentTanhNormal])
def test_ratios_are_one_before_the_parameters_move(cls: type) -> None:
    _, trajectory = window(cls)
    distribution = pg.action_distribution(PARAMS, trajectory, policy=functools.partial(linear, cls=cls))
    log_ratio = jax.jit(pg.log_prob_taken)(distribution, trajectory) - trajectory.log_prob
    np.testing.assert_allclose(log_ratio, 0.0, atol=1e-5)
    assert (trajectory.raw_action is not None) == (cls is StateDependentTanhNormal)
    moved = pg.action_distribution(PARAMS + 0.1, trajectory, policy=functools.partial(linear, cls=cls))
    assert np.abs(pg.log_prob_taken(moved, trajectory) - trajectory.log_prob).max() > 0.05


def test_squashed_actions_are_in_the_box_with_the_density_of_a_squashed_normal() -> None:
    t = window(StateDependentTanhNormal)[1]
    scale = np.sqrt(np.square(t.obs) @ np.exp(2 * np.asarray(PARAMS[1])))
    law = pg.TanhNormal(t.obs @ PARAMS[0], jnp.asarray(scale), -2.0, 2.0)
    assert np.abs(t.action).max() <= 2.0
    np.testing.assert_array_equal(t.action, law.squash(t.raw_action))
    np.testing.assert_allclose(t.log_prob, law.log_prob_raw(t.raw_action), rtol=1e-5, atol=1e-6)
    d = linear(PARAMS, t.obs, cls=StateDependentTanhNormal)
    np.testing.assert_allclose(d.log_prob(0.5 * t.action), law.log_prob(0.5 * t.action), rtol=1e-4)
    np.testing.assert_allclose(d.entropy(), law.entropy(), rtol=1e-5)
    np.testing.assert_array_equal(d.mode(), law.mode())
    np.testing.assert_array_equal(d.sample(KEY), d.squash(d.sample_raw(KEY)))
    np.testing.assert_allclose(d.kl_divergence(d.replace(loc=d.loc + d.scale)), 0.5, rtol=1e-5)


def test_the_gradient_of_an_actor_critic_is_that_of_a_normal_of_that_scale() -> None:
    state, trajectory = window()
    normal = lambda p, obs: pg.Normal(obs @ p[0], jnp.sqrt(jnp.square(obs) @ jnp.exp(2.0 * p[1])))  # noqa: E731
    value = lambda p, obs: obs[..., 0] * p[0, 0, 0]  # noqa: E731
    grads = [
        pg.actor_critic(
            PARAMS, trajectory, policy=policy, value=value, discount=0.9, lam=0.8, entropy_coef=0.1, state=state
        )[0]
        for policy in (linear, normal)
    ]
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-3)
    assert np.abs(grads[0]).min() > 1.0
    products = [
        pg.natural.fisher_vector_product(PARAMS, trajectory.obs, policy=policy)(PARAMS) for policy in (linear, normal)
    ]
    np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-5)


def test_deviations_learn_by_the_slope_of_the_log_density_and_of_the_action(x64: None) -> None:
    loc, features, deviation = map(jnp.asarray, arrays(0, B))
    noise = jax.random.normal(KEY, (B, F, D), jnp.float64)

    def both(log_std: Any) -> Any:
        d = StateDependentNormal(loc, features, jnp.exp(log_std))
        return jnp.sum(d.log_prob(loc + 0.7)), jnp.sum(jnp.sin(d.sample_from(noise)))

    at, step = jnp.log(deviation), 1e-6
    slopes = jax.jit(jax.jacobian(both))(at)
    run = jax.jit(both)
    for i in range(F):
        for j in range(D):
            up, down = run(at.at[i, j].add(step)), run(at.at[i, j].add(-step))
            for slope, high, low in zip(slopes, up, down, strict=True):
                np.testing.assert_allclose(slope[i, j], (high - low) / (2 * step), rtol=1e-6, atol=1e-7)


def test_a_rollout_of_given_noise_under_vmap_and_a_greedy_one() -> None:
    env, env_params = PENDULUM
    state, trajectory = window()
    options = {"policy": linear, "env": env, "env_params": env_params}
    keys = jax.random.split(jax.random.key(7), 2)
    play = lambda key: pg.rollout(key, PARAMS, state, num_steps=10, **options)[1].action  # noqa: E731
    mapped = jax.jit(jax.vmap(play))(jnp.stack([jax.random.key(7), keys[1]]))
    np.testing.assert_allclose(mapped[0], trajectory.action, rtol=1e-5, atol=1e-6)
    assert np.abs(mapped[0] - mapped[1]).max() > 0.1
    noise = pg.rollout_noise(jax.random.key(7), PARAMS, state, num_steps=10, **options).action
    given = pg.rollout(keys[0], PARAMS, state, num_steps=10, noise=noise, **options)[1]
    np.testing.assert_array_equal(given.action[0], trajectory.action[0])
    exact = lambda p, obs: pg.exploration.Deterministic(obs @ p[0])  # noqa: E731
    returns = [
        pg.evaluate(KEY, PARAMS, num_episodes=2, greedy=True, **{**options, "policy": policy}).episode_return
        for policy in (linear, exact)
    ]
    np.testing.assert_allclose(*returns, rtol=1e-5)


def test_ppo_starts_each_rollout_from_ratio_one_and_goes_on_bit_for_bit() -> None:
    model = default_actor_critic(*PENDULUM, head="state_dependent", features=(8,))
    recipe = pg.recipes.ppo.make_train(
        *PENDULUM, model=model, num_envs=4, num_steps=8, total_steps=96, num_epochs=1, num_minibatches=1
    )
    state = recipe.init(KEY, entropy_coef=0.01)
    for _ in range(2):
        before = state
        state, metrics = recipe.update(state)
        assert abs(float(metrics["kl"])) < 1e-10
        assert metrics["clip_fraction"] == metrics["num_nonfinite"] == 0
    again = recipe.update(jax.tree.map(jnp.array, before))[0]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(again.params), jax.tree.leaves(state.params))
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), state.params, recipe.init(KEY).params)["params"]
    assert min(jax.tree.leaves(moved)) > 0


def test_the_head_is_in_units_of_the_box_and_the_one_among_its_features_keeps_some_noise() -> None:
    box = {"init_log_std": -1.0, "hold": 5, "low": (-2.0, 0.0), "high": (2.0, 1.0)}
    head, squashed = StateDependentPolicy(2, **box), StateDependentPolicy(2, squash=True, **box)
    x = np.array([[3.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)

    def both() -> Any:
        distribution, params = head.init_with_output(KEY, x)
        other = squashed.apply(params, x)
        return distribution, other, distribution.scale, other.scale, other.mode()

    distribution, other, scale, raw_scale, mode = jax.jit(both)()
    assert (type(distribution), type(other)) == (StateDependentNormal, StateDependentTanhNormal)
    assert distribution.hold == other.hold == 5
    length = np.sqrt([[26.0], [1.0]])
    np.testing.assert_allclose(scale, length * np.exp(-1.0) * np.array([[2.0, 0.5]]), rtol=1e-6)
    np.testing.assert_allclose(raw_scale, length * np.exp(-1.0) * np.ones((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(distribution.loc[1], [0.0, 0.5], atol=1e-7)
    np.testing.assert_allclose(mode[1], [0.0, 0.5], atol=1e-7)
    assert np.abs(distribution.loc[0] - np.array([0.0, 0.5])).min() > 1e-4
    np.testing.assert_allclose(other.high, [[2.0, 1.0]] * 2)


def test_the_scale_moves_what_is_before_the_head_only_where_it_is_asked_to() -> None:
    x = np.ones((2, 3), np.float32)

    def slopes(params: Any, x: Any) -> Any:
        whole = [
            lambda p, x, learn=learn: StateDependentPolicy(1, learn_features=learn).apply(p, x) for learn in (0, 1)
        ]
        return [jax.grad(lambda p, x, f=f: jnp.sum(f(p, x).scale), argnums=(0, 1))(params, x) for f in whole]

    params = jax.jit(StateDependentPolicy(1).init)(KEY, x)
    (own, before), (learned_own, learned) = jax.jit(slopes)(params, x)
    np.testing.assert_array_equal(before, 0.0)
    np.testing.assert_allclose(learned, math.exp(-2.0) / 2, rtol=1e-5)  # dσ|φ|/dφ_i = σ φ_i / |φ|, |φ| = 2
    for grads in (own, learned_own):  # dσ|φ|/d log σ_i = σ φ_i² / |φ|, of two rows
        np.testing.assert_allclose(grads["params"]["log_std"], 2 * math.exp(-2.0) / 2 * np.ones((4, 1)), rtol=1e-5)


def test_the_head_is_chosen_by_name_in_a_box_with_and_without_bounds() -> None:
    model = default_actor_critic(*PENDULUM, head="state_dependent")
    assert model.head == StateDependentPolicy(1, low=(-2.0,), high=(2.0,))
    recurrent = pg.networks.default_recurrent_actor_critic(*PENDULUM, head="state_dependent", hidden=4)
    obs, memory = np.ones((2, 3), np.float32), recurrent.initial_state(2)
    distribution = jax.eval_shape(lambda: recurrent.init_with_output(KEY, obs, memory)[0][0])
    assert distribution.deviation.shape == (2, 5, 1)


def made(loc: Any = None, features: Any = None, deviation: Any = None, **more: Any) -> StateDependentNormal:
    """A distribution of two components and three features, in which something may be wrong."""
    given = [np.ones(shape, np.float32) for shape in ((2,), (3,), (3, 2))]
    given = [x if other is None else other for x, other in zip(given, (loc, features, deviation), strict=True)]
    return (StateDependentTanhNormal if "low" in more else StateDependentNormal)(*given, **more)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: made(loc=np.zeros(2, int)), TypeError, "loc must have a floating dtype"),
        (lambda: made(features=1.0), ValueError, r"features must have shape \[\.\.\., F\]"),
        (lambda: made(features=np.ones((5, 3))), ValueError, r"features must broadcast to the shape of loc.* \[3\]"),
        (lambda: made(deviation=np.ones((2, 2))), ValueError, r"deviation must broadcast to .* \[3, 2\]"),
        (lambda: made(deviation=np.ones((3, 2), int)), TypeError, "deviation must have a floating dtype"),
        (lambda: made(hold=0), ValueError, "hold must be at least 1"),
        (lambda: made(hold=2.0), TypeError, "hold must be a Python int"),
        (lambda: made(low=np.zeros(3)), ValueError, "low must broadcast"),
        (lambda: made().sample_from(np.ones(2)), ValueError, "noise must end with"),
        (lambda: made().sample_from(np.ones((3, 2), int)), TypeError, "noise must have a floating dtype"),
        (lambda: made().noise_of(np.ones(2)), TypeError, "does not determine the noise"),
        (lambda: made().kl_divergence(made(low=-1.0)), TypeError, "other must be a StateDependentNormal"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
