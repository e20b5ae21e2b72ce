"""What the example arguments of the contract test are drawn from, and the form of a case."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg

T, B, FEATURES, ACTIONS = 5, 3, 2, 4


class Case(NamedTuple):
    """Example arguments of one function. Arrays and numbers differ from draw to draw, `static` does not."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  nobody writes to it
    static: dict[str, Any] = {}  # noqa: RUF012
    keeps_dtype: bool = True  # False where the docstring promises float32 whatever comes in
    smooth: bool = True  # whether gradients with respect to the floating arguments make sense


class Draw:
    """Random arguments of a given floating dtype."""

    def __init__(self, seed: int, dtype: Any = jnp.float32):
        self.random = np.random.default_rng(seed)
        self.dtype = dtype

    def normal(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.normal(size=shape), self.dtype)

    def uniform(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.uniform(0.1, 0.9, size=shape), self.dtype)

    def increasing(self, size: int) -> jax.Array:
        return jnp.arange(size, dtype=self.dtype) - 1 + self.uniform(size) / 4

    def bools(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.random(shape) < 0.3)

    def integers(self, below: int, *shape: int) -> jax.Array:
        return jnp.asarray(self.random.integers(below, size=shape), jnp.int32)

    def number(self) -> float:
        """A Python number in [0, 1], which must not be compiled in."""
        return float(self.random.uniform(0.1, 0.9))

    def key(self) -> jax.Array:
        return jax.random.key(int(self.random.integers(1 << 30)))

    def ends(self) -> dict[str, Any]:
        return {"terminated": self.bools(T, B), "truncated": self.bools(T, B), "discount": self.number()}

    def trajectory(self) -> pg.Trajectory:
        return pg.Trajectory(
            obs=self.normal(T, B, FEATURES),
            action=self.integers(ACTIONS, T, B),
            reward=self.normal(T, B),
            next_obs=self.normal(T, B, FEATURES),
            terminated=self.bools(T, B),
            truncated=self.bools(T, B),
            log_prob=self.normal(T, B),
            step=self.integers(T, T, B),
        )

    def transition(self) -> pg.Transition:
        return pg.Transition(
            obs=self.normal(B, FEATURES),
            action=self.integers(ACTIONS, B),
            reward=self.normal(B),
            discount=self.uniform(B),
            next_obs=self.normal(B, FEATURES),
        )

    def params(self) -> dict[str, jax.Array]:
        # Parameters stay in at least float32: the gradient has the dtype of the parameters.
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return {"actor": self.normal(FEATURES, ACTIONS).astype(dtype), "critic": self.normal(FEATURES).astype(dtype)}


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


def tree(d: Draw, *lead: int) -> dict[str, jax.Array]:
    return {"w": d.normal(*lead, 2, 2), "b": d.normal(*lead, 2)}
