"""Actions of several factors: a baseline for each, which may look at the others, and the sum of their scores."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)

BASE = np.array([0, 1, 0, 1, -1])  # the problem tells the time in its states, and the end has one of its own
STATES = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])[BASE]


def split(index: Any) -> Any:
    """The two factors of four actions."""
    return jnp.stack([index // 2, index % 2], -1)


def two_choices(logits: Any, obs: Any) -> pg.MultiCategorical:
    return pg.MultiCategorical(jnp.einsum("...s,sdk->...dk", obs, logits))


def four_actions(logits: Any, obs: Any) -> pg.Categorical:
    first, second = (jax.nn.log_softmax(jnp.einsum("...s,sk->...k", obs, logits[:, i])) for i in (0, 1))
    both = first[..., :, None] + second[..., None, :]
    return pg.Categorical(both.reshape(*both.shape[:-2], 4))


@pg.estimator
def by_factors(
    params: Any, trajectory: pg.Trajectory, *, policy: Any, discount: Any, baseline: Any
) -> pg.Contributions:
    """The estimator of factors on a process whose four actions are pairs; baseline(trajectory) -> [T, B, 2]."""
    t = trajectory.replace(action=split(trajectory.action), obs=trajectory.obs @ STATES)
    returns = pg.discounted_returns(t.reward, terminated=t.terminated, truncated=t.truncated, discount=discount)
    grads, _ = pg.factorized_gradient.per_trajectory(
        params, t, policy=two_choices, advantage=returns, baseline=baseline(t),
        step_weight=pg.discount_weight(t.step, discount),
    )  # fmt: skip
    return pg.Contributions(grads)


TABLE = np.random.default_rng(9).normal(size=(2, 2, 2))  # for each factor, by state and value of a factor


def looks_at(own: bool) -> Any:
    """A baseline of the state and, for each factor, of the other one; or of itself."""

    def baseline(t: pg.Trajectory) -> Any:
        seen = t.action if own else t.action[..., ::-1]
        hot = jax.nn.one_hot(seen, 2, dtype=t.obs.dtype)
        return jnp.einsum("tbs,dsk,tbdk->tbd", t.obs, jnp.asarray(TABLE), hot)

    return baseline


def pair_value(table: Any, obs: Any, action: Any) -> Any:
    return jnp.take_along_axis(obs @ table, (2 * action[..., 0] + action[..., 1])[..., None], -1)[..., 0]


@functools.cache
def factored_problem() -> Any:
    random = np.random.default_rng(8)
    mdp = exact.TabularMDP(
        jnp.asarray(random.dirichlet(np.ones(2), size=(2, 4))), jnp.asarray(3.0 + random.normal(size=(2, 4))),
        jnp.asarray([0.6, 0.4]), 0.9,
    )  # fmt: skip
    params = jnp.asarray(random.normal(size=(2, 2, 2)))
    return exact.tabular_problem("pairs", mdp, params=params, policy=four_actions, num_steps=2)


def test_the_certificate_tells_a_baseline_of_the_other_factors_from_one_of_the_own() -> None:
    problem = factored_problem()
    np.testing.assert_array_equal(problem.base, BASE)
    table = jnp.asarray(problem.mdp.reward)[:2]
    params = problem.params

    def counterfactual(t: pg.Trajectory) -> Any:
        return pg.counterfactual_baseline(two_choices(params, t.obs), t, critic=pg.bind(pair_value, table))

    def candidate(name: str, baseline: Any) -> exact.Candidate:
        return exact.Candidate(name, by_factors, lambda p, t: {"baseline": baseline})

    baselines = {
        "zero": lambda t: jnp.zeros(t.action.shape),
        "other": looks_at(own=False),
        "counterfactual": counterfactual,
        "own": looks_at(own=True),
    }
    found = dict(zip(baselines, exact.certify_all([candidate(*x) for x in baselines.items()], problem), strict=True))
    for name in ("zero", "other", "counterfactual"):
        assert found[name].unbiased, name
        assert found[name].claim_error < 1e-12, name
    assert not found["own"].unbiased
    assert found["own"].relative_bias > 0.05
    assert found["counterfactual"].trace < 0.7 * found["zero"].trace


def test_counterfactual_baselines_are_means_over_one_factor() -> None:
    random = np.random.default_rng(1)
    logits, action = random.normal(size=(3, 2, 2, 3)), random.integers(0, 2, size=(3, 2, 2))
    obs = random.normal(size=(3, 2))
    batch = pg.Trajectory(*(jnp.asarray(x) for x in (obs, action, obs, obs, obs > 9, obs > 9, obs, obs.astype(int))))
    value = lambda o, a: np.sin(o + a[..., 0] - 2.0 * a[..., 1] * a[..., 0])  # noqa: E731
    critic = lambda o, a: jnp.sin(o + a[..., 0] - 2.0 * a[..., 1] * a[..., 0])  # noqa: E731
    ragged = pg.MultiCategorical((jnp.asarray(logits[..., 0, :]), jnp.asarray(logits[..., 1, :2])))
    bits = pg.Bernoulli(jnp.asarray(logits[..., 0]))
    draws = random.integers(0, 2, size=(4, 3, 2, 2))
    for distribution, sizes in ((ragged, (3, 2)), (bits, (2, 2))):
        got = np.asarray(pg.counterfactual_baseline(distribution, batch, critic=critic))
        probs = np.asarray(distribution.probs)
        for t, b, i in np.ndindex(3, 2, 2):
            p = probs[t, b, i]
            p = p if p.ndim else np.array([1.0 - p, p])
            want = 0.0
            for k in range(sizes[i]):
                changed = action[t, b].copy()
                changed[i] = k
                want += p[k] * value(obs[t, b], changed)
            close(got[t, b, i], want)
    drawn = np.asarray(pg.counterfactual_baseline(bits, batch, critic=critic, draws=jnp.asarray(draws)))
    for t, b, i in np.ndindex(3, 2, 2):
        changed = np.repeat(action[t, b][None], 4, 0)
        changed[:, i] = draws[:, t, b, i]
        close(drawn[t, b, i], np.mean([value(obs[t, b], row) for row in changed]))
    with pytest.raises(TypeError, match=r"values of a factor of Normal cannot be listed\. Pass draws"):
        pg.counterfactual_baseline(pg.Normal(jnp.zeros((3, 2, 2)), 1.0), batch, critic=critic)
    with pytest.raises(ValueError, match=r"draws must end with the shape of trajectory\.action"):
        pg.counterfactual_baseline(bits, batch, critic=critic, draws=jnp.zeros((4, 3, 2), int))


def test_factors_of_every_kind_add_up_to_the_log_probability() -> None:
    random = np.random.default_rng(2)
    x, shape = jnp.asarray(random.normal(size=(3, 2, 4))), (3, 2)
    bits = jnp.asarray(random.integers(0, 2, size=(3, 2, 4)))
    ragged = pg.MultiCategorical(tuple(jnp.asarray(random.normal(size=(3, 2, k))) for k in (2, 3, 2, 5)))
    cases = [
        (pg.Normal(x, 0.7), 0.3 * x, None),
        (pg.TanhNormal(x, 0.7, low=-2.0, high=1.0), None, 9.0 * x),  # so far out that the action is its bound
        (pg.Beta(1.0 + x**2, 2.0), jax.nn.sigmoid(x), None),
        (pg.Bernoulli(x), bits, None),
        (ragged, bits, None),
    ]
    one = jnp.zeros(shape)
    window = pg.Trajectory(one, bits, one, one, one > 1, one > 1, one, one.astype(int))

    @jax.jit
    def both(distribution: Any, action: Any, raw: Any) -> tuple[Any, Any]:
        taken = distribution.squash(raw) if raw is not None else action
        t = window.replace(action=taken, raw_action=raw)
        return pg.factor_log_probs(distribution, t), pg.log_prob_taken(distribution, t)

    for distribution, action, raw in cases:
        name, (each, together) = type(distribution).__name__, both(distribution, action, raw)
        assert each.shape == (3, 2, 4), name
        close(each.sum(-1), together, err_msg=name)
        assert np.abs(np.asarray(each) - np.asarray(each[..., :1])).max() > 0.1, name
    single = pg.Categorical(x)
    t = window.replace(action=bits[..., 0])
    close(pg.factor_log_probs(single, t)[..., 0], pg.log_prob_taken(single, t))
    with pytest.raises(TypeError, match=r"independent components.*got OneHotCategorical"):
        pg.factor_log_probs(pg.OneHotCategorical(x), window)


def test_the_gradient_of_factors_weighs_each_score_by_what_is_left() -> None:
    random = np.random.default_rng(5)
    obs, weights = random.normal(size=(3, 2, 2)), random.normal(size=(2, 3))
    action, advantage = obs @ weights + random.normal(size=(3, 2, 3)), random.normal(size=(3, 2))
    baseline, mask = random.normal(size=(3, 2, 3)), random.random((3, 2)) < 0.7
    no = jnp.zeros((3, 2), bool)
    batch = pg.Trajectory(obs, jnp.asarray(action), jnp.asarray(advantage), obs, no, no, advantage, no.astype(int))
    normal = lambda w, obs: pg.Normal(obs @ w, 0.5)  # noqa: E731
    common = {"policy": normal, "mask": mask, "step_weight": 0.3}
    got, _ = pg.factorized_gradient(weights, batch, advantage=advantage, baseline=baseline, **common)
    score = (action - obs @ weights) / 0.25
    close(got, -0.3 * np.einsum("tb,tbs,tbd,tbd->sd", mask, obs, advantage[..., None] - baseline, score) / 2)
    with pytest.raises(ValueError, match=r"baseline must have shape \[T, B, D\], one axis more than advantage"):
        pg.factorized_gradient(weights, batch, advantage=advantage, baseline=advantage, **common)
    with pytest.raises(ValueError, match=r"baseline must have shape \[T, B, D\], one entry for each factor"):
        pg.factorized_gradient(weights, batch, advantage=advantage, baseline=baseline[..., :2], **common)
