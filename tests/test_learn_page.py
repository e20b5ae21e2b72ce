"""What the pages of learning say at equal steps and at equal seconds, and where their environments come from."""

import json
import pathlib
import sys
import warnings
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import learn  # noqa: E402
import learn_page  # noqa: E402


def cell(recipe: str, returns: list[list[float | None]], *, steps: float, seconds: float, **other: Any) -> Any:
    """A cell whose curve has evenly spaced rows, up to these steps and seconds."""
    share = [(i + 1) / len(returns) for i in range(len(returns))]
    curve = {"steps": [steps * x for x in share], "seconds": [seconds * x for x in share], "return": returns}
    return {"recipe": recipe, "env": "E", "seeds": 2, "others": 0.0, "curve": curve, **other}


def columns(text: str) -> dict[str, list[str]]:
    """The cells of the table by the name of the recipe, its header by the empty name."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {"": rows[0], **{row[0].strip("`"): row[1:] for row in rows[2:]}}


def test_a_return_at_a_point_is_that_of_the_last_row_up_to_it() -> None:
    one = cell("a", [[None, 1.0], [2.0, 4.0], [5.0, 7.0]], steps=300.0, seconds=3.0)
    assert learn_page.at_point(one, "steps", 299.0).startswith("3.0 [")
    assert learn_page.at_point(one, "steps", 300.0).startswith("6.0 [")
    assert learn_page.at_point(one, "seconds", 2.5).startswith("3.0 [")
    assert learn_page.at_point(one, "steps", 150.0) == "–", "one seed has not finished an episode"
    assert learn_page.at_point(one, "steps", 99.0) == "–", "before the first row"


def test_cells_are_compared_at_the_largest_step_and_second_that_all_came_to() -> None:
    long = cell("long", [[float(i)] * 2 for i in range(10)], steps=10_000.0, seconds=100.0)
    quick = cell("quick", [[10.0 * i] * 2 for i in range(10)], steps=2_000.0, seconds=200.0)
    found = columns(learn_page.at_equal_cost([quick, long]))
    assert found[""] == ["recipe", "at 2 k steps", "at 100 seconds"]
    assert [x.split()[0] for x in found["long"]] == ["1.0", "9.0"]
    assert [x.split()[0] for x in found["quick"]] == ["90.0", "40.0"]


@pytest.mark.parametrize("other", [{"others": 0.5}, {"seeds": 1}])
def test_seconds_are_only_of_cells_that_ran_alone_with_equally_many_seeds(other: dict[str, Any]) -> None:
    fair = [cell(name, [[1.0, 1.0], [2.0, 2.0]], steps=100.0, seconds=10.0) for name in ("a", "b")]
    odd = cell("c", [[1.0, 1.0], [3.0, 3.0]], steps=100.0, seconds=2.0, **other)
    found = columns(learn_page.at_equal_cost([*fair, odd]))
    assert found[""][2] == "at 10 seconds"
    assert found["c"][0].startswith("3.0")
    assert found["c"][1] == "–"
    assert columns(learn_page.at_equal_cost([fair[0], odd]))[""] == ["recipe", "at 0.1 k steps"]
    assert learn_page.at_equal_cost(fair[:1]) == ""


@pytest.mark.parametrize(
    ("figure", "steps", "note"),
    [
        (5.0, 300.0, "5 at 0.3 k (zoo)"),
        (9.0, 300.0, "9 at 0.3 k (zoo), missed by 3"),
        (5.0, 200.0, "5 at 0.2 k (zoo); 3.0 [2.0, 4.0] here after as many"),
    ],
)
def test_a_published_figure_is_met_missed_or_of_a_shorter_run(figure: float, steps: float, note: str) -> None:
    run = {"final_return": 6.0, "interval": [5.0, 7.0], "steps_to_threshold": [], "seconds_to_threshold": []}
    one = cell("a", [[1.0, 1.0], [2.0, 4.0], [5.0, 7.0]], steps=300.0, seconds=3.0, **run)
    row = learn_page.row({**one, "seconds": 3.0, "compile_seconds": 1.0}, {"a": {"E": [figure, steps, "zoo"]}})
    assert row[-1] == note


def test_the_page_compares_with_recipes_of_the_other_page(tmp_path: pathlib.Path) -> None:
    settings = {"settings": {"make": {}, "hyper": {"discount": 0.5}, "model": {}, "rescaled": True}}
    run = {
        "setting": dict.fromkeys(("processor", "python", "jax", "pgjax", "date"), "?"), "threshold": 3.0,
        "final_return": 1.0, "interval": [1.0, 1.0], "final_by_seed": [1.0, 1.0],
        "compile_seconds": 1.0, "steps_to_threshold": [None, None], "seconds_to_threshold": [None, None],
    }  # fmt: skip
    for name in ("sac", "ppo", "a2c", "rejax"):
        one = cell(name, [[1.0, 1.0], [2.0, 2.0]], steps=100.0, seconds=10.0, **run, **settings)
        path = tmp_path / "out" / name / "brax-x.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**one, "env": "brax:x", "seconds": 10.0}))
    for layout, recipes in ((learn_page.OFF_POLICY, {"sac"}), (learn_page.ON_POLICY, {"ppo", "a2c"})):
        learn_page.write_page(
            tmp_path / "out",
            tmp_path,
            layout=layout,
            recipes=recipes,
            at_random={"brax:x": 0.0},
            num_episodes={"brax:x": 1024},
        )
    page = (tmp_path / "learn_offpolicy.md").read_text()
    assert {"brax-x.png", "sac-brax-x.json", "ppo-brax-x.json", "rejax-brax-x.json"} == {
        path.name for path in (tmp_path / "learn_offpolicy").iterdir()
    }
    equal = page.split("equal seconds:")[1].split("## Settings")[0]
    assert set(columns(equal)) == {"", "ppo", "sac", "rejax"}
    assert "- `rejax`: PPO of another library" in page
    assert "rejax" not in page.split("## All environments")[1].split("## brax:x")[0]
    assert "`a2c`" not in page
    assert "a final policy plays 1,024 episodes" in page
    assert "| `sac` on brax:x | `rescaled, discount=0.5` |" in page
    assert "equal seconds" not in (tmp_path / "learn.md").read_text()


def test_an_environment_is_of_gymnax_or_by_its_prefix_of_brax() -> None:
    assert learn.environment("CartPole-v1")[0].name == "CartPole-v1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("brax.envs")
        env, env_params = learn.environment("brax:inverted_pendulum")
    assert env_params is None
    assert env.action_space(env_params).shape == (1,)
    assert env.env.max_steps == learn.BRAX_LIMIT
    env, env_params = learn.environment("MountainCar-v0", {"rescaled": True})
    assert env.observation_space(env_params).high.tolist() == [1.0, 1.0]


def test_a_part_that_is_timed_stands_for_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "PART", 0.0)
    settings: Any = {"make": {"num_envs": 2, "num_steps": 4, "total_steps": 8000}, "hyper": {}, "model": {}}
    rows = [None] * 100
    known = {"steps_to_threshold": [None, 2000.0], "curve": {"steps": rows, "return": rows, "seconds": rows}}
    found = learn.time_again("a2c", "CartPole-v1", settings, 2, 1.0, known)
    assert found["timed"]["updates"] == 10  # one chunk of a hundred
    assert found["seconds_to_threshold"][0] is None
    assert found["seconds_to_threshold"][1] == pytest.approx(found["seconds"] / 4)
    seconds = found["curve"]["seconds"]
    assert len(seconds) == 100
    assert seconds[-1] == pytest.approx(found["seconds"])
    assert found["curve"]["return"] is rows


def test_a_search_is_run_again_for_its_updates_take_as_long_as_their_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "measure", lambda *args: {"seconds": 7.0})
    settings: Any = {"make": {"num_pairs": 2, "num_envs": 1, "total_steps": 4000}, "hyper": {}, "model": {}}
    found = learn.time_again("evolution_strategies", "CartPole-v1", settings, 2, 1.0, {})
    assert found["seconds"] == 7.0
    assert set(found) == {"seconds", "setting"}  # the setting is that of the new run


def test_settings_name_environments_and_hyper_parameters_that_there_are() -> None:
    found = learn.cells(None, None)
    assert {env_name for _, env_name in found} <= set(learn.THRESHOLDS)
    assert any(env_name.startswith("brax:") for _, env_name in found)


def test_notes_are_told_on_the_page_and_are_no_settings() -> None:
    assert learn_page.notes_on("Pendulum-v1", ["kl_ppo", "impala"]).startswith("\n- `impala`: held noise")
    assert learn_page.notes_on("Pendulum-v1", ["kl_ppo"]) == ""
    known = {"make", "hyper", "model"}
    assert all(known <= set(settings) <= known | {"rescaled"} for settings in learn.cells(None, None).values())


def test_every_cell_of_gymnax_can_be_built() -> None:
    """Its settings are arguments of its recipe, and allow an update."""
    built = [key for key in learn.cells(None, None) if ":" not in key[1]]
    for name, env_name in built:
        settings = learn.cells([name], [env_name])[name, env_name]
        assert learn.build(name, env_name, settings, 1.0).num_updates > 1, (name, env_name)
    assert len({name for name, _ in built}) > 20


def test_a_cell_that_there_is_not_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"^no environment brax-hopper; there are CartPole-v1, "):
        learn.cells(None, ["brax-hopper"])
    with pytest.raises(ValueError, match=r"^no settings for dpg on CartPole-v1 in learn/\.$"):
        learn.cells(["ppo", "dpg"], ["CartPole-v1"])
    assert list(learn.cells(["ppo"], ["CartPole-v1"])) == [("ppo", "CartPole-v1")]
