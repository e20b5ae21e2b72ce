"""Soft actor-critic: the policy and the temperature that it ends at, what is left of it at 0, its box, its warm-up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from gymnax.environments import spaces

import pgjax as pg
from pgjax.recipes import ddpg, sac, sac_discrete

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LOW, HIGH = np.array([-1.0, -2.0]), np.array([1.0, 6.0])
NUM_ENVS = 4
CURVATURE, BEST = np.array([2.0, 0.5]), np.array([0.3, 1.5])
ENDLESS = world.WorldParams(kind=world.ENDLESS)


class OneState(world.ContinuousWorld):
    """One state for ever, and a box whose sides differ; if asked to, it pays no number at the seventh step."""

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, after, reward, *rest = super().step_env(key, state, action, params)
        return obs, after, jnp.where((after.time == 7) & params.pays_at_once, jnp.nan, reward), *rest

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(jnp.array(LOW), jnp.array(HIGH), (2,))


class ThreeActions(world.World):
    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(3)


def both_sides(self: Any, key: Any) -> Any:
    """The four points (±1, ±1) in place of normal noise: the mean over them of a polynomial to degree 3 is exact."""
    row = jnp.arange(self.shape[0])
    return 2.0 * jnp.stack([row % 2, row // 2 % 2], -1) - 1.0


def normal(actor: Any, obs: Any) -> pg.Normal:
    """Location and log scale: actor [cells, 4]."""
    row = obs @ actor
    return pg.Normal(row[..., :2], jnp.exp(row[..., 2:]))


def in_box(loc: Any, scale: Any) -> pg.TanhNormal:
    return pg.TanhNormal(loc, scale, jnp.array(LOW)[None], jnp.array(HIGH)[None])


def quadratic(critic: Any, obs: Any, action: Any) -> Any:
    """-½ Σ m (a - a*)², and a second critic that says more."""
    low = -0.5 * jnp.square(action - jnp.broadcast_to(jnp.array(BEST), action.shape)) @ critic
    return jnp.stack([low, low + 1.0 + action.sum(-1) ** 2])


def run(module: Any, env: Any, hyper: dict[str, Any], updates: int, **settings: Any) -> tuple[Any, list[Any]]:
    """Train with critics that stay; hyper-parameters that are lists differ between lanes, side by side."""
    sizes = {"num_envs": NUM_ENVS, "batch_size": NUM_ENVS, "total_steps": 10**6, "warmup": 0, "capacity": 4 * NUM_ENVS}
    recipe = module.make_train(env, ENDLESS, **{**sizes, "gradient_steps": 100, **settings})
    lanes = {name: jnp.array(x) for name, x in hyper.items()}
    init = jax.vmap(lambda lane: recipe.init(jax.random.key(0), critic_learning_rate=0.0, target_rate=0.0, **lane))
    state, update, rows = init(lanes), jax.jit(jax.vmap(recipe.update)), []
    for i in range(updates):
        # A step that falls: Adam does not come to rest under a constant one.
        rate = state.hyper.learning_rate * (0.8 if i > updates // 2 else 1.0)
        state, metrics = update(state.replace(hyper=state.hyper._replace(learning_rate=rate)))
        rows.append(metrics)
    return state, rows


def test_identity_24_policy_and_temperature_end_where_the_soft_objective_is_greatest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At μ = a*, σ² = α / m, and α = m exp(2H - 1) / 2π with H in action units, over two components of their mean."""
    monkeypatch.setattr(pg.Normal, "base_noise", both_sides)
    targets = np.array([-1.5, 0.25])
    state, rows = run(
        sac,
        OneState(),
        {"entropy_per_action": targets, "learning_rate": [0.03, 0.03], "temperature": [0.3, 0.3]},
        40,
        policy=normal,
        critic=quadratic,
        init_params=lambda key: (jnp.zeros((world.NUM_CELLS, 4)), jnp.array(CURVATURE)),
    )
    half_widths = 0.5 * (HIGH - LOW)
    total = targets + np.log(half_widths).mean()
    temperature = np.exp(np.log(CURVATURE).mean() + 2 * total - 1) / (2 * np.pi)
    np.testing.assert_allclose(np.exp(state.log_temperature), temperature, rtol=2e-3)
    location, scale = np.split(np.asarray(state.params.actor[:, 0], np.float64), 2, axis=1)
    np.testing.assert_allclose(location, np.broadcast_to(BEST, (2, 2)), atol=2e-3)
    np.testing.assert_allclose(np.exp(2 * scale), temperature[:, None] / CURVATURE, rtol=4e-3)
    np.testing.assert_allclose(rows[-1]["entropy_per_action"], targets, atol=2e-3)
    # One fell on its way and one rose; turned round, they would never arrive.
    assert temperature[0] < rows[0]["temperature"][0] < 0.3 < temperature[1]


def test_identity_30_without_a_temperature_and_without_noise_it_is_ddpg() -> None:
    """Under the same critic the actor moves alike, but for rounding; with a temperature it does not."""

    def narrow(actor: Any, obs: Any) -> pg.TanhNormal:
        loc = obs @ actor
        return in_box(loc, jnp.full_like(loc, 1e-7))

    def point(actor: Any, obs: Any) -> pg.exploration.Deterministic:
        return pg.exploration.Deterministic(narrow(actor, obs).mode())

    def start(key: Any) -> Any:
        return 0.3 * jnp.ones((world.NUM_CELLS, 2)), jnp.array(CURVATURE)

    settings = {"critic": lambda *x: quadratic(*x)[:1], "init_params": start, "gradient_steps": 10}
    rates = {"learning_rate": [0.01, 0.01]}
    soft, soft_rows = run(sac, OneState(), rates | {"temperature": [0.0, 0.3]}, 3, policy=narrow, **settings)
    hard, hard_rows = run(ddpg, OneState(), rates, 3, policy=point, **settings)
    actors = [np.asarray(state.params.actor[:, 0]) for state in (soft, hard)]
    np.testing.assert_allclose(actors[0][0], actors[1][0], rtol=1e-4)
    np.testing.assert_allclose(soft_rows[-1]["actor_loss"][0], hard_rows[-1]["actor_loss"][0], rtol=1e-4)
    np.testing.assert_array_equal(soft_rows[-1]["temperature"][0], 0.0)
    assert np.abs(actors[1][0] - 0.3).max() > 0.1
    assert np.abs(actors[0][1] - actors[0][0]).max() > 0.01


def test_discrete_policy_and_temperature_end_at_the_entropy_that_is_wanted_and_at_exp_of_q() -> None:
    """π = exp(min Q / α) / Z with H(π) = h log A; α falls on its way there from above, and rises from below."""
    env, shares = ThreeActions(), np.array([0.3, 0.9])
    values = np.array([[0.0, 1.0, 0.4], [0.5, 0.8, 3.0]])  # of two critics

    def start(key: Any) -> Any:
        critics = jnp.broadcast_to(jnp.array(values)[:, None], (2, world.NUM_CELLS, 3))
        return jnp.zeros((world.NUM_CELLS, 3)), critics

    functions = {"policy": world.logits, "critic": world.action_values, "init_params": start}
    hyper = {"entropy_share": shares, "learning_rate": [0.03, 0.03], "temperature": [0.4, 0.4]}
    state, rows = run(sac_discrete, env, hyper, 40, **functions)
    temperature = np.exp(np.asarray(state.log_temperature, np.float64))
    best = np.exp(values.min(0) / temperature[:, None])
    best /= best.sum(1, keepdims=True)
    probs = np.asarray(jax.nn.softmax(state.params.actor[:, 0]))
    np.testing.assert_allclose(probs, best, rtol=1e-3)
    np.testing.assert_allclose(-(probs * np.log(probs)).sum(1), shares * np.log(3), rtol=1e-3)
    assert temperature[0] < 0.4 < temperature[1]
    np.testing.assert_allclose(rows[-1]["entropy_share"], shares, rtol=1e-3)


def test_the_default_actor_has_the_bounds_of_each_component() -> None:
    recipe = sac.make_train(OneState(), ENDLESS)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(recipe.init, jax.random.key(0)).params)
    head = recipe.policy(params, jnp.zeros((1, world.NUM_CELLS)))
    assert isinstance(head, pg.TanhNormal)
    np.testing.assert_allclose(head.squash(jnp.full((1, 2), -50.0))[0], LOW)
    np.testing.assert_allclose(head.squash(jnp.full((1, 2), 50.0))[0], HIGH)
    np.testing.assert_allclose(head.mode()[0], (LOW + HIGH) / 2)


def test_warm_up_fills_the_box_and_learns_nothing_and_the_policy_stays_in_it() -> None:
    def squashed(actor: Any, obs: Any) -> pg.TanhNormal:
        before = normal(actor, obs)
        return in_box(before.loc, before.scale)

    recipe = sac.make_train(
        OneState(), ENDLESS.replace(pays_at_once=True), num_envs=64, batch_size=16, gradient_steps=2, warmup=4 * 64,
        total_steps=7 * 64, capacity=7 * 64, policy=squashed, critic=quadratic,
        init_params=lambda key: (jnp.zeros((world.NUM_CELLS, 4)), jnp.array(CURVATURE)),
    )  # fmt: skip
    start = recipe.init(jax.random.key(0))
    state, rows = start, []
    for _ in range(6):
        before = state
        state, metrics = recipe.update(state)
        rows.append(metrics)
        changed = [
            not np.array_equal(x, y)
            for x, y in zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params), strict=True)
        ]
        assert any(changed) == (len(rows) > 4)
        assert np.isnan(metrics["loss"]) == (len(rows) <= 4)
        assert (before.log_temperature != state.log_temperature) == (len(rows) > 4)
    rows.append(recipe.update(state)[1])
    actions = np.asarray(state.replay.experience.action, np.float64).swapaxes(0, 1)  # [updates, environments, 2]
    assert ((actions >= LOW) & (actions <= HIGH)).all()
    drawn, own = (np.sort(x.reshape(-1, 2), 0) for x in (actions[:4], actions[4:6]))
    unit = (drawn - LOW) / (HIGH - LOW)
    uniform = (np.arange(len(unit)) + 0.5) / len(unit)
    assert np.abs(unit - uniform[:, None]).max() < 0.1  # Kolmogorov and Smirnov: beyond it in 1 of 100
    assert (own.std(0) > 0.2 * 0.5 * (HIGH - LOW)).all()  # what the new policy draws is as wide as the box
    assert [int(row["num_nonfinite"]) for row in rows] == [0] * 6 + [64]


def test_warm_up_of_discrete_actions_is_uniform_and_learns_nothing() -> None:
    def start(key: Any) -> Any:
        logits = jnp.broadcast_to(jnp.array([-9.0, 0.0, 0.0]), (world.NUM_CELLS, 3))
        return logits, jnp.zeros((2, world.NUM_CELLS, 3))

    recipe = sac_discrete.make_train(
        ThreeActions(), ENDLESS, num_envs=64, num_steps=4, batch_size=16, gradient_steps=2, warmup=256,
        total_steps=2 * 256, capacity=512, policy=world.logits, critic=world.action_values, init_params=start,
    )  # fmt: skip
    first, metrics = recipe.update(recipe.init(jax.random.key(0)))
    second, _ = recipe.update(first)
    actions = np.asarray(second.replay.experience.action)
    counts = [np.bincount(x.ravel(), minlength=3) for x in (actions[:, :4], actions[:, 4:])]
    assert min(counts[0]) > 256 / 3 - 4 * np.sqrt(256 * 2 / 9)
    assert counts[1][0] == 0
    assert np.isnan(metrics["loss"])
    np.testing.assert_array_equal(first.params.actor[0], [-9.0, 0.0, 0.0])
    assert np.abs(second.params.actor - first.params.actor).max() > 0


class Unbounded(OneState):
    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


@pytest.mark.parametrize(
    ("module", "env", "error", "message"),
    [
        (sac, world.World(), TypeError, "actions in a box.*sac_discrete"),
        (sac, Unbounded(), ValueError, "env must have bounded actions"),
        (sac_discrete, OneState(), TypeError, "env must have discrete actions.*For actions in a box take sac"),
    ],
)
def test_actions_of_the_other_kind_are_refused(module: Any, env: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        module.make_train(env, ENDLESS, num_envs=4)
