"""Replay with priorities against a table of them: what is drawn how often, what an update changes, what is refused."""

from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_rows import ADDED, ENVS, ROWS, expected, filled, rows, valid, where
from scipy import stats

from pgjax import replay
from pgjax.replay import prioritized

pytestmark = pytest.mark.usefixtures("quick_to_compile")

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
