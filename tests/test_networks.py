"""Networks: any leading axes, dtypes, how they start, heads. One program for each network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, TanhNormal
from pgjax.networks import (
    MLP,
    ActorCritic,
    BernoulliPolicy,
    BetaPolicy,
    ContinuousQNetwork,
    ConvActorCritic,
    DiscretePolicy,
    Ensemble,
    Features,
    GaussianPolicy,
    QNetwork,
    RecurrentActorCritic,
    TanhGaussianPolicy,
    ValueNetwork,
)
from pgjax.networks.initialization import orthogonal

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(0)
VECTOR, IMAGE = (4,), (10, 10, 3)
# Each network, with the shapes of its inputs and of its arrays out, all without batch axes.
NETWORKS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...], list[tuple[int, ...]]]] = {
    "mlp": (MLP((8,), 5), (VECTOR,), [(5,)]),
    "value": (ValueNetwork((8,)), (VECTOR,), [()]),
    "q": (QNetwork(3, (8,)), (VECTOR,), [(3,)]),
    "continuous_q": (ContinuousQNetwork((8,)), (VECTOR, (2,)), [()]),
    "actor_critic": (ActorCritic(DiscretePolicy(3), (8,)), (VECTOR,), [(3,), ()]),
    "conv": (ConvActorCritic(DiscretePolicy(3), (4,), (8,)), (IMAGE,), [(3,), ()]),
    "recurrent": (RecurrentActorCritic(DiscretePolicy(3), 6, (8,)), (VECTOR, (6,)), [(3,), (), (6,)]),
    "recurrent_conv": (
        RecurrentActorCritic(DiscretePolicy(3), 6, (8,), channels=(4,)), (IMAGE, (6,)), [(3,), (), (6,)]
    ),
}  # fmt: skip
# The gain of every kernel, by what its path contains; the first that matches holds.
GAINS = [("head", 0.01), ("Head", 1.0), ("critic/Dense", 1.0), ("memory", 1.0), ("", np.sqrt(2.0))]


class Played(NamedTuple):
    """What one program tells of a network."""

    params: Any
    whole: Any  # for inputs [3, 2, ...]
    rows: Any  # for the same, row by row
    rounded: Any  # for the same, hidden layers in bfloat16


@functools.cache
def played(name: str) -> Played:
    model, shapes, _ = NETWORKS[name]

    @jax.jit
    def run(x: list[Any]) -> Played:
        params = model.init(KEY, *(a[0, 0] for a in x))
        rows = jax.lax.map(lambda row: model.apply(params, *row), [a.reshape(6, *a.shape[2:]) for a in x])
        return Played(
            params,
            model.apply(params, *x),
            jax.tree.map(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), rows),
            model.clone(dtype=jnp.bfloat16).apply(params, *x),
        )

    return run([np.random.default_rng(i).normal(size=(3, 2, *s)).astype(np.float32) for i, s in enumerate(shapes)])


def close(a: Any, b: Any, **kwargs: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **kwargs)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_leading_axes_equal_row_by_row(name: str) -> None:
    result = played(name)
    assert [leaf.shape for leaf in jax.tree.leaves(result.whole)] == [(3, 2, *shape) for shape in NETWORKS[name][2]]
    close(result.whole, result.rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_results_are_float32_even_if_layers_are_bfloat16(name: str) -> None:
    result = played(name)
    for leaf in jax.tree.leaves(result):
        assert leaf.dtype == jnp.float32
    close(result.whole, result.rounded, atol=0.1)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (result.whole, result.rounded)), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_is_orthogonal_with_the_gain_of_practice(name: str) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(played(name).params["params"])
    kernels = 0
    for path, leaf in leaves:
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        if text.endswith("bias"):
            np.testing.assert_array_equal(leaf, 0.0)
        else:
            gain = next(gain for part, gain in GAINS if part in text)
            tall = np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1])
            tall = tall if tall.shape[0] >= tall.shape[1] else tall.T
            np.testing.assert_allclose(
                tall.T @ tall, gain**2 * np.eye(tall.shape[1]), atol=1e-5 * gain**2, err_msg=text
            )
            kernels += 1
    assert kernels >= {"conv": 4, "recurrent": 9, "recurrent_conv": 10}.get(name, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_networks_select_one_program(name: str) -> None:
    model = NETWORKS[name][0]
    assert model == model.clone()
    assert hash(model) == hash(model.clone())
    assert hash(model.apply) == hash(model.apply)
    assert model != model.clone(dtype=jnp.bfloat16)


def test_the_initialiser_draws_what_that_of_flax_draws() -> None:
    """The same matrix for the same key, also under vmap, for typed and for legacy keys."""
    shapes, keys = ((4, 7), (3, 3, 2, 4)), jax.random.split(KEY, 2)
    init = lambda make: lambda key: [make(1.5)(key, shape) for shape in shapes]  # noqa: E731
    flax = jax.jit(init(nn.initializers.orthogonal))
    expected = [flax(key) for key in keys]
    close(jax.jit(jax.vmap(init(orthogonal)))(keys), jax.tree.map(lambda *x: np.stack(x), *expected), atol=1e-6)
    close(init(orthogonal)(jax.random.key_data(keys[0])), expected[0], atol=1e-6)


def test_the_initialiser_takes_keys_of_any_kind_and_refuses_vectors() -> None:
    other = jax.random.key(0, impl="rbg")
    kernel = np.asarray(orthogonal(2.0)(other, (6, 3)))
    np.testing.assert_allclose(kernel.T @ kernel, 4.0 * np.eye(3), atol=1e-5)
    with pytest.raises(ValueError, match="shape must have at least two axes"):
        orthogonal(1.0)(KEY, (3,))


def equations(program: Any) -> list[Any]:
    """All equations of a program, those of loops and calls inside it too."""
    found = []
    for equation in program.eqns:
        inner = [
            x for x in jax.tree.leaves(list(equation.params.values())) if hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ]
        found += [equation, *(e for x in inner for e in equations(getattr(x, "jaxpr", x)))]
    return found


@pytest.mark.parametrize("name", ["conv", "recurrent"])
def test_a_vmapped_initialisation_decomposes_one_matrix_at_a_time(name: str) -> None:
    """On CPU, batched decompositions of one program have been seen to wait for each other for ever."""
    model, shapes, _ = NETWORKS[name]
    init = jax.vmap(lambda key: model.init(key, *map(jnp.ones, shapes)))
    ranks = [
        e.invars[0].aval.ndim
        for e in equations(jax.make_jaxpr(init)(jax.random.split(KEY, 3)))
        if "qr" in str(e.primitive)
    ]
    assert len(ranks) >= {"conv": 4, "recurrent": 9}[name]
    assert set(ranks) == {2}


def test_hidden_layers_multiply_in_bfloat16_and_the_head_in_float32() -> None:
    model = MLP((8, 8), 3, dtype=jnp.bfloat16)
    program = jax.make_jaxpr(lambda x: model.init_with_output(KEY, x)[0])(jnp.ones(VECTOR))
    products = [e.invars[0].aval.dtype for e in program.eqns if e.primitive.name == "dot_general"]
    assert products == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("name", ["actor_critic", "conv", "recurrent"])
def test_policy_and_value_methods_equal_the_call(name: str) -> None:
    model, shapes, _ = NETWORKS[name]
    params, x = played(name).params, [np.ones((2, *shape), np.float32) for shape in shapes]
    methods = lambda params, *x: [model.apply(params, *x, method=m) for m in ("__call__", "policy", "value")]  # noqa: E731
    whole, policy, value = jax.jit(methods)(params, *x)
    distribution, *rest = policy if isinstance(policy, tuple) else (policy,)
    close(distribution, whole[0], rtol=1e-6)
    close((value, *rest), (whole[1], *whole[1:][: len(rest)]), rtol=1e-6)


def test_trunks_of_actor_and_critic_are_separate() -> None:
    model, params = NETWORKS["actor_critic"][0], played("actor_critic").params
    grads = jax.jit(jax.grad(lambda p: model.apply(p, jnp.ones(VECTOR), method="value")))(params)["params"]
    assert all(np.all(x == 0.0) for x in jax.tree.leaves((grads["actor"], grads["head"])))
    assert all(np.any(x != 0.0) for x in jax.tree.leaves(grads["critic"]))


@pytest.mark.parametrize("size", [1, 3])
def test_ensemble_is_its_members_side_by_side(size: int) -> None:
    member, x = ContinuousQNetwork((8,)), (np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4), np.ones((5, 2)))

    @jax.jit
    def run(*x: Any) -> Any:
        values, params = Ensemble(member, size).init_with_output(KEY, *x)
        inside = params["params"]["member"]
        own = lambda i: {"params": jax.tree.map(lambda p: p[i], inside)}  # noqa: E731
        return values, [member.apply(own(i), *x) for i in range(size)]

    values, alone = run(*x)
    np.testing.assert_allclose(values, np.stack(alone), rtol=1e-5)
    assert len(np.unique(values[:, 0])) == size


def test_a_pytree_of_numbers_and_names_becomes_one_vector() -> None:
    encode = Features(((1, None), (0, 3), (2, None)))
    obs = {"a": np.arange(4.0).reshape(2, 2), "b": np.array([2.0, 7.0]), "c": np.arange(8).reshape(2, 2, 2)}
    expected = [[0, 1, 0, 0, 1, 0, 1, 2, 3], [2, 3, 0, 0, 0, 4, 5, 6, 7]]
    np.testing.assert_array_equal(encode(obs), expected)
    np.testing.assert_array_equal(encode(jax.tree.map(lambda x: x[1], obs)), expected[1])
    assert encode(obs).dtype == jnp.float32
    with pytest.raises(ValueError, match="obs must have 3 arrays, got 1"):
        encode(obs["a"])
    with pytest.raises(ValueError, match=r"obs must have at least 2 axes, got shape \[2\]"):
        encode({**obs, "c": np.ones(2)})


class Head(NamedTuple):
    head: nn.Module
    kind: type
    start: dict[str, Any]  # attributes of the distribution where every weight is 0


LOW, HIGH = (-2.0, 0.0), (2.0, 1.0)
HEADS = {
    "discrete": Head(DiscretePolicy(3), Categorical, {"probs": [1 / 3] * 3}),
    "bernoulli": Head(BernoulliPolicy(2), Bernoulli, {"probs": [0.5, 0.5]}),
    "gaussian": Head(GaussianPolicy(2, -0.5), Normal, {"loc": [0, 0], "scale": [np.exp(-0.5)] * 2}),
    "gaussian_in_a_box": Head(
        GaussianPolicy(2, np.log(0.5), low=LOW, high=HIGH), Normal, {"loc": [0, 0.5], "scale": [1.0, 0.25]}
    ),
    "tanh": Head(
        TanhGaussianPolicy(2, LOW, HIGH, init_log_std=-1.0), TanhNormal,
        {"loc": [0, 0], "scale": [np.exp(-1.0)] * 2, "low": LOW, "high": HIGH},
    ),
    "beta": Head(
        BetaPolicy(2, LOW, HIGH), Beta,
        {"alpha": [1 + np.log(2)] * 2, "beta": [1 + np.log(2)] * 2, "low": LOW, "high": HIGH},
    ),
}  # fmt: skip


def of_zero_features(head: nn.Module) -> Any:
    """The distribution of features that are 0: what the biases and free parameters give at the start."""
    return head.init_with_output(KEY, np.zeros((3, 5), np.float32))[0]


@pytest.mark.parametrize("name", HEADS)
def test_heads_start_from_the_middle(name: str) -> None:
    head, kind, start = HEADS[name]
    distribution = of_zero_features(head)
    assert isinstance(distribution, kind)
    for field, expected in start.items():
        np.testing.assert_allclose(getattr(distribution, field), [expected] * 3, rtol=1e-5, atol=1e-6, err_msg=field)


def test_several_discrete_choices_have_a_head_each() -> None:
    distribution = of_zero_features(DiscretePolicy((2, 3)))
    assert isinstance(distribution, MultiCategorical)
    np.testing.assert_allclose(distribution.entropy(), np.full(3, np.log(6.0)), rtol=1e-5)


def moved(head: nn.Module, by: Any) -> Any:
    """The distribution when `by` is added to what the linear layer of the head gives, and 1 to its free parameters."""

    @jax.jit
    def run() -> Any:
        x = jnp.zeros(5)
        params = jax.tree.map(jnp.zeros_like, head.init(KEY, x))
        move = lambda path, p: p + (jnp.asarray(by, jnp.float32) if "bias" in str(path) else 1.0)  # noqa: E731
        return head.apply(jax.tree_util.tree_map_with_path(move, params), x)

    return run()


def test_a_box_sets_the_units_of_a_gaussian() -> None:
    distribution = moved(GaussianPolicy(2, low=LOW, high=HIGH), [1.0, 3.0])
    np.testing.assert_allclose(distribution.loc, [2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(distribution.scale, np.exp(1.0) * np.array([2.0, 0.5]), rtol=1e-6)


@pytest.mark.parametrize(("by", "expected"), [(1e6, 1.0), (-1e6, -4.0)])
def test_tanh_log_std_is_bounded(by: float, expected: float) -> None:
    head = TanhGaussianPolicy(1, init_log_std=-1.0, min_log_std=-4.0, max_log_std=1.0)
    np.testing.assert_allclose(np.log(moved(head, by).scale), expected, rtol=1e-5)


def test_gaussian_scale_is_a_parameter_that_learns_from_every_row() -> None:
    model, x = GaussianPolicy(2, init_log_std=-0.5), jnp.ones((7, 3))
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, x).entropy())))(model.init(KEY, x))
    np.testing.assert_allclose(grads["params"]["log_std"], 7.0, rtol=1e-6)


def test_masks_reach_the_head() -> None:
    mask: Callable[..., Any] = lambda obs: jnp.array([True, False, True])  # noqa: E731
    for name in ("actor_critic", "conv", "recurrent"):
        model, shapes, _ = NETWORKS[name]
        x = [np.ones(shape, np.float32) for shape in shapes]
        policy = jax.jit(functools.partial(model.apply, method="policy"))(played(name).params, *x, mask(x))
        distribution = policy[0] if isinstance(policy, tuple) else policy
        np.testing.assert_array_equal(distribution.probs > 0.0, mask(x))
    with pytest.raises(ValueError, match="mask is only defined for a single number of actions"):
        DiscretePolicy((2, 3)).init(KEY, jnp.ones(4), mask(None))


def test_images_may_be_boolean_and_the_standard_one_is_that_of_minatar() -> None:
    model, obs = ConvActorCritic(DiscretePolicy(6)), np.zeros((3, 10, 10, 7), bool)
    (distribution, value), params = jax.eval_shape(lambda: model.init_with_output(KEY, obs))
    assert (distribution.logits.shape, value.shape) == ((3, 6), (3,))
    assert params["params"]["convolutions"]["Conv_0"]["kernel"].shape == (3, 3, 7, 16)
    assert params["params"]["dense"]["Dense_0"]["kernel"].shape == (8 * 8 * 16, 128)
