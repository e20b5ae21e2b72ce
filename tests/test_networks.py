"""Networks: shapes with any leading axes, dtypes, how they start, and policies as pure functions."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pgjax.distributions import Beta, Categorical, MultiCategorical, Normal, TanhNormal, log_prob_of, sample_action
from pgjax.networks import (
    MLP,
    ActorCritic,
    BetaPolicy,
    ContinuousQNetwork,
    ConvActorCritic,
    DiscretePolicy,
    Ensemble,
    GaussianPolicy,
    QNetwork,
    RecurrentActorCritic,
    TanhGaussianPolicy,
    ValueNetwork,
)

KEY = jax.random.key(0)
VECTOR, IMAGE = (4,), (10, 10, 3)
HEADS: dict[str, tuple[nn.Module, type]] = {
    "discrete": (DiscretePolicy(num_actions=3), Categorical),
    "multi": (DiscretePolicy(num_actions=(2, 3)), MultiCategorical),
    "gaussian": (GaussianPolicy(action_dim=2), Normal),
    "tanh": (TanhGaussianPolicy(action_dim=2, low=(-2.0, 0.0), high=2.0), TanhNormal),
    "beta": (BetaPolicy(action_dim=2, low=-1.0, high=(1.0, 3.0)), Beta),
}
# Each network, with the shapes of its inputs and of its arrays out, all without batch axes.
NETWORKS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...], list[tuple[int, ...]]]] = {
    "mlp": (MLP((8,), 5), (VECTOR,), [(5,)]),
    "value": (ValueNetwork((8,)), (VECTOR,), [()]),
    "q": (QNetwork(3, (8,)), (VECTOR,), [(3,)]),
    "continuous_q": (ContinuousQNetwork((8,)), (VECTOR, (2,)), [()]),
    **{f"ac_{k}": (ActorCritic(h, (8,)), (VECTOR,), []) for k, (h, _) in HEADS.items() if k in ("discrete", "tanh")},
    "conv": (ConvActorCritic(DiscretePolicy(3), (4,), (8,)), (IMAGE,), [(3,), ()]),
    "recurrent": (RecurrentActorCritic(DiscretePolicy(3), 6, (8,)), (VECTOR, (6,)), [(3,), (), (6,)]),
}


def inputs(shapes: tuple[tuple[int, ...], ...], *lead: int) -> list[jax.Array]:
    return [jax.random.normal(jax.random.key(i), (*lead, *shape)) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("name", NETWORKS)
def test_any_leading_axes_equal_row_by_row(name: str) -> None:
    model, shapes, expected = NETWORKS[name]
    params = model.init(KEY, *inputs(shapes))
    apply = jax.jit(model.apply)
    x = inputs(shapes, 3, 2)
    whole = apply(params, *x)
    if expected:
        assert [leaf.shape for leaf in jax.tree.leaves(whole)] == [(3, 2, *shape) for shape in expected]
    one = [apply(params, *[a[t, b] for a in x]) for t in range(3) for b in range(2)]
    rows = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(3, 2, *leaves[0].shape), *one)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(rows), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_results_are_float32_even_if_layers_are_bfloat16(name: str) -> None:
    model, shapes, _ = NETWORKS[name]
    half = model.clone(dtype=jnp.bfloat16)
    x = inputs(shapes, 5)
    params = model.init(KEY, *x)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(half.init(KEY, *x)))
    full, rounded = jax.jit(model.apply)(params, *x), jax.jit(half.apply)(params, *x)
    differ = False
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(rounded), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.1)
        differ |= bool(jnp.any(a != b))
    assert differ


def test_hidden_layers_multiply_in_bfloat16_and_the_head_in_float32() -> None:
    model = MLP((8, 8), 3, dtype=jnp.bfloat16)
    params = model.init(KEY, jnp.ones(VECTOR))
    program = jax.make_jaxpr(model.apply)(params, jnp.ones(VECTOR))
    products = [e.invars[0].aval.dtype for e in program.eqns if e.primitive.name == "dot_general"]
    assert products == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("name", NETWORKS)
def test_is_hashable_and_its_apply_selects_one_program(name: str) -> None:
    model, shapes, _ = NETWORKS[name]
    traces = 0

    def run(params: Any, x: Any, *, model: nn.Module, apply: Callable[..., Any]) -> Any:
        nonlocal traces
        traces += 1
        return jax.tree.leaves((model.apply(params, *x), apply(params, *x)))

    jitted = jax.jit(run, static_argnames=("model", "apply"))
    x = inputs(shapes, 2)
    params = model.init(KEY, *x)
    jitted(params, x, model=model, apply=model.apply)
    jitted(params, x, model=model.clone(), apply=model.apply)
    assert traces == 1
    assert hash(model) == hash(model.clone())


@pytest.mark.parametrize("name", HEADS)
def test_heads_give_their_distribution_and_start_nearly_independent_of_the_observation(name: str) -> None:
    head, kind = HEADS[name]
    model = ActorCritic(head)
    obs = jax.random.normal(KEY, (200, *VECTOR))
    params = model.init(KEY, obs)
    d, value = jax.jit(model.apply)(params, obs)
    assert isinstance(d, kind)
    assert value.shape == (200,)
    action, raw, log_prob = sample_action(d, KEY)
    assert action.shape[0] == 200
    assert log_prob.shape == (200,)
    np.testing.assert_allclose(log_prob_of(d, action, raw), log_prob, rtol=1e-6)
    for leaf in jax.tree.leaves(jax.tree.map(lambda x: np.where(np.abs(x) > 1e8, 0.0, x), d)):
        assert np.max(np.ptp(leaf, axis=0)) < 0.2
    if name == "discrete":
        np.testing.assert_allclose(d.probs, 1 / 3, atol=0.02)
    if name == "multi":
        np.testing.assert_allclose(d.entropy(), np.log(6.0), atol=0.01)
    if name in ("gaussian", "tanh"):
        np.testing.assert_allclose(d.loc, 0.0, atol=0.1)
        np.testing.assert_allclose(d.scale, 1.0, atol=0.1)
    if name in ("tanh", "beta"):
        assert bool(jnp.all((action >= d.low) & (action <= d.high)))
    if name == "tanh":
        np.testing.assert_array_equal(d.low[0], [-2.0, 0.0])
    if name == "beta":
        assert bool(jnp.all((d.alpha > 1.0) & (d.beta > 1.0)))
        np.testing.assert_array_equal(d.high[0], [1.0, 3.0])


def test_initialisation_is_orthogonal_with_the_gains_of_practice() -> None:
    model = ActorCritic(DiscretePolicy(num_actions=2))
    params = model.init(KEY, jnp.ones(VECTOR))["params"]
    gram = lambda w: np.asarray(w).T @ np.asarray(w)  # noqa: E731
    for trunk in (params["actor"], params["critic"]["MLP_0"]):
        np.testing.assert_allclose(gram(trunk["Dense_1"]["kernel"]), 2.0 * np.eye(64), atol=1e-4)
    np.testing.assert_allclose(gram(params["head"]["Head_0"]["Dense_0"]["kernel"]), 1e-4 * np.eye(2), atol=1e-8)
    np.testing.assert_allclose(gram(params["critic"]["MLP_0"]["Head_0"]["Dense_0"]["kernel"]), 1.0, atol=1e-5)
    biases = [x for path, x in jax.tree_util.tree_leaves_with_path(params) if "bias" in str(path[-1])]
    assert len(biases) == 6
    assert all(bool(jnp.all(x == 0.0)) for x in biases)


@pytest.mark.parametrize("name", ["ac_discrete", "conv"])
def test_policy_and_value_methods_equal_the_call(name: str) -> None:
    model, shapes, _ = NETWORKS[name]
    (obs,) = inputs(shapes, 7)
    params = model.init(KEY, obs)
    distribution, value = model.apply(params, obs)
    policy = lambda params, obs: model.apply(params, obs, method="policy")  # noqa: E731
    np.testing.assert_allclose(policy(params, obs).logits, distribution.logits, rtol=1e-6)
    np.testing.assert_allclose(model.apply(params, obs, method="value"), value, rtol=1e-6)


def test_trunks_of_actor_and_critic_are_separate() -> None:
    model = ActorCritic(DiscretePolicy(2), (8,))
    params = model.init(KEY, jnp.ones(VECTOR))
    grads = jax.grad(lambda p: model.apply(p, jnp.ones(VECTOR), method="value"))(params)["params"]
    assert all(bool(jnp.all(x == 0.0)) for x in jax.tree.leaves((grads["actor"], grads["head"])))
    assert any(bool(jnp.any(x != 0.0)) for x in jax.tree.leaves(grads["critic"]))


def test_masks_reach_the_head() -> None:
    model = ActorCritic(DiscretePolicy(3), (8,))
    obs, mask = jnp.ones((5, 4)), jnp.array([True, False, True])
    params = model.init(KEY, obs)
    assert bool(jnp.all(model.apply(params, obs, mask, method="policy").probs[:, 1] == 0.0))
    several = ActorCritic(DiscretePolicy((2, 3)), (8,))
    with pytest.raises(ValueError, match="mask is only defined for a single number of actions"):
        several.init(KEY, obs, mask)


def test_images_may_be_boolean_and_the_standard_one_is_that_of_minatar() -> None:
    model = ConvActorCritic(DiscretePolicy(6))
    obs = jax.random.bernoulli(KEY, 0.1, (3, 10, 10, 7))
    params = model.init(KEY, obs)
    distribution, value = model.apply(params, obs)
    assert (distribution.logits.shape, value.shape) == ((3, 6), (3,))
    assert params["params"]["convolutions_0"]["kernel"].shape == (3, 3, 7, 16)
    assert params["params"]["dense"]["Dense_0"]["kernel"].shape == (8 * 8 * 16, 128)


def test_recurrent_policy_remembers_and_starts_from_zeros() -> None:
    model = RecurrentActorCritic(DiscretePolicy(2), hidden=6, features=(8,))
    start = model.initial_carry(3)
    np.testing.assert_array_equal(start, np.zeros((3, 6), np.float32))
    obs = jax.random.normal(KEY, (5, 3, 4))
    params = model.init(KEY, obs[0], start)

    def unroll(obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            _, value, carry = model.apply(params, x, carry)
            return carry, value

        return jax.lax.scan(step, start, obs)

    carry, value = unroll(obs)
    changed = unroll(obs.at[0, 1].add(1.0))[1]
    assert carry.shape == (3, 6)
    assert bool(jnp.all(changed[4, 1] != value[4, 1]))
    np.testing.assert_array_equal(changed[:, 0], value[:, 0])


def test_recurrent_carry_stays_float32_so_that_a_scan_can_hold_it() -> None:
    model = RecurrentActorCritic(GaussianPolicy(1), hidden=6, features=(8,), dtype=jnp.bfloat16)
    start = model.initial_carry()
    params = model.init(KEY, jnp.ones(4), start)
    carry, _ = jax.lax.scan(lambda c, x: (model.apply(params, x, c)[2], None), start, jnp.ones((3, 4)))
    assert carry.dtype == jnp.float32


@pytest.mark.parametrize("size", [1, 3])
def test_ensemble_is_its_members_side_by_side(size: int) -> None:
    member = ContinuousQNetwork((8,))
    model = Ensemble(member, size)
    obs, action = inputs((VECTOR, (2,)), 5)
    params = model.init(KEY, obs, action)
    values = model.apply(params, obs, action)
    assert values.shape == (size, 5)
    for i in range(size):
        own = {"params": jax.tree.map(lambda x, i=i: x[i], params["params"]["member"])}
        np.testing.assert_allclose(member.apply(own, obs, action), values[i], rtol=1e-5)
    if size > 1:
        assert bool(jnp.all(values[0] != values[1]))


def test_tanh_log_std_is_bounded_and_starts_where_asked() -> None:
    model = TanhGaussianPolicy(1, init_log_std=-1.0, min_log_std=-4.0, max_log_std=1.0, scale=0.0)
    d, _ = model.init_with_output(KEY, jnp.ones(3))
    np.testing.assert_allclose(jnp.log(d.scale), -1.0, rtol=1e-5)
    for sign, bound in ((1e6, 1.0), (-1e6, -4.0)):
        params = jax.tree.map(lambda x, s=sign: jnp.full_like(x, s), model.init(KEY, jnp.ones(3)))
        np.testing.assert_allclose(jnp.log(model.apply(params, jnp.ones(3)).scale), bound, rtol=1e-5)


def test_gaussian_scale_is_a_parameter_that_learns_from_every_row() -> None:
    model = GaussianPolicy(2, init_log_std=-0.5)
    x = jnp.ones((7, 3))
    params = model.init(KEY, x)
    np.testing.assert_allclose(model.apply(params, x).scale, np.exp(-0.5), rtol=1e-6)
    grads = jax.grad(lambda p: jnp.sum(model.apply(p, x).entropy()))(params)
    np.testing.assert_allclose(grads["params"]["log_std"], 7.0, rtol=1e-6)


def test_a_policy_written_in_nnx_is_a_pure_function_of_its_parameters() -> None:
    class Actor(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.hidden = nnx.Linear(4, 8, rngs=rngs)
            self.out = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, obs: jax.Array) -> Categorical:
            return Categorical(self.out(nnx.tanh(self.hidden(obs))))

    graph, params = nnx.split(Actor(nnx.Rngs(0)))

    def policy(params: Any, obs: jax.Array) -> Categorical:
        return nnx.merge(graph, params)(obs)

    obs = jax.random.normal(KEY, (3, 5, 4))
    action, _, log_prob = jax.jit(lambda params, key: sample_action(policy(params, obs), key))(params, KEY)
    assert action.shape == log_prob.shape == (3, 5)
    grads = jax.jit(jax.grad(lambda p: jnp.mean(policy(p, obs).log_prob(action))))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(bool(jnp.any(x != 0.0)) for x in jax.tree.leaves(grads))
