"""Replay against lists of rows in NumPy: what is drawn, what is overwritten, what is refused."""

import sys
from typing import Any

import flax.serialization
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax as pg
from pgjax import replay
from pgjax.replay import prioritized

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENVS, ROWS, BATCH = 3, 7, 64


def rows(start: int, count: int, *, envs: int = ENVS, next_obs: bool = True) -> pg.Trajectory:
    """Rows start, start + 1, ... of every environment: each leaf tells the environment and the time."""
    time, env = np.meshgrid(np.arange(start, start + count), np.arange(envs), indexing="ij")
    code = time + 1000 * env
    frame = np.stack([time % 256, env], -1)
    return pg.Trajectory(
        obs={"frame": jnp.asarray(frame, jnp.float32), "plane": jnp.asarray(time[..., None] % 2, jnp.float32)},
        action=jnp.asarray(code, jnp.int32),
        reward=jnp.asarray(code, jnp.float32) + 0.5,
        next_obs={
            "frame": jnp.asarray(frame + 1, jnp.float32),
            "plane": jnp.asarray((time[..., None] + 1) % 2, jnp.float32),
        }
        if next_obs
        else None,
        terminated=jnp.asarray((time + 2 * env) % 5 == 0),
        truncated=jnp.asarray((3 * time + env) % 7 == 0),
        log_prob=jnp.asarray(-code, jnp.float32),
        step=jnp.asarray(time, jnp.int32),
        extras={"bf16": jnp.asarray(env, jnp.bfloat16)},
    )


def expected(env: np.ndarray, time: np.ndarray) -> pg.Trajectory:
    """The rows of given environments and times, from the long run in which they were made."""
    long = jax.tree.map(np.asarray, rows(0, 400))
    return jax.tree.map(lambda x: x[time, env], long)


def where(window: pg.Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Environment and time of each row of a window."""
    code = np.asarray(window.action)
    return code // 1000, code % 1000


def valid(total: int, num_steps: int, *, held: int = ROWS) -> set[tuple[int, int]]:
    """Environment and first time of all windows that the newest `held` of `total` rows contain."""
    kept = list(range(total))[-held:]
    return {(env, kept[i]) for env in range(ENVS) for i in range(len(kept) - num_steps + 1)}


def filled(buffer: Any, *counts: int) -> tuple[Any, int]:
    """A state after adds of so many rows, and the number of rows."""
    state, total = buffer.init(rows(0, 1)), 0
    for count in counts:
        state = buffer.add(state, rows(total, count))
        total += count
    return state, total


@pytest.fixture(scope="module")
def small() -> Any:
    return replay.make_replay(num_envs=ENVS, capacity=ENVS * ROWS, batch_size=5, num_steps=2)


ADDED = [(1, (3, 3, 7, 3)), (3, (3, 3, 1, 3, 7, 3, 1, 1, 7, 1)), (ROWS, (3, 3, 3, 3, 7, 3))]


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


ALPHA = 0.6


def ranked(num_steps: int = 2, batch_size: int = 5, **options: Any) -> replay.PrioritizedReplay:
    sizes = {"num_envs": ENVS, "capacity": ENVS * ROWS, "batch_size": batch_size, "num_steps": num_steps}
    return replay.make_prioritized_replay(**sizes, exponent=ALPHA, **options)


@pytest.fixture(scope="module")
def two() -> replay.PrioritizedReplay:
    return ranked()


def leaves(state: replay.PrioritizedState) -> np.ndarray:
    """p^α of each row of the ring as the first of a window, [B, rows]; what is behind them must be 0."""
    node = np.asarray(state.node)
    kept = node[node.size // 2 :]
    assert not kept[ENVS * ROWS :].any()
    return kept[: ENVS * ROWS].reshape(ENVS, ROWS)


def assert_sums(state: replay.PrioritizedState) -> None:
    node = np.asarray(state.node)
    np.testing.assert_array_equal(node[1 : node.size // 2], node[2::2] + node[3::2])


DRAWN = 3000


@pytest.fixture(scope="module")
def many() -> replay.PrioritizedReplay:
    return ranked(batch_size=DRAWN)


def spread(buffer: Any, *counts: int) -> Any:
    """A state whose windows have priorities between 0.01 and 100."""
    state, _ = filled(buffer, *counts)
    index = np.arange(ENVS * ROWS)
    priority = 10 ** np.random.default_rng(0).uniform(-2, 2, index.size)
    return buffer.update(state, jnp.asarray(index), jnp.asarray(priority, jnp.float32))


@pytest.fixture(scope="module")
def full(two: Any) -> Any:
    """Ten rows, seven of them kept: position 3, and no window begins in row 2."""
    return spread(two, 7, 3)


@pytest.mark.parametrize(("num_steps", "counts"), ADDED)
def test_priorities_follow_the_windows_round_the_ring(num_steps: int, counts: tuple[int, ...]) -> None:
    buffer = ranked(num_steps)
    state, total = buffer.init(rows(0, 1)), 0
    random = np.random.default_rng(0)
    kept: dict[tuple[int, int], float] = {}
    greatest = 1.0
    for count in counts:
        state = buffer.add(state, rows(total, count))
        total += count
        kept = {start: kept.get(start, greatest) for start in valid(total, num_steps)}
        wanted = np.zeros((ENVS, ROWS))
        for (env, time), value in kept.items():
            wanted[env, time % ROWS] = value
        np.testing.assert_allclose(leaves(state), wanted, rtol=1e-6)
        assert_sums(state)
        assert int(buffer.num_valid(state)) == len(kept)
        if kept:
            chosen = [sorted(kept)[i] for i in random.integers(len(kept), size=4)]
            priority = random.uniform(0.1, 9.0, 4)
            index = [env * ROWS + time % ROWS for env, time in chosen]
            state = buffer.update(state, jnp.asarray(index), jnp.asarray(priority, jnp.float32))
            for start in set(chosen):
                kept[start] = max(p for p, one in zip(priority, chosen, strict=True) if one == start) ** ALPHA
            greatest = max(greatest, *(kept[start] for start in chosen))
            np.testing.assert_allclose(state.greatest, greatest, rtol=1e-6)


@pytest.mark.parametrize("counts", [(3,), (7, 3)], ids=["filling", "full"])
def test_windows_are_drawn_in_proportion_to_their_priority(two: Any, many: Any, counts: tuple[int, ...]) -> None:
    state = spread(two, *counts)
    drawn = many.sample(jax.random.key(1), state)
    env, time = where(drawn.window)
    jax.tree.map(np.testing.assert_array_equal, drawn.window, expected(env, time))
    np.testing.assert_array_equal(time[1], time[0] + 1)
    assert set(zip(env[0].tolist(), time[0].tolist(), strict=True)) <= valid(sum(counts), 2)
    np.testing.assert_array_equal(drawn.rows, env[0] * ROWS + time[0] % ROWS)
    probability = leaves(state).ravel().astype(np.float64)
    probability /= probability.sum()
    counted = np.bincount(drawn.rows, minlength=ENVS * ROWS)
    # Each window fills its part of the strata but for one at either end.
    assert np.all(np.abs(counted - DRAWN * probability) <= 2)
    assert DRAWN * probability.max() > 100


def test_within_its_stratum_a_window_is_drawn_at_random(full: Any) -> None:
    buffer = ranked(batch_size=1)
    drawn = jax.vmap(lambda key: buffer.sample(key, full).rows[0])(jax.random.split(jax.random.key(0), 2000))
    probability = leaves(full).ravel().astype(np.float64)
    probability /= probability.sum()
    counted = np.bincount(drawn, minlength=probability.size)
    common = probability * 2000 > 5
    rest = lambda x: np.append(x[common], x[~common].sum())  # noqa: E731
    assert stats.chisquare(rest(counted), 2000 * rest(probability)).pvalue > 1e-3


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_undo_the_preference(many: Any, full: Any, beta: float) -> None:
    drawn = many.sample(jax.random.key(0), full, importance_exponent=beta)
    power = leaves(full).ravel().astype(np.float64)
    there = power > 0
    probability = power[there] / power.sum()
    assert int(many.num_valid(full)) == there.sum()
    weight = (1 / (there.sum() * probability)) ** beta
    taken = weight[np.searchsorted(np.flatnonzero(there), drawn.rows)]
    np.testing.assert_allclose(drawn.weight, taken / taken.max(), rtol=1e-5)
    assert float(drawn.weight.max()) == 1.0
    f = np.cos(np.arange(there.sum()))
    is_mean = np.isclose((probability * weight) @ f, f.mean(), atol=1e-6)
    assert is_mean == (beta == 1.0)


def test_an_update_changes_what_it_should(two: Any, full: Any) -> None:
    state = full
    before = leaves(state).copy()
    tiny = prioritized.SMALLEST_PRIORITY**ALPHA
    cases = [
        (0, 2.0, 2.0**ALPHA),
        (1, -3.0, 3.0**ALPHA),
        (4, 0.0, tiny),
        (5, np.nan, None),
        (6, np.inf, None),
        (2, 5.0, 0.0),
    ]
    index = jnp.array([row for row, _, _ in cases])
    new = two.update(state, index, jnp.array([priority for _, priority, _ in cases], jnp.float32))
    wanted = before.copy()
    for row, _, value in cases:
        wanted[0, row] = before[0, row] if value is None else value
    np.testing.assert_allclose(leaves(new), wanted, rtol=1e-6)
    assert_sums(new)
    assert before[0, 2] == 0
    assert float(new.greatest) == float(state.greatest)
    # The same window twice: the greater counts, in either order.
    for priority in ([3.0, 8.0, 5.0], [8.0, 5.0, 3.0]):
        twice = two.update(state, jnp.array([4, 4, 4]), jnp.array(priority))
        np.testing.assert_allclose(leaves(twice)[0, 4], 8.0**ALPHA, rtol=1e-6)


def test_no_rounding_leads_to_a_window_that_is_not_there(two: Any, full: Any) -> None:
    """After many updates over twelve orders of magnitude, every query ends at a window, those beyond the sum too."""
    there = np.flatnonzero(leaves(full))
    random = np.random.default_rng(0)
    index = jnp.asarray(random.choice(there, (3000, 8)))
    priority = jnp.asarray(10 ** random.uniform(-6, 6, (3000, 8)), jnp.float32)
    state = jax.jit(lambda s: jax.lax.scan(lambda s, x: (two.update(s, *x), None), s, (index, priority))[0])(full)
    assert_sums(state)
    query = np.concatenate([np.linspace(0, 1.001, 5001), np.nextafter(np.float32(1), np.float32([0, 2]))])
    found = prioritized._descend(state.node, jnp.asarray(query, jnp.float32) * state.node[1]) - state.node.size // 2
    assert set(np.asarray(found).tolist()) <= set(there.tolist())
    assert np.all(np.diff(np.asarray(found)[:-2]) >= 0)
    assert (found[0], found[-1]) == (there[0], there[-1])


def turn_of_ranked(buffer: Any) -> Any:
    def body(carry: Any, key: jax.Array) -> Any:
        state, start = carry
        one = rows(0, 3)
        state = buffer.add(state, one.replace(action=one.action + start, step=one.step + start))
        drawn = buffer.sample(key, state, 0.5)
        state = buffer.update(state, drawn.rows, drawn.window.reward[0] / 100)
        return (state, start + 3), (drawn.window.action, drawn.weight)

    return body


def test_a_prioritised_replay_is_scanned_mapped_and_saved(two: Any) -> None:
    body, keys = turn_of_ranked(two), jax.random.split(jax.random.key(0), 8).reshape(2, 4)
    start = two.init(rows(0, 1)), jnp.int32(0)
    together = jax.jit(jax.vmap(lambda keys: jax.lax.scan(body, start, keys)))(keys)
    step = jax.jit(body)
    for seed in range(2):
        carry, out = start, []
        for key in keys[seed]:
            data = flax.serialization.to_bytes(carry[0])
            carry = flax.serialization.from_bytes(two.init(rows(0, 1)), data), carry[1]
            carry, drawn = step(carry, key)
            out.append(drawn)
        one = carry, jax.tree.map(lambda *x: jnp.stack(x), *out)
        jax.tree.map(lambda x, y, seed=seed: np.testing.assert_allclose(x[seed], y, rtol=1e-6), together, one)


def test_memory_of_a_prioritised_replay_is_told_and_updated_in_place() -> None:
    buffer = ranked(obs_dtype="uint8")
    state, _ = filled(buffer, 3)
    size = buffer.num_bytes(rows(0, 1))
    assert size == sum(x.nbytes for x in jax.tree.leaves(state))
    assert state.node.size == 2 * 32  # the power of two from 21 on
    program = jax.jit(buffer.add, donate_argnums=0).lower(state, rows(3, 3)).compile()
    memory = program.memory_analysis()
    if memory is None:
        pytest.skip("this backend does not tell")
    assert memory.alias_size_in_bytes >= size - 9


def test_an_update_of_priorities_copies_no_tree() -> None:
    """In the loop of a large replay: what is set aside is less than one tree."""
    buffer = replay.make_prioritized_replay(num_envs=ENVS, capacity=300_000, batch_size=5)

    def body(state: Any, key: jax.Array) -> Any:
        drawn = buffer.sample(key, state)
        return buffer.update(state, drawn.rows, drawn.weight), None

    state, keys = jax.eval_shape(lambda: (buffer.init(rows(0, 1)), jax.random.split(jax.random.key(0), 3)))
    program = jax.jit(lambda *x: jax.lax.scan(body, *x)[0], donate_argnums=0).lower(state, keys).compile()
    memory = program.memory_analysis()
    if memory is None:
        pytest.skip("this backend does not tell")
    assert memory.temp_size_in_bytes < 4 * state.node.size


def test_a_prioritised_replay_refuses_what_it_cannot_use(two: Any, full: Any) -> None:
    state = two.init(rows(0, 1))
    with pytest.raises(ValueError, match="state holds 0 rows"):
        two.sample(jax.random.key(0), state)
    drawn = jax.jit(two.sample)(jax.random.key(0), state)
    assert not np.any(drawn.weight)
    state, index = full, jnp.arange(5)
    with pytest.raises(TypeError, match="rows must be an integer array"):
        two.update(state, index * 1.0, jnp.ones(5))
    with pytest.raises(ValueError, match="priority must have the shape of rows"):
        two.update(state, index, jnp.ones((5, 1)))
    with pytest.raises(TypeError, match="priority must have a floating dtype"):
        two.update(state, index, index)
    with pytest.raises(ValueError, match=r"importance_exponent must lie in \[0, 1\]"):
        two.sample(jax.random.key(0), state, importance_exponent=1.5)
    for call in (two.num_valid, lambda x: two.sample(jax.random.key(0), x), lambda x: two.add(x, rows(0, 3))):
        with pytest.raises(TypeError, match="state must be a PrioritizedState"):
            call(state.replay)
    with pytest.raises(ValueError, match=r"exponent must lie in \[0, 1\]"):
        replay.make_prioritized_replay(num_envs=3, capacity=9, batch_size=2, exponent=2.0)


def test_without_flashbax_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashbax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install pgjax\[replay\]"):
        replay.make_replay(num_envs=1, capacity=8, batch_size=2)
