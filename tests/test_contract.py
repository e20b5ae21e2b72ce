"""The contract of every public function: it jits, traces once, vmaps, keeps the dtype and differentiates.

A new public function needs a line in `CASES` of contract_cases.py (an estimator in `ESTIMATORS` of
contract_estimators.py), or one in `NOT_PLAIN` that says why it has none. Either way the tests of its own room must call
it.
"""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import CASES, DISTRIBUTIONS, caller, result_shapes, split
from contract_draws import Draw
from public_surface import classes, functions, home, modules, used_in_the_tests_of

import pgjax as pg
from pgjax._compile import compiled

# Rooms, and single functions, whose arguments are not plain arrays, and what they take or give instead.
NOT_PLAIN = {
    "certify": "estimators and problems",
    "comparison": "functions of a key",
    "compare_estimators": "functions of a key",
    "pair_statistics": "functions of a key",
    "envs": "environments",
    "exact": "processes; tests/exact holds each to a second derivation",
    "expectation": "distributions and functions of an action",
    "natural": "policies and gradients",
    "networks": "Flax modules",
    "recipes": "environments",
    "reference": "functions of a key",
    "replay": "sizes; make functions of a state",
    "reference_gradient": "functions of a key",
    "merge_references": "references",
    "accumulate": "a function",
    "epochs": "a function",
    "estimator": "a function",
    "evaluate": "an environment",
    "branch_returns": "an environment",
    "pathwise_gradient": "an environment",
    "rollout_noise": "an environment",
    "rollout_with_states": "an environment",
    "scale_by_storm": "a schedule; makes a transformation",
    "scale_by_svrpg": "makes a transformation",
    "unroll_policy": "a recurrent policy",
    "hessian_vector_product": "a function",
    "linearized_critic": "a function",
    "distributions.action_from_noise": "distributions",
    "distributions.draw_noise": "distributions",
    "sample_action": "distributions",
    "exploration.spread_of_scales": "Python numbers",
    "distributions.tempered": "distributions",
}
# Not compiled by themselves.
NOT_COMPILED = {
    "expectation.gradient_only": "one subtraction",
    "action_distribution": "stands in a loss; its result holds whatever the policy made",
    "log_prob_taken": "stands in a loss",
    "log_prob_of": "stands in a loss",
    "factor_log_probs": "stands in a loss",
}

# Smooth, and yet without a gradient on purpose: a baseline, a count, the weights of a likelihood.
CONSTANT = {
    "value_baseline",
    "median_bandwidth",
    "diagnostics.clip_fraction",
    "exponential_weight",
    "binary_weight",
    "softmax_weight",
    "td_target",
    "categorical_target",
    "hl_gauss_target",
}

pytestmark = pytest.mark.usefixtures("quick_to_compile")

every_case = pytest.mark.parametrize("name", CASES)
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)


def raw(x: Any) -> Any:
    """Random keys as numbers, so that they can be compared."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, x)


def is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)


def assert_close(actual: Any, desired: Any) -> None:
    chex.assert_trees_all_close(raw(actual), raw(desired), rtol=2e-5, atol=2e-5)


def stack(trees: list[Any]) -> Any:
    """On the host, where no shape needs a program of its own."""
    return jax.tree.map(lambda *x: jnp.stack(x) if is_key(x[0]) else np.stack([np.asarray(leaf) for leaf in x]), *trees)


@functools.cache
def gradient_and_result(name: str) -> Any:
    """The gradient of a sum of the result, where it is smooth, and the result: one program, a caller's jit."""
    case = CASES[name](Draw(0))
    call, dynamic = caller(name, case), split(case)[0]
    at = [i for i, leaf in enumerate(jax.tree.leaves(dynamic)) if is_float(leaf)]

    def run(dynamic: Any) -> Any:
        if not case.smooth:
            return [], call(dynamic)
        leaves, structure = jax.tree.flatten(dynamic)

        def total(floats: list[Any]) -> Any:
            changed = dict(zip(at, floats, strict=True))
            out = call(jax.tree.unflatten(structure, [changed.get(i, leaf) for i, leaf in enumerate(leaves)]))
            # Without the sine, a sum that is constant by construction (of standardised numbers, say) has no gradient.
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out) if is_float(leaf)), out

        return jax.grad(total, has_aux=True)([leaves[i] for i in at])

    return jax.jit(run)(dynamic)


def test_all_is_sorted_unique_and_importable() -> None:
    assert pg.__all__ == sorted(set(pg.__all__))
    assert all(hasattr(pg, name) for name in pg.__all__)
    for name, module in modules().items():
        assert module.__doc__, f"{name} has no docstring"
        assert all(hasattr(module, public) for public in getattr(module, "__all__", ())), name


def test_every_public_function_has_a_case_or_a_reason() -> None:
    excused = {name for name in functions() if name in NOT_PLAIN or name.split(".")[0] in NOT_PLAIN}
    missing = set(functions()) - set(CASES) - excused
    assert not missing, f"add to CASES: {sorted(missing)}"
    unknown = set(CASES) - set(functions())
    assert not unknown, f"no such function: {sorted(unknown)}"
    rooms = {name.removeprefix("pgjax.") for name in modules()}
    stale = set(NOT_PLAIN) - set(functions()) - rooms
    assert not stale, f"neither a function nor a room: {sorted(stale)}"


def test_every_distribution_is_covered() -> None:
    public = {name for name, x in classes().items() if hasattr(x, "log_prob") and "Protocol" not in str(x.__mro__)}
    public = {name for name in public if not name.startswith("exploration.")}  # those act, and nothing more
    assert {name.split(".")[-1] for name in public} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("room", sorted({home(x) for x in functions().values()}))
def test_every_public_function_is_called_in_the_tests_of_its_room(room: str) -> None:
    used = used_in_the_tests_of(room)
    missing = [name for name, x in functions().items() if home(x) == room and id(x) not in used]
    assert not missing, f"no test of {room} calls {missing}"


@pytest.mark.parametrize("name", functions())
def test_at_most_three_positional_arguments(name: str) -> None:
    parameters = inspect.signature(functions()[name]).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) <= 3


@every_case
def test_jit_agrees_with_eager(name: str) -> None:
    """Eager means operation by operation: public functions compile themselves, and would agree with themselves."""
    case = CASES[name](Draw(0))
    dynamic, call = split(case)[0], caller(name, case)
    with jax.disable_jit():
        eager = call(dynamic)
    assert_close(gradient_and_result(name)[1], eager)


@every_case
def test_traces_once_for_one_set_of_shapes(name: str) -> None:
    if name in NOT_COMPILED:
        assert not hasattr(functions()[name], "jitted")
        return
    jitted = functions()[name].jitted  # type: ignore[attr-defined]
    known = []
    for seed in (0, 10, 11):  # the last two are drawn by no other test
        case = CASES[name](Draw(seed))
        caller(name, case)(split(case)[0])
        known.append(jitted._cache_size())
    assert known[0] > 0
    assert set(known) == {known[0]}


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
    return {
        leaf.dtype for leaf in jax.tree.leaves(result_shapes(name, case)) if jnp.issubdtype(leaf.dtype, jnp.floating)
    }


@pytest.mark.parametrize("name", [name for name in CASES if name != "as_groups"])  # which only gives axes another form
def test_low_precision_comes_out_as_float32(name: str) -> None:
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert float_dtypes(name, dtype) <= {jnp.dtype(jnp.float32)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name](Draw(0)).keeps_dtype])
def test_double_precision_is_kept(name: str) -> None:
    assert float_dtypes(name, jnp.float64) <= {jnp.dtype(jnp.float64)}


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name](Draw(0)).smooth])
def test_gradients_are_finite_and_reach_an_argument(name: str) -> None:
    grads = gradient_and_result(name)[0]
    assert all(np.isfinite(g).all() for g in grads)
    constant = name in CONSTANT
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
    assert_close(jax.jit(jax.vmap(act))(stack(several)), stack([act(one) for one in several]))
