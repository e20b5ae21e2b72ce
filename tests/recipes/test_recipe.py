"""How a run is called, checked, driven, stopped, saved and resumed, the same for every recipe."""

import functools
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from entry import FUNCTIONS, as_numpy
from table import OF_EACH_KIND, RECIPES

import pgjax as pg
from pgjax.recipes import a2c, ppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
MODULES = {name: entry.module for name, entry in RECIPES.items()}
SHORT = {"num_envs": 8, "num_steps": 2, "total_steps": 5 * 16}


@functools.cache
def short(name: str) -> pg.recipes.Recipe:
    """A run of five small updates, compiled once for all tests here."""
    return RECIPES[name].make(**SHORT)


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(as_numpy(x), as_numpy(y), equal_nan=as_numpy(x).dtype.kind == "f") for x, y in pairs)


def test_finding_7_called_eagerly_a_recipe_is_compiled_once() -> None:
    """Each further call, with other keys, states and numbers, traces nothing anew."""
    traces = []

    def policy(params: Any, obs: Any) -> Any:
        traces.append(obs.shape)
        return world.policy(params, obs)

    recipe = RECIPES["reinforce"].make(policy=policy, total_steps=2 * 40)
    state, _ = recipe.update(recipe.init(jax.random.key(0)))
    recipe(jax.random.key(0))
    count = len(traces)
    for number in (0.1, 1, np.float32(0.2), jnp.float32(0.3)):
        recipe(jax.random.key(2), learning_rate=number)
        state, _ = recipe.update(recipe.init(jax.random.key(1), learning_rate=number))
        state, _ = recipe.update(state)
    assert len(traces) == count


@pytest.mark.parametrize("name", ["ppo", "td3", "sac"])
def test_a_key_of_the_old_form_does_what_the_typed_one_does(name: str) -> None:
    ends = [short(name)(key) for key in (jax.random.key(4), jax.random.PRNGKey(4))]
    assert same(*ends)
    for form, key in (("run", jax.random.PRNGKey(4)), ("vmap", jax.random.split(jax.random.PRNGKey(4), 2))):
        start = jax.eval_shape(short(name).init if form == "run" else jax.vmap(short(name).init), key)
        assert jnp.issubdtype(start.key.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("name", ["ppo", "td3"])
def test_a_state_that_came_back_in_other_dtypes_is_refused_by_name(name: str) -> None:
    state = short(name).init(jax.random.key(0))
    half = state.replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params))
    with pytest.raises(
        TypeError, match=r"^state\.params.* must have the dtype float32 .*, got bfloat16\. Read a state"
    ):
        pg.recipes.train(short(name), half, every=1, progress=False)
    many = jax.vmap(short(name).init)(jax.random.split(jax.random.key(0), 2))
    assert pg.recipes.train(short(name), many, every=5, progress=False).update.tolist() == [5, 5]
    needs_more = pg.recipes.Recipe(lambda key, scale: None, lambda s: (s, {}), 1, world.policy)
    assert pg.recipes.train(needs_more, state.replace(update=jnp.int32(1)), every=1, progress=False).update == 1


def test_driven_in_any_chunks_a_run_is_the_same_bit_for_bit() -> None:
    recipe = short("a2c")
    straight, metrics = recipe(jax.random.key(1), learning_rate=0.1)
    assert recipe.num_updates == 5
    assert all(x.shape == (5,) for x in metrics.values())
    for every, counts in ((1, [1] * 5), (2, [2, 2, 1]), (9, [5])):
        seen: list[Any] = []
        state = recipe.init(jax.random.key(1), learning_rate=0.1)
        # Kept by the caller and by report: nothing that they hold is overwritten.
        after = pg.recipes.train(recipe, state, every=every, report=lambda *x: seen.append(x), progress=False)  # noqa: B023
        assert same(after, straight)
        assert [len(m["loss"]) for _, m in seen] == counts
        assert [int(s.update) for s, _ in seen] == np.cumsum(counts).tolist()
        assert same({k: np.concatenate([m[k] for _, m in seen]) for k in metrics}, metrics)
        assert int(state.update) == 0
        assert same(state, recipe.init(jax.random.key(1), learning_rate=0.1))


def test_a_report_that_returns_true_stops_the_run_and_it_can_go_on() -> None:
    recipe = short("a2c")
    state = pg.recipes.train(
        recipe, recipe.init(jax.random.key(1)), every=2, report=lambda state, _: state.update >= 2, progress=False
    )
    assert int(state.update) == 2
    state = pg.recipes.train(recipe, state, every=2, progress=False)
    assert same(state, recipe(jax.random.key(1))[0])
    assert pg.recipes.train(recipe, state, every=2, progress=False) is state


def test_a_batch_of_runs_is_driven_like_one_and_its_states_may_be_given_away() -> None:
    recipe = short("a2c")
    keys = jax.random.split(jax.random.key(1), 3)
    rows: list[Any] = []
    state = pg.recipes.train(
        recipe, jax.vmap(recipe.init)(keys), every=5, report=lambda _, m: rows.append(m), progress=False, donate=True
    )
    assert rows[0]["loss"].shape == (5, 3)
    alone, _ = recipe(keys[2])
    np.testing.assert_allclose(state.params.actor[2], alone.params.actor, rtol=1e-5, atol=1e-7)
    mixed = state.replace(update=jnp.arange(3))
    with pytest.raises(ValueError, match=r"state.update must be one number for all runs, got \[0, 1, 2\]"):
        pg.recipes.train(recipe, mixed, every=1, progress=False)


def test_the_progress_bar_shows_the_return(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    recipe = short("a2c")
    pg.recipes.train(recipe, recipe.init(jax.random.key(1)), every=4, progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "episode_return=" in shown
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"progress=True needs tqdm: pip install pgjax\[progress\]"):
        pg.recipes.train(recipe, recipe.init(jax.random.key(1)), every=4, progress=True)
    pg.recipes.train(recipe, recipe.init(jax.random.key(1)), every=4)
    assert capsys.readouterr().err == ""


RESUME = """
import sys
from pathlib import Path
import flax.serialization, jax
sys.path.insert(0, sys.argv[2])
jax.config.update("jax_disable_most_optimizations", True)
from resumed import make, step_size
import pgjax as pg

folder = Path(sys.argv[1])
for name in sys.argv[3:]:
    recipe = make[name]()
    like = recipe.init(jax.random.key(99), **step_size(name, 0.5))
    for path in sorted(folder.glob(f"{name}-*.saved")):
        state = flax.serialization.from_bytes(like, path.read_bytes())
        state = pg.recipes.train(recipe, state, every=1, progress=False)
        path.with_suffix(".resumed").write_bytes(flax.serialization.to_bytes(state))
"""


@pytest.mark.parametrize(
    "names",
    [OF_EACH_KIND, pytest.param(tuple(sorted(RECIPES.keys() - set(OF_EACH_KIND))), marks=pytest.mark.slow)],
    ids=["of each kind", "others"],
)
def test_stopped_after_any_update_a_run_goes_on_in_another_process_bit_for_bit(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    """PPO with everything it can carry: recurrent, normalised observations and rewards."""
    from resumed import make, step_size

    ends = {}
    for name in names:
        recipe = make[name]()

        def save(state: Any, _: Any, name: str = name) -> None:
            path = tmp_path / f"{name}-{int(state.update)}.saved"
            path.write_bytes(flax.serialization.to_bytes(state))

        state = recipe.init(jax.random.key(1), **step_size(name, 0.1))
        save(state, None)
        state = pg.recipes.train(recipe, state, every=1, report=save, progress=False)
        ends[name] = flax.serialization.to_bytes(state)
        assert recipe.num_updates == 3
    arguments = [str(tmp_path), str(Path(__file__).parent), *names]
    root = Path(pg.__file__).parents[1]
    subprocess.run([sys.executable, "-c", RESUME, *arguments], check=True, cwd=root, timeout=600)
    for name, end in ends.items():
        for number in range(4):
            assert (tmp_path / f"{name}-{number}.resumed").read_bytes() == end, (name, number)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_flax_and_orbax_take_a_state_with_its_typed_key(implementation: str, tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    state = pg.recipes.Recipe(lambda key: {"key": key, "x": jnp.ones(2)}, lambda s: (s, {}), 1, world.policy).init(
        jax.random.key(5, impl=implementation)
    )
    like = {"key": jax.random.key(0, impl=implementation), "x": jnp.zeros(2)}
    back = flax.serialization.from_bytes(like, flax.serialization.to_bytes(state))
    assert same(back, state)
    assert jax.random.key_impl(back["key"]) == implementation
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        assert same(checkpointer.restore(tmp_path / "state", like), state)


@pytest.mark.parametrize(
    ("hyper", "error", "message"),
    [
        ({"discount": 99}, ValueError, r"discount must lie in \[0, 1\], got 99"),
        ({"discount": float("nan")}, ValueError, r"discount must lie in \[0, 1\], got nan"),
        ({"lam": 95}, ValueError, r"lam must lie in \[0, 1\], got 95"),
        ({"lam": np.float64(-0.1)}, ValueError, r"lam must lie in \[0, 1\], got -0.1"),
        ({"clip": -0.2}, ValueError, r"clip must lie in \(0, inf\], got -0.2"),
        ({"clip": 0}, ValueError, r"clip must lie in \(0, inf\], got 0"),
        ({"value_clip": jnp.float32(-1.0)}, ValueError, r"value_clip must lie in \(0, inf\], got -1"),
        ({"learning_rate": -1e-3}, ValueError, r"learning_rate must lie in \[0, inf\), got -0.001"),
        ({"learning_rate": float("inf")}, ValueError, r"learning_rate must lie in \[0, inf\), got inf"),
        ({"max_grad_norm": 0.0}, ValueError, r"max_grad_norm must lie in \(0, inf\], got 0"),
        ({"value_coef": -0.5}, ValueError, r"value_coef must lie in \[0, inf\), got -0.5"),
        ({"anneal": 2}, ValueError, r"anneal must lie in \[0, 1\], got 2"),
        ({"entropy_coef": float("nan")}, ValueError, r"entropy_coef must not be NaN"),
        ({"discount": "0.9"}, TypeError, r"discount must be a number, got str"),
        ({"discount": [0.9, 0.99]}, ValueError, r"discount must be a scalar, got shape \[2\]. Use jax.vmap"),
        ({"lam": None}, TypeError, r"lam must be a number, got None"),
        ({"learning_rat": 1.0}, TypeError, r"unknown hyper-parameter learning_rat; this recipe has .*learning_rate"),
    ],
)
def test_finding_7_a_hyper_parameter_out_of_range_is_named(hyper: Any, error: type, message: str) -> None:
    recipe = short("ppo")
    for call in (recipe, recipe.init, jax.jit(lambda key: recipe.init(key, **hyper))):
        with pytest.raises(error, match=message):
            call(jax.random.key(0), **(hyper if call is recipe or call is recipe.init else {}))


def test_traced_hyper_parameters_are_not_looked_at_and_whole_numbers_are_numbers() -> None:
    recipe = short("ppo")
    states = jax.vmap(lambda x: recipe.init(jax.random.key(0), discount=x))(jnp.array([0.5, 99.0]))
    np.testing.assert_array_equal(states.hyper.discount, [0.5, 99.0])
    for number in (1, True, np.int64(1)):
        assert recipe.init(jax.random.key(0), anneal=number).hyper.anneal.dtype == jnp.float32
    with pytest.raises(ValueError, match=r"discount must be a scalar, got shape \[2\]. Use jax.vmap"):
        jax.jit(lambda x: recipe.init(jax.random.key(0), discount=x))(jnp.array([0.5, 0.9]))


@pytest.mark.parametrize("name", MODULES)
def test_finding_7_help_shows_every_hyper_parameter_with_its_default(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(MODULES[name]))
    for field, default in MODULES[name].Hyper._field_defaults.items():
        assert f"{field}: " in text
        assert f"= {default}" in text
    assert "init_params" in text


def test_finding_8_ppo_sets_no_bound_on_its_value_by_default() -> None:
    assert ppo.Hyper().value_clip is None
    assert short("ppo").init(jax.random.key(0)).hyper.value_clip is None


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs must be at least 1, got 0"),
        ({"num_steps": 0}, ValueError, "num_steps must be at least 1, got 0"),
        ({"num_envs": 2.0}, TypeError, "num_envs must be a Python int"),
        (
            {"total_steps": 10},
            ValueError,
            "total_steps must allow one update of num_envs [*] num_steps = 16 steps, got 10",
        ),
        ({"total_steps": 0}, ValueError, "total_steps must be at least 1, got 0"),
        ({"total_steps": 1e6}, TypeError, "total_steps must be a Python int"),
        ({"init_params": None}, TypeError, "init_params must be a function, got NoneType"),
        ({"policy": 3}, TypeError, "policy must be a function, got int"),
        ({"model": "mlp"}, ValueError, "model and policy, .*init_params.* are both given"),
        ({"model": "mlp", "functions": None}, TypeError, "model must be a Flax module"),
    ],
)
def test_bad_settings_are_named(name: str, change: Any, error: type, message: str) -> None:
    members = RECIPES[name].members  # whose steps are counted together
    message = message.replace("= 16 steps, got 10", f"= {16 * members} steps, got {10 * members}")
    if "functions" in change:
        names = [key for key in RECIPES[name].functions if RECIPES[name].critic or key != "value"]
        change = {"model": change["model"], **dict.fromkeys(names)}
    with pytest.raises(error, match=message):
        RECIPES[name].make(**{**SHORT, **change})


@pytest.mark.parametrize(("number", "error"), [(7, ValueError), (0, ValueError), (2.0, TypeError)])
def test_the_number_of_minibatches_is_checked_where_it_is_given(number: Any, error: type) -> None:
    with pytest.raises(error, match="num_minibatches"):
        RECIPES["ppo"].make(**SHORT, num_minibatches=number)


@pytest.mark.parametrize(
    ("init_params", "message"),
    [
        (lambda key: {"w": jnp.ones(2), "n": jnp.arange(2)}, r"init_params made int32 at \['n'\]"),
        (lambda: 0, r"init_params must take \(key, obs\) or \(key\), it takes \(\)"),
    ],
)
def test_parameters_that_cannot_be_trained_are_named(init_params: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RECIPES["a2c"].make(**SHORT, init_params=init_params).init(jax.random.key(0))


def test_one_row_of_env_params_for_each_environment_and_one_for_all_give_the_same() -> None:
    env = world.World()
    each = world.WorldParams(max_steps_in_episode=jnp.full(8, 2), kind=jnp.full(8, world.ENDLESS))
    one = world.WorldParams(max_steps_in_episode=2, kind=world.ENDLESS)
    sizes = {"num_envs": 8, "num_steps": 3, "total_steps": 24}
    ends = [a2c.make_train(env, x, **sizes, **FUNCTIONS)(jax.random.key(0))[0].params.critic for x in (one, each)]
    np.testing.assert_allclose(*ends, rtol=1e-5)


def test_finding_12_the_return_is_not_told_before_every_environment_has_finished() -> None:
    """Episodes of 4 steps and one of 40: early on only the short ones have ended, and theirs is not the mean."""
    env, env_params = world.world()
    rows = env_params.replace(
        kind=jnp.full(8, world.ENDLESS), max_steps_in_episode=jnp.where(jnp.arange(8) == 0, 40, 4)
    )
    _, metrics = a2c.make_train(env, rows, num_envs=8, num_steps=4, total_steps=12 * 32, **FUNCTIONS)(jax.random.key(0))
    assert np.isnan(metrics["episode_return"][:9]).all()
    np.testing.assert_allclose(metrics["finished"][:9], 7 / 8)
    np.testing.assert_allclose(metrics["episode_return"][9:], (7 * 4 + 40) / 8)
    np.testing.assert_allclose(metrics["finished"][9:], 1.0)
