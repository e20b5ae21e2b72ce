"""Returns and advantages written a second time: NumPy, float64, one episode at a time, one sum for each step.

Every function takes a window of one environment, [T] arrays, and gives [T]. `discount` and `lam` may be [T].
"""

from typing import Any

import numpy as np

Array = np.ndarray


def episodes(terminated: Array, truncated: Array) -> list[range]:
    """The steps of each episode, or part of one, inside the window."""
    ends = [t for t in range(len(terminated)) if terminated[t] or truncated[t] or t == len(terminated) - 1]
    return [range(a, b + 1) for a, b in zip([0, *(t + 1 for t in ends)], ends, strict=False)]


def _product(x: Array) -> float:
    return float(np.prod(x)) if len(x) else 1.0


def _after(t: int, steps: range) -> range:
    return range(t, steps.stop)


def _td_error(reward: Array, value: Array, next_value: Array, terminated: Array, discount: Array) -> Array:
    return reward + discount * np.where(terminated, 0.0, next_value) - value


def n_step(reward: Array, next_value: Array, *, terminated: Array, truncated: Array, discount: Array, n: int) -> Array:
    out = np.zeros(len(reward))
    for steps in episodes(terminated, truncated):
        for t in steps:
            last = min(t + n - 1, steps.stop - 1)
            out[t] = sum(_product(discount[t:k]) * reward[k] for k in range(t, last + 1))
            if not terminated[last]:
                out[t] += _product(discount[t : last + 1]) * next_value[last]
    return out


def discounted(reward: Array, next_value: Array, **masks: Any) -> Array:
    return n_step(reward, next_value, n=len(reward), **masks)


def lambda_return(reward: Array, next_value: Array, *, lam: Array, **masks: Any) -> Array:
    """The mixture of n-step returns: the weight of n is (1 - lam) at its last step times lam before it."""
    out = np.zeros(len(reward))
    mixed = [n_step(reward, next_value, n=n, **masks) for n in range(1, len(reward) + 1)]
    for steps in episodes(masks["terminated"], masks["truncated"]):
        for t in steps:
            for k in _after(t, steps):
                stop = 1.0 if k == steps.stop - 1 else 1.0 - lam[k]
                out[t] += _product(lam[t:k]) * stop * mixed[k - t][t]
    return out


def gae(
    reward: Array, value: Array, next_value: Array, *, terminated: Array, truncated: Array, discount: Array, lam: Array
) -> Array:
    delta = _td_error(reward, value, next_value, terminated, discount)
    out = np.zeros(len(reward))
    for steps in episodes(terminated, truncated):
        for t in steps:
            out[t] = sum(_product(discount[t:k] * lam[t:k]) * delta[k] for k in _after(t, steps))
    return out


def vtrace(
    reward: Array,
    value: Array,
    next_value: Array,
    *,
    log_ratio: Array,
    terminated: Array,
    truncated: Array,
    discount: Array,
    lam: Array,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
    clip_pg_rho: float = 1.0,
) -> tuple[Array, Array]:
    ratio = np.exp(log_ratio)
    delta = np.minimum(clip_rho, ratio) * _td_error(reward, value, next_value, terminated, discount)
    trace = lam * np.minimum(clip_c, ratio)
    target, advantage = value.copy(), np.zeros(len(reward))
    for steps in episodes(terminated, truncated):
        for t in steps:
            target[t] += sum(_product(discount[t:k] * trace[t:k]) * delta[k] for k in _after(t, steps))
    for steps in episodes(terminated, truncated):
        for t in steps:
            last = t == steps.stop - 1
            follow = next_value[t] if last else lam[t] * target[t + 1] + (1 - lam[t]) * next_value[t]
            advantage[t] = reward[t] + discount[t] * (0.0 if terminated[t] else follow) - value[t]
    return target, np.minimum(clip_pg_rho, ratio) * advantage


def retrace(
    reward: Array,
    action_value: Array,
    next_state_value: Array,
    *,
    log_ratio: Array,
    terminated: Array,
    truncated: Array,
    discount: Array,
    lam: Array,
) -> Array:
    trace = lam * np.minimum(1.0, np.exp(log_ratio))
    delta = _td_error(reward, action_value, next_state_value, terminated, discount)
    out = action_value.copy()
    for steps in episodes(terminated, truncated):
        for t in steps:
            out[t] += sum(_product(discount[t:k] * trace[t + 1 : k + 1]) * delta[k] for k in _after(t, steps))
    return out


def upgo(
    reward: Array, value: Array, next_value: Array, *, terminated: Array, truncated: Array, discount: Array
) -> Array:
    action_value = reward + discount * np.where(terminated, 0.0, next_value)
    out = np.zeros(len(reward))
    for steps in episodes(terminated, truncated):
        for t in steps:
            weight = 1.0
            for k in _after(t, steps):
                if k == steps.stop - 1 or action_value[k + 1] < value[k + 1]:
                    out[t] += weight * action_value[k]
                    break
                out[t] += weight * reward[k]
                weight *= discount[k]
    return out
