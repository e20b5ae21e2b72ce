"""The contract of every public function: it jits, traces once, vmaps, keeps the dtype and differentiates.

A new public function needs a line in `CASES`, or one in `ELSEWHERE` that names the test which covers it.
"""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_surface import classes, functions, modules

import pgjax as pg
from pgjax._compile import compiled

T, B, FEATURES, ACTIONS = 5, 3, 2, 3
TESTS = pathlib.Path(__file__).parent

# Functions, or whole modules, whose arguments are not plain arrays: tests/test_<this>*.py or tests/<this>/ covers them.
ELSEWHERE = {
    "reference_gradient": "reference",
    "pair_statistics": "comparison",
    "merge_references": "reference",
    "compare_estimators": "comparison",
    "accumulate": "minibatch",
    "comparison": "comparison",
    "epochs": "minibatch",
    "estimator": "estimators",
    "evaluate": "rollout",
    "fold": "fold",
    "unroll_policy": "rollout",
    "distributions.action_from_noise": "distributions",
    "distributions.draw_noise": "distributions",
    "log_prob_of": "distributions",
    "distributions.sample_action": "distributions",
    "envs": "envs",
    "exact": "exact",
    "networks": "networks",
    "recipes": "recipes",
    "reference": "reference",
    "rollout.apply_policy": "rollout",
}


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

    def params(self) -> dict[str, jax.Array]:
        # Parameters stay in at least float32: the gradient has the dtype of the parameters.
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return {"actor": self.normal(FEATURES, ACTIONS).astype(dtype), "critic": self.normal(FEATURES).astype(dtype)}


def policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs @ params["actor"])


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


ENV, ENV_PARAMS = gymnax.make("CartPole-v1")


def cartpole_policy(params: Any, obs: Any) -> Any:
    return pg.Categorical(obs[..., :2] * params)


def start(d: Draw) -> pg.RolloutState:
    return pg.init_rollout(d.key(), ENV, ENV_PARAMS, num_envs=B)


def tree(d: Draw, *lead: int) -> dict[str, jax.Array]:
    return {"w": d.normal(*lead, 2, 2), "b": d.normal(*lead, 2)}


CASES: dict[str, Callable[[Draw], Case]] = {
    # returns
    "affine_recurrence": lambda d: Case((d.normal(T, B), d.uniform(T, B)), {"initial": d.normal(B)}),
    "discount_weight": lambda d: Case((d.integers(T, T, B), d.number()), smooth=False),
    "discounted_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), d.ends()),
    "n_step_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), d.ends(), {"n": 3}),
    "lambda_returns": lambda d: Case((d.normal(T, B), d.normal(T, B)), {**d.ends(), "lam": d.number()}),
    "gae": lambda d: Case((d.normal(T, B), d.normal(T, B), d.normal(T, B)), {**d.ends(), "lam": d.number()}),
    "vtrace": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)),
        {**d.ends(), "log_ratio": d.normal(T, B), "lam": d.number(), "clip_rho": 1 + d.number()},
    ),
    "retrace": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)),
        {**d.ends(), "log_ratio": d.normal(T, B), "lam": d.number()},
    ),
    "upgo": lambda d: Case(
        (d.normal(T, B), d.normal(T, B), d.normal(T, B)), {**d.ends(), "next_action_value": d.normal(T, B)}
    ),
    "bootstrap_values": lambda d: Case((d.params(), d.trajectory()), static={"value": value}),
    # baselines
    "leave_one_out": lambda d: Case((d.normal(T, B), d.bools(T, B))),
    "batch_mean": lambda d: Case((d.normal(T, B),)),
    "init_moving_mean": lambda d: Case(keeps_dtype=False, smooth=False),
    "moving_mean": lambda d: Case((pg.update_moving_mean(pg.init_moving_mean(), d.normal(B)),), keeps_dtype=False),
    "update_moving_mean": lambda d: Case(
        (pg.init_moving_mean(), d.normal(T, B)), {"decay": d.number()}, keeps_dtype=False, smooth=False
    ),
    "value_baseline": lambda d: Case((d.params(), d.trajectory()), static={"value": value}),
    # losses
    "policy_gradient_loss": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "ppo_clip_loss": lambda d: Case((d.normal(T, B), d.normal(T, B)), {"clip": d.number(), "clip_upper": d.number()}),
    "kl_penalty_loss": lambda d: Case(
        (d.normal(T, B), d.normal(T, B)), {"kl": d.uniform(T, B), "coefficient": d.number()}
    ),
    "value_loss": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "clipped_value_loss": lambda d: Case(
        (d.normal(T, B), d.normal(T, B)), {"old_value": d.normal(T, B), "clip": d.number()}
    ),
    "entropy_loss": lambda d: Case((d.uniform(T, B),)),
    "masked_mean": lambda d: Case((d.normal(T, B), d.bools(T, B))),
    "standardize": lambda d: Case((d.normal(T, B), d.bools(T, B)), {"eps": d.number()}),
    # estimators
    "likelihood_ratio": lambda d: Case(
        (d.params(), d.trajectory()), {"discount": d.number(), "baseline": d.normal(T, B)}, {"policy": policy}
    ),
    "reinforce": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "step_weight": d.uniform(T, B), "mask": d.bools(T, B)},
        {"policy": policy, "baseline": pg.leave_one_out},
    ),
    "gpomdp": lambda d: Case((d.params(), d.trajectory()), {"discount": d.number()}, {"policy": policy}),
    "actor_critic": lambda d: Case(
        (d.params(), d.trajectory()),
        {"discount": d.number(), "lam": d.number(), "value_coef": d.number(), "entropy_coef": d.number()},
        {"policy": policy, "value": value},
    ),
    # rollout: the environment computes in float32 whatever the parameters are
    "init_rollout": lambda d: Case((d.key(), ENV, ENV_PARAMS), static={"num_envs": B}, keeps_dtype=False, smooth=False),
    "rollout": lambda d: Case(
        (d.key(), d.normal(), start(d)),
        static={"policy": cartpole_policy, "env": ENV, "env_params": ENV_PARAMS, "num_steps": T},
        keeps_dtype=False,
        smooth=False,
    ),
    # minibatch
    "permutation": lambda d: Case((d.key(),), static={"size": 11}, smooth=False),
    # diagnostics
    "diagnostics.approximate_kl": lambda d: Case((d.normal(T, B),)),
    "diagnostics.bound_fraction": lambda d: Case((d.normal(T, B),), smooth=False),
    "diagnostics.lost_gradient_fraction": lambda d: Case((d.normal(T, B), d.normal(T, B)), smooth=False),
    "diagnostics.clip_fraction": lambda d: Case((d.normal(T, B),), {"clip": d.number()}),
    "diagnostics.cosine": lambda d: Case((tree(d), tree(d))),
    "diagnostics.effective_sample_size": lambda d: Case((d.normal(T, B),)),
    "diagnostics.explained_variance": lambda d: Case((d.normal(T, B), d.normal(T, B))),
    "diagnostics.gradient_variance": lambda d: Case((tree(d, B),)),
    "diagnostics.pairwise_cosine": lambda d: Case((tree(d, B),)),
    "diagnostics.signal_to_noise": lambda d: Case((tree(d, B),)),
}

DISTRIBUTIONS: dict[str, Callable[[Draw], Any]] = {
    "Bernoulli": lambda d: pg.Bernoulli(d.normal(B, ACTIONS)),
    "Beta": lambda d: pg.Beta(1 + d.uniform(B, 2), 1 + d.uniform(B, 2)),
    "Categorical": lambda d: pg.Categorical(d.normal(B, ACTIONS)),
    "MultiCategorical": lambda d: pg.MultiCategorical((d.normal(B, ACTIONS), d.normal(B, 2))),
    "Normal": lambda d: pg.Normal(d.normal(B, 2), d.uniform(B, 2)),
    "TanhNormal": lambda d: pg.TanhNormal(d.normal(B, 2), d.uniform(B, 2)),
}

every_case = pytest.mark.parametrize("name", CASES)
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


def static_positions(case: Case) -> set[int]:
    """Positional arguments that are no pytree of arrays, such as an environment."""
    return {i for i, x in enumerate(case.args) if x is ENV or x is ENV_PARAMS}


def split(case: Case) -> tuple[Any, Callable[[Any], Any]]:
    """What varies from draw to draw, and a function that puts it back among the arguments."""
    fixed = static_positions(case)
    dynamic = ([x for i, x in enumerate(case.args) if i not in fixed], case.kwargs)

    def arguments(dynamic: Any) -> tuple[list[Any], dict[str, Any]]:
        moving = iter(dynamic[0])
        return [x if i in fixed else next(moving) for i, x in enumerate(case.args)], dynamic[1]

    return dynamic, arguments


def caller(name: str, case: Case) -> Callable[[Any], Any]:
    """The function of one pytree, its varying arguments."""
    function, (_, arguments) = functions()[name], split(case)

    def call(dynamic: Any) -> Any:
        args, kwargs = arguments(dynamic)
        return function(*args, **kwargs, **case.static)

    return call


def compiled_part(function: Any) -> Any:
    """The jitted function behind a public one."""
    return function.jitted if hasattr(function, "jitted") else function._mean.jitted


def raw(x: Any) -> Any:
    """Random keys as numbers, so that they can be compared."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, x)


def is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)


def assert_close(actual: Any, desired: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), raw(actual), raw(desired))


def stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def test_all_is_sorted_unique_and_importable() -> None:
    assert pg.__all__ == sorted(set(pg.__all__))
    assert all(hasattr(pg, name) for name in pg.__all__)
    for name, module in modules().items():
        assert module.__doc__, f"{name} has no docstring"
        assert all(hasattr(module, public) for public in getattr(module, "__all__", ())), name


def test_every_public_function_is_covered_here_or_elsewhere() -> None:
    in_module = {name for name in functions() if name.split(".")[0] in ELSEWHERE}
    missing = set(functions()) - set(CASES) - set(ELSEWHERE) - in_module
    assert not missing, f"add to CASES: {sorted(missing)}"
    unknown = set(CASES) - set(functions())
    assert not unknown, f"no such function: {sorted(unknown)}"


def test_every_distribution_is_covered() -> None:
    public = {
        name
        for name in classes()
        if hasattr(classes()[name], "log_prob") and "Protocol" not in str(classes()[name].__mro__)
    }
    assert {name.split(".")[-1] for name in public} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("subject", sorted(set(ELSEWHERE.values())))
def test_what_is_covered_elsewhere_has_a_test_there(subject: str) -> None:
    used = [name for name, where in ELSEWHERE.items() if where == subject]
    if any(public == name or public.startswith(f"{name}.") for name in used for public in functions()):
        assert (TESTS / subject).is_dir() or any(TESTS.rglob(f"test_{subject}*.py")), f"no test of {used}"


@pytest.mark.parametrize("name", functions())
def test_at_most_three_positional_arguments(name: str) -> None:
    parameters = inspect.signature(functions()[name]).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 3


@every_case
def test_jit_agrees_with_eager(name: str) -> None:
    case = CASES[name](Draw(0))
    dynamic, call = split(case)[0], caller(name, case)
    assert_close(jax.jit(call)(dynamic), call(dynamic))


@every_case
def test_traces_once_for_one_set_of_shapes(name: str) -> None:
    jitted = compiled_part(functions()[name])
    jitted.clear_cache()
    for seed in range(3):
        case = CASES[name](Draw(seed))
        caller(name, case)(split(case)[0])
    assert jitted._cache_size() == 1


def test_the_count_of_traces_sees_a_number_that_was_compiled_in() -> None:
    scaled = compiled("scale")(lambda x, *, scale: x * scale)
    for scale in (0.1, 0.2):
        scaled(jnp.ones(2), scale=scale)
    assert scaled.jitted._cache_size() == 2


@every_case
def test_vmap_agrees_with_a_loop(name: str) -> None:
    cases = [CASES[name](Draw(seed)) for seed in range(3)]
    call, inputs = caller(name, cases[0]), [split(case)[0] for case in cases]
    batched = stack(inputs)
    if not jax.tree.leaves(batched):
        pytest.skip("takes no arguments")
    assert_close(jax.vmap(call)(batched), stack([call(dynamic) for dynamic in inputs]))


def float_dtypes(name: str, dtype: Any) -> set[Any]:
    """The floating dtypes among the results, when the floating arguments have the given one."""
    case = CASES[name](Draw(0, dtype))
    out = jax.eval_shape(caller(name, case), split(case)[0])
    return {leaf.dtype for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@every_case
def test_low_precision_comes_out_as_float32(name: str) -> None:
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert float_dtypes(name, dtype) <= {jnp.dtype(jnp.float32)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name](Draw(0)).keeps_dtype])
def test_double_precision_is_kept(name: str) -> None:
    assert float_dtypes(name, jnp.float64) <= {jnp.dtype(jnp.float64)}


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name](Draw(0)).smooth])
def test_gradients_are_finite_and_reach_an_argument(name: str) -> None:
    case = CASES[name](Draw(0))
    call = caller(name, case)
    leaves, structure = jax.tree.flatten(split(case)[0])
    at = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

    def total(floats: list[Any]) -> Any:
        changed = dict(zip(at, floats, strict=True))
        out = call(jax.tree.unflatten(structure, [changed.get(i, leaf) for i, leaf in enumerate(leaves)]))
        # Without the sine, a sum that is constant by construction (of standardised numbers, say) has no gradient.
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out) if is_float(leaf))

    grads = jax.grad(total)([leaves[i] for i in at])
    assert all(np.isfinite(g).all() for g in grads)
    constant = name in {"value_baseline", "diagnostics.clip_fraction"}  # a baseline and a count are constants
    assert any(np.any(g != 0) for g in grads) != constant


@every_distribution
def test_distribution_is_a_pytree_that_keeps_the_dtype(name: str) -> None:
    make = DISTRIBUTIONS[name]
    key = jax.random.key(0)

    def act(distribution: Any) -> Any:
        action, log_prob = distribution.sample_and_log_prob(key)
        return action, log_prob, distribution.entropy()

    for dtype in (jnp.bfloat16, jnp.float32):
        _, log_prob, entropy = jax.eval_shape(act, make(Draw(0, dtype)))
        assert log_prob.dtype == entropy.dtype == jnp.float32
    with jax.enable_x64(True):
        _, log_prob, entropy = jax.eval_shape(act, make(Draw(0, jnp.float64)))
        assert log_prob.dtype == entropy.dtype == jnp.float64
    assert_close(jax.jit(act)(make(Draw(0))), act(make(Draw(0))))
    several = [make(Draw(seed)) for seed in range(3)]
    assert_close(jax.vmap(act)(stack(several)), stack([act(one) for one in several]))
