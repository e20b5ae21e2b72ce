"""The form of a rule: noise apart, options, batches, transformations, trees of distributions, extreme values."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation
from pgjax.expectation import bind, laws, nodes, rule, taken

KEY = jax.random.key(0)
E = expectation
ALL = [
    (E.score_function, pg.Bernoulli, {"baseline": 0.2}),
    (E.score_leave_one_out, pg.OneHotCategorical, {"num_samples": 3}),
    (E.dice, pg.OneHotCategorical, {}),
    (E.pathwise, lambda x: pg.Normal(x, 0.5), {}),
    (E.pathwise, lambda x: pg.TanhNormal(x, 0.5), {}),
    (E.at_mode, lambda x: pg.Normal(x, 0.5), {}),
    (E.enumerated, pg.Bernoulli, {}),
    (E.relax, pg.Bernoulli, {"control": lambda z: jnp.tanh(z).sum(-1)}),
    (E.relax, pg.OneHotCategorical, {"control": lambda z: jnp.tanh(z).sum(-1), "scale": 0.3}),
    (E.rebar, pg.OneHotCategorical, {"temperature": 0.4}),
    (E.gumbel_softmax, pg.OneHotCategorical, {}),
    (E.straight_through, pg.Bernoulli, {}),
    (E.measure_valued, lambda x: pg.TanhNormal(x, 0.5), {}),
    (E.measure_valued, pg.Bernoulli, {}),
    (E.arm, pg.Bernoulli, {}),
    (E.disarm, lambda x: pg.Bernoulli(2.0 * x), {}),
    (E.reinmax, pg.OneHotCategorical, {"temperature": 0.7}),
    (E.sum_and_sample, pg.OneHotCategorical, {"top": 1}),
    (E.unordered_set, pg.Bernoulli, {"num_samples": 3}),
    (E.mirrored(E.score_function), lambda x: pg.Normal(x, 0.5), {"baseline": 0.2}),
]


def f(x: Any) -> Any:
    s = x @ jnp.arange(1.0, 1.0 + x.shape[-1], dtype=jnp.result_type(x, jnp.float32))
    return s + 0.1 * s**2


@pytest.mark.parametrize(("of", "make", "options"), ALL)
def test_rows_keys_and_compilation_do_not_matter(of: Any, make: Any, options: dict[str, Any]) -> None:
    """A batch of rows is each row by itself; noise drawn apart is the noise of the call; vmap over keys is a loop."""
    params = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)

    lead = 1 if "num_samples" in options else 0

    def all_ways(params: Any, keys: Any) -> Any:
        def each(params: Any, key: Any) -> Any:
            value, vjp = jax.vjp(lambda p: of(key, make(p), f, **options), params)
            return value, vjp(jnp.ones_like(value))[0]

        noise = of.draw(keys[0], make(params), **options)
        row = jax.tree.map(lambda x: x[(slice(None),) * lead + (1, 2)], noise)
        one = jax.value_and_grad(lambda p: of.given(row, make(p), f, **options))(params[1, 2])
        return each(params, keys[0]), jax.vmap(each, (None, 0))(params, keys), one

    (value, grad), per_key, one = jax.jit(all_ways)(params, jax.random.split(KEY, 2))
    assert value.shape == (2, 3)
    assert value.dtype == grad.dtype == one[0].dtype == jnp.float32
    for x, y, z in zip((value, grad), per_key, one, strict=True):
        np.testing.assert_allclose(y[0], x, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(z, x[1, 2], rtol=1e-4, atol=1e-6)
    if of.laws:
        assert np.abs(per_key[1][0] - per_key[1][1]).max() > 1e-3
    assert np.all(np.isfinite(grad))
    assert np.abs(grad).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_has_the_dtype_and_the_axes_of_the_distribution(dtype: Any) -> None:
    z = np.zeros((2, 3), dtype)
    control = lambda z: z[..., 0]  # noqa: E731
    noise = E.relax.draw(KEY, pg.Categorical(z), control=control)
    assert {name: (x.shape, x.dtype) for name, x in noise.items()} == {
        "x": ((2,), dtype),
        "u": ((2, 3), dtype),
        "v": ((2, 3), dtype),
    }
    assert not np.array_equal(noise["u"], noise["v"])
    assert E.relax.draw(KEY, pg.MultiCategorical(z[None]))["u"].shape == (1, 2, 3)
    many = E.score_leave_one_out.draw(KEY, pg.Normal(z, dtype(1)), num_samples=4)["x"]
    assert (many.shape, many.dtype) == ((4, 2, 3), dtype)
    assert len(np.unique(many)) == many.size
    assert E.enumerated.draw(KEY, pg.Categorical(z)) == {}
    tree = E.score_function.draw(KEY, {"a": pg.Bernoulli(z), "b": pg.Bernoulli(z)})["x"]
    assert not np.array_equal(tree["a"], tree["b"])
    legacy = E.relax.draw(jax.random.key_data(KEY), pg.Categorical(z))
    np.testing.assert_array_equal(legacy["u"], noise["u"])


def test_options_are_fixed_overridden_and_travel_through_jit() -> None:
    """A rule is a pytree: arrays and floats among its options feed the program, functions and integers select it."""
    traces = []

    @jax.jit
    def run(rule: Any, logits: Any, noise: Any) -> Any:
        traces.append(None)
        return jax.grad(lambda l: rule.given(noise, pg.Bernoulli(l), lambda b: b[..., 0] * 2.0))(logits)

    logits = jnp.array([0.3])
    noise = E.relax.draw(KEY, pg.Bernoulli(logits))
    network = lambda w, z: w * jnp.sin(z[..., 0])  # noqa: E731
    found = [
        run(E.relax.using(control=bind(network, jnp.float64(w)), scale=s), logits, noise)
        for w, s in ((0.5, 1.0), (2.0, 1.0), (2.0, 0.25))
    ]
    assert len(traces) == 1
    np.testing.assert_allclose(found[0] - found[2], 0.0, atol=1e-14)
    assert abs(float(found[0][0] - found[1][0])) > 1e-3
    slope = jax.grad(lambda rule: run(rule, logits, noise)[0])(E.relax.using(control=bind(network, 0.5), scale=1.0))
    assert abs(float(slope.options["scale"])) > 1e-3
    assert slope.options["control"].args[0].shape == ()
    three = E.score_leave_one_out.using(num_samples=3)
    assert jax.tree.leaves(three) == []
    assert jax.eval_shape(lambda: three(KEY, pg.Bernoulli(logits), lambda b: b[..., 0])).shape == ()
    assert three.draw(KEY, pg.Bernoulli(logits))["x"].shape == (3, 1)
    assert three.draw(KEY, pg.Bernoulli(logits), num_samples=5)["x"].shape == (5, 1)
    assert three.using(num_samples=4).options == {"num_samples": 4}
    assert three.options == {"num_samples": 3}
    assert E.score_leave_one_out.options == {}


def test_a_rule_shows_its_name_its_signature_and_its_laws() -> None:
    assert E.relax.name == E.relax.__name__ == "relax"
    assert str(inspect.signature(E.relax)).startswith("(key, distribution: Any, f: ")
    assert list(inspect.signature(E.relax).parameters) == ["key", "distribution", "f", "control", "scale"]
    assert inspect.signature(E.relax.using(scale=0.5)).parameters["scale"].default == 0.5
    assert repr(E.pathwise).startswith("<rule pathwise(key, distribution")
    assert E.relax.laws == {"x": laws.own, "u": laws.uniform, "v": laws.uniform}
    assert "Unbiased for any control" in E.relax.__doc__


def test_a_rule_of_ones_own_is_like_the_others() -> None:
    @rule(x="own", s=laws.sign)
    def flipped(distribution: Any, f: Any, *, x: Any, s: Any, strength: float = 1.0) -> Any:
        """Flip some noise."""
        return f(distribution.sample_from(strength * s * x))

    d = pg.Normal(jnp.zeros(2), 1.0)
    noise, weights = nodes(flipped, d, size=3)
    assert noise["x"].shape == noise["s"].shape == (3**2 * 2**2, 2)
    assert weights.sum() == pytest.approx(1.0)
    value = flipped.using(strength=2.0)(KEY, d, lambda a: a[..., 0])
    drawn = flipped.draw(KEY, d)
    np.testing.assert_allclose(value, 2.0 * drawn["s"][0] * drawn["x"][0], rtol=1e-12)


# --- a given action --------------------------------------------------------------------------------------------


def test_a_taken_action_is_exact_where_noise_cannot_be() -> None:
    """In float32 an action of probability 1e-13 has no noise, and a squashed one has lost its own."""
    logits = jnp.array([0.0, -30.0], jnp.float32)
    d = pg.TanhNormal(jnp.array([9.0], jnp.float32), 0.5)
    raw = jnp.array([10.0], jnp.float32)
    normal = pg.Normal(jnp.array([1.0]), 0.5)
    first = lambda a: a[..., 0]  # noqa: E731

    @jax.jit
    def all_of(logits: Any, d: Any, raw: Any) -> Any:
        rare, x = taken(jnp.int32(1)), taken(d.squash(raw), raw)
        grads = [
            jax.grad(lambda l: E.score_function.given({"x": rare}, pg.Categorical(l), lambda a: 2.0 * (a == 1)))(
                logits
            ),
            jax.grad(lambda m: E.score_function.given({"x": x}, d.replace(loc=m), lambda a: jnp.float32(1.0)))(d.loc),
            jax.grad(lambda s: E.pathwise.given({"x": x}, d.replace(scale=s), first))(d.scale),
            jax.grad(lambda s: E.pathwise.given({"x": taken(jnp.array([2.0]))}, normal.replace(scale=s), first))(
                normal.scale
            ),
        ]
        return grads, pg.Categorical(logits).sample_from(pg.Categorical(logits).noise_of(jnp.int32(1)))

    (rare, score, _, of_normal), back = all_of(logits, d, raw)
    np.testing.assert_allclose(rare, [-2.0, 2.0], rtol=1e-6)
    assert back == 0
    np.testing.assert_allclose(score, [1.0 / 0.25], rtol=1e-6)
    near = all_of(logits, d.replace(loc=d.loc - 5.0), raw - 5.0)[0][2]
    np.testing.assert_allclose(near, [2.0 / np.cosh(5.0) ** 2], rtol=1e-3)  # tanh' of 5, times the noise (5 − 4) / 0.5
    np.testing.assert_allclose(of_normal, [2.0], rtol=1e-12)


def test_taken_actions_of_a_tree_go_to_their_parts() -> None:
    d = {"a": pg.Categorical(jnp.zeros(2)), "b": (pg.Normal(jnp.zeros(1), 1.0), pg.TanhNormal(jnp.zeros(1), 1.0))}
    raw = jnp.array([0.3])
    action = {"a": jnp.int32(1), "b": (jnp.array([0.5]), jnp.tanh(raw))}
    value = E.score_function.given(
        {"x": taken(action, {"b": (None, raw)})}, d, lambda x: x["a"] + x["b"][0][..., 0] + x["b"][1][..., 0]
    )
    assert float(value) == pytest.approx(1.5 + np.tanh(0.3))
    apart = {"a": taken(action["a"]), "b": (taken(action["b"][0]), taken(action["b"][1], raw))}
    f = lambda x: x["b"][0][..., 0]  # noqa: E731
    both = [
        jax.grad(lambda d, x=x: E.score_function.given({"x": x}, d, f), allow_int=True)(d)
        for x in (taken(action, {"b": (None, raw)}), apart)
    ]
    for x, y in zip(jax.tree.leaves(both[0]), jax.tree.leaves(both[1]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert float(both[0]["b"][1].loc[0]) == pytest.approx(0.5 * 0.3)


# --- trouble ----------------------------------------------------------------------------------------------------


def test_infinite_values_where_nothing_can_happen_do_no_harm() -> None:
    """An f that is infinite, and so is its derivative, at actions of probability 0: masked, or rounded to 0."""
    f = lambda w: lambda a: -jnp.log(w[a])  # noqa: E731

    def both(logits: Any, w: Any, noise: Any) -> Any:
        d = pg.Categorical(logits, jnp.array([True, True, False]))
        exact = E.enumerated.given({}, d, f(w))
        return exact + E.score_function.given(noise, d, f(w)) + E.dice.given(noise, d, f(w))

    for logits, w in (([0.3, -0.2, 9.0], [0.5, 2.0, 0.0]), ([0.3, -1e4, 0.0], [0.5, 0.0, 0.0])):
        found = jax.jit(jax.value_and_grad(both, (0, 1)))(np.array(logits), np.array(w), {"x": np.float64(0.2)})
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_an_infinite_value_that_happens_is_not_hidden() -> None:
    for of in (E.score_function, E.dice):
        noise = {"x": taken(jnp.int32(1))}
        f = lambda a: jnp.where(a == 1, jnp.inf, 0.0)  # noqa: E731
        value, grad = jax.value_and_grad(lambda l, of=of, f=f, noise=noise: of.given(noise, pg.Categorical(l), f))(
            jnp.zeros(2)
        )
        assert value == np.inf
        assert np.all(np.isnan(grad))


def test_extreme_logits_and_noise_give_finite_estimates() -> None:
    logits = np.array([1.0, -1.0, 0.5], np.float32)
    control = lambda z: jnp.tanh(1e-3 * z).sum(-1)  # noqa: E731

    def total(logits: Any, u: Any, v: Any) -> Any:
        result = jnp.float32(0.0)
        for make in (pg.Bernoulli, pg.OneHotCategorical):
            d = make(logits)
            for action in (d.mode(), 1 - d.mode() if make is pg.Bernoulli else jnp.roll(d.mode(), 1)):
                noise = {"x": taken(action), "u": u, "v": v}
                result += E.relax.given(noise, d, f, control=control) + E.rebar.given(noise, d, f, temperature=0.1)
                result += E.straight_through.given({"x": taken(action), "u": u}, d, f, temperature=0.1)
            result += E.gumbel_softmax.given({"u": u}, d, f, temperature=0.1)
        return result

    run = jax.jit(jax.value_and_grad(total))
    for scale in (1.0, 1e4):
        for u, v in (([0.0, 1.0, 0.5], [1.0, 0.0, 0.0]), ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])):
            value, grad = run(np.float32(scale) * logits, np.array(u, np.float32), np.array(v, np.float32))
            assert np.isfinite(value)
            assert np.isfinite(grad).all()


def test_at_a_traced_temperature_of_0_softened_samples_are_actions_and_everything_is_finite() -> None:
    """From 1e-8 down nothing changes any more."""
    table, logits = jnp.array([1.0, -2.0, 0.5]), np.array([0.3, 0.3, -1.0], np.float32)
    f = lambda a: jnp.sum(jnp.square(a - 0.3) * table, -1)  # noqa: E731
    rules = (E.gumbel_softmax, E.straight_through, E.rebar)

    @jax.jit
    def run(key: Any, logits: Any, temperature: Any) -> Any:
        found = {}
        for of in rules:
            for make in (pg.Bernoulli, pg.OneHotCategorical):
                value = lambda l, make=make, of=of: of(key, make(l), f, temperature=temperature)  # noqa: E731
                found[f"{of.name} {make.__name__}"] = jax.value_and_grad(value)(logits)
        return found

    for seed in range(20):
        key = jax.random.key(seed)
        found, below = run(key, logits, 0.0), run(key, logits, -1.0)
        for name, (value, grad) in found.items():
            assert np.isfinite(value), name
            assert np.isfinite(grad).all(), name
            np.testing.assert_array_equal(grad, below[name][1])
            np.testing.assert_array_equal(grad, run(key, logits, 1e-8)[name][1])
            assert not np.any(grad)  # all of it is where two entries are equal, which no sample meets
        action = E.gumbel_softmax.draw(key, pg.OneHotCategorical(logits))
        hard = pg.OneHotCategorical(logits).relaxed_from(action["u"]).argmax()
        np.testing.assert_allclose(found["gumbel_softmax OneHotCategorical"][0], f(jnp.eye(3)[hard]), rtol=1e-5)


def test_integers_and_booleans_are_good_values() -> None:
    table = jnp.array([3, 5])
    value, grad = jax.value_and_grad(
        lambda l: E.score_function.given({"x": taken(jnp.int32(1))}, pg.Categorical(l), lambda a: table[a])
    )(jnp.zeros(2, jnp.float32))
    assert (value, value.dtype) == (5.0, jnp.float32)
    np.testing.assert_allclose(grad, [-2.5, 2.5])
    assert E.enumerated.given({}, pg.Categorical(jnp.zeros(2)), lambda a: a == 1) == 0.5


def test_distributions_of_other_libraries_are_scored_by_their_samples() -> None:
    class Coin:
        """Yes with probability σ(logit), in the manner of another library."""

        def __init__(self, logit: Any):
            self.logit = logit

        def sample(self, seed: Any) -> Any:
            return jax.random.bernoulli(seed, jax.nn.sigmoid(self.logit)).astype(int)

        def log_prob(self, a: Any) -> Any:
            return a * self.logit - jax.nn.softplus(self.logit)

    noise = jax.jit(lambda key: E.score_function.draw(key, Coin(jnp.zeros(()))))(KEY)
    grad = jax.grad(lambda l: E.score_function.given(noise, Coin(l), lambda a: 4.0 + 0.0 * a))(jnp.zeros(()))
    np.testing.assert_allclose(grad, 4.0 * (noise["x"].action - 0.5))
    with pytest.raises(TypeError, match="pathwise makes no sense for Coin"):
        E.pathwise(KEY, Coin(jnp.zeros(())), lambda a: a)
