"""Replay against lists of rows in NumPy: what is drawn, what is overwritten, what is refused."""

import sys
from typing import Any

import flax.serialization
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_rows import ADDED, BATCH, ENVS, ROWS, expected, filled, rows, valid, where
from scipy import stats

import pgjax as pg
from pgjax import replay

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def small() -> Any:
    return replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=5, num_steps=2)


@pytest.mark.parametrize(("num_steps", "counts"), ADDED)
def test_every_window_of_the_newest_rows_is_drawn_and_none_else(num_steps: int, counts: tuple[int, ...]) -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS + 2, batch_size=BATCH, num_steps=num_steps)
    state, total = buffer.init(rows(0, 1)), 0
    sample = jax.jit(jax.vmap(buffer.sample, (0, None)))
    for i, count in enumerate(counts):
        state = buffer.add(state, rows(total, count))
        total += count
        starts = valid(total, num_steps)
        assert int(buffer.num_valid(state)) == len(starts)
        if not starts:
            continue
        window = sample(jax.random.split(jax.random.key(i), 8), state)
        window = jax.tree.map(
            lambda x: np.moveaxis(np.asarray(x), 0, 1).reshape(num_steps, 8 * BATCH, *x.shape[3:]), window
        )
        env, time = where(window)
        assert set(zip(env[0].tolist(), time[0].tolist(), strict=True)) == starts
        np.testing.assert_array_equal(time, time[0] + np.arange(num_steps)[:, None])
        jax.tree.map(np.testing.assert_array_equal, window, expected(env, time))


def test_the_oldest_rows_are_overwritten_in_place() -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=1)
    ring: list[int | None] = [None] * ROWS
    state, total = buffer.init(rows(0, 1)), 0
    for count in (5, 1, 1, 5, 7, 5):
        state = buffer.add(state, rows(total, count))
        for time in range(total, total + count):
            ring[time % ROWS] = time
        total += count
        written = np.array([-1 if time is None else time for time in ring])
        held = np.where(written >= 0, np.asarray(state.experience.step), -1)
        np.testing.assert_array_equal(held, np.tile(written, (ENVS, 1)))
        assert (int(state.position), bool(state.is_full)) == (total % ROWS, total >= ROWS)


@pytest.mark.parametrize("counts", [(3,), (3, 3, 3)], ids=["filling", "full"])
def test_windows_are_drawn_uniformly_and_independently(small: Any, counts: tuple[int, ...]) -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=2000, num_steps=2)
    state, total = filled(small, *counts)
    drawn = []
    for seed in range(2):
        env, time = where(buffer.sample(jax.random.key(seed), state))
        drawn.append(list(zip(env[0].tolist(), time[0].tolist(), strict=True)))
        counted = [drawn[-1].count(start) for start in sorted(valid(total, 2))]
        assert sum(counted) == 2000
        assert stats.chisquare(counted).pvalue > 1e-3
    assert drawn[0] != drawn[1]


def test_the_key_decides(small: Any) -> None:
    state, _ = filled(small, 3)
    first, again = (small.sample(jax.random.key(3), state) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize(
    ("obs_dtype", "frame", "plane"),
    [
        (None, "float32", "float32"),
        (jnp.uint8, "uint8", "uint8"),
        ({"frame": "uint8", "plane": bool}, "uint8", "bool"),
    ],
)
def test_observations_are_kept_small_and_given_back_as_they_came(obs_dtype: Any, frame: str, plane: str) -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=BATCH, num_steps=2, obs_dtype=obs_dtype)
    state, _ = filled(buffer, 6, 6)
    for obs in (state.experience.obs, state.experience.next_obs):
        assert (obs["frame"].dtype, obs["plane"].dtype) == (frame, plane)
    assert state.experience.extras["bf16"].dtype == jnp.bfloat16
    size = {"float32": 4, "uint8": 1, "bool": 1}
    row = 2 * (2 * size[frame] + size[plane]) + 4 + 4 + 1 + 1 + 4 + 4 + 2
    assert buffer.num_bytes(rows(0, 9)) == ENVS * ROWS * row + 5
    assert buffer.num_bytes(rows(0, 9)) == sum(x.nbytes for x in jax.tree.leaves(state))
    window = buffer.sample(jax.random.key(0), state)
    env, time = where(window)
    wanted = expected(env, time)
    assert jax.tree.map(lambda x: x.dtype, window) == jax.tree.map(lambda x: x.dtype, wanted)
    jax.tree.map(np.testing.assert_array_equal, window, wanted)


def test_a_replay_of_a_rollout_is_made_from_its_shapes_alone() -> None:
    env, env_params = gymnax.make("Breakout-MinAtar")
    assert pg.envs.observation_dtype(env) == jnp.float32  # of what are planes of bits
    buffer = replay.make_replay(num_envs=2, capacity=16, batch_size=4, num_steps=2, obs_dtype=bool)
    start = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=2)

    def run(key: jax.Array) -> Any:
        policy = lambda params, obs: pg.Categorical(jnp.zeros((*obs.shape[:-3], 3)))  # noqa: E731
        return pg.rollout(key, None, start, policy=policy, env=env, env_params=env_params, num_steps=4)[1]

    shapes = jax.eval_shape(run, jax.random.key(1))
    size = 10 * 10 * 4
    assert buffer.num_bytes(shapes) == 16 * (2 * size + 4 + 4 + 1 + 1 + 4 + 4) + 5
    state = buffer.init(shapes)
    assert state.experience.obs.dtype == state.experience.next_obs.dtype == bool
    trajectory = run(jax.random.key(1))
    state = buffer.add(state, trajectory)
    jax.tree.map(
        lambda kept, x: np.testing.assert_array_equal(np.asarray(kept)[:, :4], np.swapaxes(x, 0, 1)),
        state.experience,
        trajectory,
    )
    assert buffer.sample(jax.random.key(2), state).obs.dtype == trajectory.obs.dtype == jnp.float32


def test_n_step_returns_are_right_across_both_kinds_of_end() -> None:
    num_steps, total = 4, 12
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * 9, batch_size=BATCH, num_steps=num_steps)
    state, whole = buffer.init(rows(0, 1)), rows(0, total)
    for start in range(0, total, 3):
        state = buffer.add(state, jax.tree.map(lambda x, start=start: x[start : start + 3], whole))
    window = buffer.sample(jax.random.key(0), state)
    env, time = where(window)
    folded = pg.fold(window, discount=0.9)
    value = lambda obs: obs["frame"].sum(-1)  # noqa: E731
    target = folded.reward + folded.discount * value(folded.next_obs)
    # The same by a function of the whole run, whose windows end where they end and not where the samples do.
    wanted = pg.n_step_returns(
        whole.reward,
        value(whole.next_obs),
        terminated=whole.terminated,
        truncated=whole.truncated,
        discount=0.9,
        n=num_steps,
    )
    np.testing.assert_allclose(target, np.asarray(wanted)[time[0], env[0]], rtol=1e-5)
    inside = np.asarray(window.terminated)[:-1], np.asarray(window.truncated)[:-1]
    assert all(mask.any() for mask in inside)
    assert not (inside[0] | inside[1]).any(0).all()


def turn(buffer: Any) -> Any:
    """One turn of a loop: add three rows, draw."""

    def body(carry: Any, key: jax.Array) -> Any:
        state, start = carry
        one = rows(0, 3)
        state = buffer.add(state, one.replace(action=one.action + start, step=one.step + start))
        window = buffer.sample(key, state)
        return (state, start + 3), (window.action, buffer.num_valid(state))

    return body


def test_scan_vmap_and_a_loop_agree(small: Any) -> None:
    body = turn(small)
    keys = jax.vmap(lambda key: jax.random.split(key, 4))(jax.random.split(jax.random.key(0), 2))

    def run(keys: jax.Array, start: Any) -> Any:
        return jax.lax.scan(body, (small.init(rows(0, 1)), start), keys)

    together = jax.jit(jax.vmap(run))(keys, jnp.arange(2) * 500)
    for seed in range(2):
        carry, out = (small.init(rows(0, 1)), jnp.int32(500 * seed)), []
        for key in keys[seed]:
            carry, drawn = body(carry, key)
            out.append(drawn)
        one = carry, jax.tree.map(lambda *x: jnp.stack(x), *out)
        jax.tree.map(lambda x, y, seed=seed: np.testing.assert_array_equal(x[seed], y), together, one)


def test_a_replay_that_was_saved_goes_on_bit_for_bit(small: Any) -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=5, num_steps=2, obs_dtype="uint8")
    state, total = filled(buffer, 3, 3)
    data = flax.serialization.to_bytes(state)
    read = flax.serialization.from_bytes(buffer.init(rows(0, 1)), data)
    for seed in range(2):
        state, read = (buffer.add(x, rows(total, 3)) for x in (state, read))
        total += 3
        jax.tree.map(np.testing.assert_array_equal, state, read)
        first, second = (buffer.sample(jax.random.key(seed), x) for x in (state, read))
        jax.tree.map(np.testing.assert_array_equal, first, second)
    with pytest.raises(TypeError, match=r"would be kept as float32, and the state holds uint8"):
        small.add(state, rows(total, 3))


def test_an_add_under_jit_copies_nothing() -> None:
    """The state that is given up is the one that comes back: no second ring is allocated, which were most of it."""
    small = pg.replay.make_replay(num_envs=3, capacity=3_000, batch_size=4)
    state = jax.eval_shape(small.init, rows(0, 1))
    program = jax.jit(small.add, donate_argnums=0).lower(state, rows(3, 3)).compile()
    memory = program.memory_analysis()
    if memory is None:
        pytest.skip("this backend does not tell")
    size = small.num_bytes(rows(0, 1))
    assert memory.alias_size_in_bytes >= size - 5
    assert memory.temp_size_in_bytes < size / 4


def test_before_there_is_a_window_a_sample_is_refused_or_zero(small: Any) -> None:
    state = small.init(rows(0, 1))
    assert int(small.num_valid(state)) == 0
    with pytest.raises(ValueError, match=r"state holds 0 rows for each environment, fewer than num_steps=2.*num_valid"):
        small.sample(jax.random.key(0), state)
    state = small.add(state, rows(1, 1))
    with pytest.raises(ValueError, match="state holds 1 rows"):
        small.sample(jax.random.key(0), state)
    window = jax.jit(small.sample)(jax.random.key(0), state)
    env, _ = where(window)
    np.testing.assert_array_equal(window.action[0], 1 + 1000 * env[0])
    assert not np.any(window.action[1])
    state = small.add(state, rows(2, 1))
    assert set(np.asarray(small.sample(jax.random.key(0), state).step[0])) == {1}


def test_next_obs_may_be_left_out() -> None:
    buffer = replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=5, obs_dtype="uint8")
    kept = rows(0, 3, next_obs=False)
    window = buffer.sample(jax.random.key(0), buffer.add(buffer.init(kept), kept))
    assert window.next_obs is None
    assert window.obs["frame"].dtype == jnp.float32
    with pytest.raises(ValueError, match="window keeps no next_obs"):
        pg.fold(window, discount=0.9)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"capacity": 8}, ValueError, r"capacity=8 holds 2 rows of each of the 3 environments.*at least .* = 9"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"num_steps": 0}, ValueError, "num_steps must be at least 1"),
        ({"num_envs": 0}, ValueError, "num_envs must be at least 1"),
        ({"capacity": 9.0}, TypeError, "capacity must be a Python int"),
        ({"obs_dtype": "no such"}, TypeError, r"obs_dtype must be a dtype.*observation_dtype"),
    ],
)
def test_wrong_sizes_are_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replay.make_replay(**{"num_envs": 3, "capacity": 9, "batch_size": 2, "num_steps": 3, **change})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda t: t.obs, TypeError, "trajectory must be a Trajectory"),
        (lambda t: rows(0, 3, envs=4), ValueError, r"trajectory.* must have shape \[T, B, ...\] with B = num_envs = 3"),
        (lambda t: jax.tree.map(lambda x: x[0], t), ValueError, "must have shape"),
        (lambda t: t.replace(reward=t.reward[:2]), ValueError, "must have as many rows as trajectory.reward, 2"),
        (lambda t: jax.tree.map(lambda x: x[:0], t), ValueError, "at least one"),
        (
            lambda t: rows(0, 8),
            ValueError,
            r"8 rows for each environment, and the replay holds 7.*capacity of at least 24",
        ),
        (
            lambda t: rows(0, 3, next_obs=False),
            ValueError,
            "trajectory must have the tree structure of the one that init",
        ),
        (
            lambda t: t.replace(reward=t.reward[..., None]),
            ValueError,
            r"trajectory.reward must have trailing axes \[\]",
        ),
        (lambda t: t.replace(reward=t.action), TypeError, r"trajectory.reward would be kept as int32.*holds float32"),
    ],
)
def test_a_trajectory_of_another_form_is_refused(small: Any, wrong: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small.add(small.init(rows(0, 1)), wrong(rows(0, 3)))


def test_observations_of_another_dtype_or_form_are_refused() -> None:
    sizes: dict[str, Any] = {"num_envs": ENVS, "capacity": ENVS * ROWS, "batch_size": 5}
    buffer = replay.make_replay(**sizes, obs_dtype="uint8")
    one = rows(0, 1)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), one.obs)
    with pytest.raises(TypeError, match="must have the dtypes that init was given"):
        buffer.add(buffer.init(one), one.replace(obs=half))
    with pytest.raises(ValueError, match=r"obs_dtype must have the tree structure of trajectory.obs"):
        replay.make_replay(**sizes, obs_dtype={"frame": "uint8"}).init(one)


def test_a_state_of_another_replay_is_refused(small: Any) -> None:
    wide = replay.make_replay(num_envs=ENVS, capacity=ENVS * (ROWS + 1), batch_size=5)
    state = wide.add(wide.init(rows(0, 1)), rows(0, 3))
    several = jax.vmap(lambda _: small.init(rows(0, 1)))(jnp.arange(ENVS))
    for wrong in (state, several):
        for call in (small.num_valid, lambda x: small.sample(jax.random.key(0), x), lambda x: small.add(x, rows(0, 1))):
            with pytest.raises(
                ValueError, match=r"state holds rows of shape.*Make the replay with the sizes of the state"
            ):
                call(wrong)
    with pytest.raises(TypeError, match="state must be a ReplayState"):
        small.num_valid(rows(0, 1))


def test_without_flashbax_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashbax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install pgjax\[replay\]"):
        replay.make_replay(num_envs=1, capacity=8, batch_size=2)
