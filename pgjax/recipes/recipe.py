"""What recipes share: nothing of an algorithm, only how a run is called, counted, driven and saved."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax._types import Policy, RolloutState, Value
from pgjax.recipes.hyper import check_hyper

Array = jax.Array
Metrics = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Recipe:
    """A training run as pure functions: call it whole, or drive `init` and `update` from a loop of your own.

        state = init(key, **hyper);   state, metrics = update(state), num_updates times

    Shapes: metrics of `update` scalars, of a call [num_updates].

    Args:
        init: init(key, **hyper) -> state.
        update: update(state) -> (state, metrics).
        num_updates: updates of the whole run.
        policy: policy(state.params, obs) -> distribution, as it was trained.
        value: value(state.params, obs) -> [...], or None.

    Returns:
        A callable: recipe(key, **hyper) -> (state, metrics). It, `init` and `update` are compiled once where they are
        called eagerly, and inline in a jit of the caller's own; all three may be vmapped.

    Raises:
        TypeError: by a call, for a hyper-parameter that the recipe does not have or that is no number.
        ValueError: by a call, for a hyper-parameter outside its range.
    """

    init: Callable[..., Any]
    update: Callable[[Any], tuple[Any, Metrics]]
    num_updates: int
    policy: Policy
    value: Value | None = None

    def __post_init__(self) -> None:
        """Compile what was given."""
        register_keys()
        init, update = self.init, self.update
        compiled_init = jax.jit(init, inline=True)

        @functools.wraps(init)
        def checked_init(key: Array, **hyper: Any) -> Any:
            return compiled_init(typed(key), **check_hyper(hyper))

        def run(key: Array, hyper: dict[str, Any]) -> tuple[Any, Metrics]:
            return jax.lax.scan(lambda state, _: update(state), init(key, **hyper), length=self.num_updates)

        object.__setattr__(self, "init", checked_init)
        object.__setattr__(self, "update", jax.jit(update, inline=True))
        object.__setattr__(self, "_run", jax.jit(run, inline=True))
        object.__setattr__(self, "_advance", {})

    def __call__(self, key: Array, **hyper: Any) -> tuple[Any, Metrics]:
        """Train from start to end: (state, metrics with leaves [num_updates])."""
        return self._run(typed(key), check_hyper(hyper))  # type: ignore[attr-defined]


def train(
    recipe: Recipe,
    state: Any,
    *,
    every: int,
    report: Callable[[Any, dict[str, Any]], Any] | None = None,
    progress: bool | None = None,
    donate: bool = False,
) -> Any:
    """Train on from a state, `every` updates at a time, with a progress bar and a report between them.

        until state.update = num_updates: state, metrics = every updates; report(state, metrics)

    Shapes: metrics NumPy arrays [every], fewer in the last report if every does not divide what is left.

    Args:
        recipe: what to train, from a ``make_train``.
        state: from recipe.init, from a report, or read back from a file. With leading axes, as
            jax.vmap(recipe.init) gives it, the runs go side by side and metrics are [every, *axes].
        every: updates in one compiled program, at least 1.
        report: report(state, metrics) may log, save, evaluate; if what it returns is true, training stops there.
        progress: whether to show a bar (tqdm, extra `progress`); None shows one where tqdm is installed.
        donate: whether each state given up to train and to report may be overwritten. It halves the memory; the caller
            must then not use the state it handed in, and report must not keep the one it saw.

    Returns:
        The state after the last update.

    Raises:
        TypeError: if every is not an int, or if an array of the state has another dtype than recipe.init gives it.
        ValueError: if every < 1, or if the runs of a batch have done different numbers of updates.
        ImportError: if progress is True and tqdm is not installed.
    """
    every = _checks.as_positive_int("every", every)
    updates = np.unique(jax.device_get(state.update))
    if updates.size != 1:
        raise ValueError(f"state.update must be one number for all runs, got {updates.tolist()}. Train them apart.")
    _require_dtypes(recipe, state)
    done = int(updates[0])
    with _progress_bar(progress, done, recipe.num_updates) as bar:
        while done < recipe.num_updates:
            count = min(every, recipe.num_updates - done)
            state, metrics = _advance(recipe, state.update.ndim, count, donate)(state)
            metrics = jax.device_get(metrics)
            done += count
            bar.set_postfix(
                {name: f"{np.mean(metrics[name][-1]):.4g}" for name in ("episode_return",) if name in metrics}
            )
            bar.update(count)
            if report is not None and report(state, metrics):
                break
    return state


def _require_dtypes(recipe: Recipe, state: Any) -> None:
    """Compare a state with what init makes: what was read back in other dtypes would fail deep in an update, or not."""
    try:
        made = jax.eval_shape(recipe.init, jax.random.key(0))
    except TypeError:  # an init of the user's own may need more than a key
        return
    wanted = dict(jax.tree_util.tree_leaves_with_path(made))
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        dtype = jnp.result_type(x)
        if path not in wanted or jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == wanted[path].dtype:
            continue
        raise TypeError(
            f"state{jax.tree_util.keystr(path)} must have the dtype {wanted[path].dtype} that recipe.init gives it, "
            f"got {dtype}. Read a state back into recipe.init(key), in the same mode of 64 bits, and change no dtype."
        )


def _advance(recipe: Recipe, ndim: int, count: int, donate: bool) -> Callable[[Any], tuple[Any, Metrics]]:
    """The program of `count` updates, compiled once for each recipe."""
    programs = recipe._advance  # type: ignore[attr-defined]
    if (ndim, count, donate) not in programs:
        update = recipe.update
        for _ in range(ndim):
            update = jax.vmap(update)
        many = lambda state: jax.lax.scan(lambda state, _: update(state), state, length=count)  # noqa: E731
        programs[ndim, count, donate] = jax.jit(many, donate_argnums=0 if donate else ())
    return cast(Callable[[Any], tuple[Any, Metrics]], programs[ndim, count, donate])


class _NoBar:
    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *_: Any) -> None: ...
    def set_postfix(self, _: Any) -> None: ...
    def update(self, _: int) -> None: ...


def _progress_bar(progress: bool | None, done: int, total: int) -> Any:
    if progress is False:
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError as error:
        if progress:
            raise ImportError(
                "progress=True needs tqdm: pip install pgjax[progress], or pass progress=False."
            ) from error
        return _NoBar()
    return tqdm(initial=done, total=total, unit="update")


def count_updates(total_steps: int, *, num_envs: int, num_steps: int) -> int:
    """Count the whole updates of a run.

        floor(total_steps / (num_envs · num_steps))

    Shapes: Python ints.

    Args:
        total_steps: environment steps of the run over all environments.
        num_envs: environments side by side.
        num_steps: environment steps of each in one update.

    Returns:
        The number of updates, at least 1.

    Raises:
        TypeError: if one is not an int.
        ValueError: if one is below 1, or if total_steps does not allow one update.
    """
    steps = _checks.as_positive_int("num_envs", num_envs) * _checks.as_positive_int("num_steps", num_steps)
    if _checks.as_positive_int("total_steps", total_steps) < steps:
        raise ValueError(
            f"total_steps must allow one update of num_envs * num_steps = {steps} steps, got {total_steps}."
        )
    return total_steps // steps


def require_divisor(name: str, count: int, rows: int) -> None:
    """Check where it is given that a number of parts divides what it parts.

    Shapes: Python ints.

    Args:
        name: the argument.
        count: its value.
        rows: what it must divide.

    Raises:
        TypeError: if count is not an int.
        ValueError: if count < 1 or does not divide rows.
    """
    if rows % _checks.as_positive_int(name, count):
        raise ValueError(f"{name}={count} must divide the {rows} rows that are shuffled. Choose a divisor of {rows}.")


def episode_metrics(rollout: RolloutState) -> Metrics:
    """Summarise the episodes that ended last in each environment.

        mean over environments of the return of its latest whole episode

    Shapes: rollout leaves [B, ...]; scalars.

    Args:
        rollout: the state after a rollout.

    Returns:
        `episode_return`, undiscounted, reward units; NaN until every environment has finished an episode: those that
        end first are short, and their mean is not that of the policy. `finished`, share of environments that have.
    """
    return {
        "episode_return": jnp.mean(rollout.episode_return),
        "finished": jnp.mean(~jnp.isnan(rollout.episode_return), dtype=jnp.float32),
    }


def typed(key: Array) -> Array:
    """Make a typed key of one of the old form, uint32; a typed one is passed on, so that recipes meet no other."""
    return key if jnp.issubdtype(jnp.result_type(key), jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


@functools.cache
def register_keys() -> None:
    """Let flax.serialization write typed keys as their data; it refuses them, and a state that holds one.

    Done by each `Recipe` and host's loop. It asks for the device's keys, which an import must not.
    """
    with contextlib.suppress(ValueError):  # somebody else has done it already
        flax.serialization.register_serialization_state(
            type(jax.random.key(0)),
            jax.random.key_data,
            lambda key, data: jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(key)),
        )
