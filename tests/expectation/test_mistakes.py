"""Rules, distributions and options that do not go together are refused by name, with the remedy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation
from pgjax.expectation import laws, nodes, rule, taken

KEY = jax.random.key(0)
E = expectation

Z = jnp.zeros((3, 2))
NOTHING: Any = None
BITS, INDEX, BELL = pg.Bernoulli(Z), pg.Categorical(Z), pg.Normal(Z, 1.0)
row = lambda a: a.sum(-1) * 1.0  # noqa: E731
BAD: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: E.pathwise(KEY, INDEX, row),
        TypeError,
        "pathwise makes no sense for Categorical.*Use enumerated, score_f.* or relax",
    ),
    (lambda: E.pathwise(KEY, pg.OneHotCategorical(Z), row), TypeError, "pathwise makes no sense for OneHotCategorical"),
    (lambda: E.pathwise(KEY, (BELL, BITS), row), TypeError, "pathwise makes no sense for Bernoulli"),
    (lambda: E.at_mode(KEY, pg.MultiCategorical(Z), row), TypeError, "at_mode makes no sense for MultiCategorical"),
    (
        lambda: E.enumerated(KEY, BELL, row),
        TypeError,
        "enumerated makes no sense for Normal.*Use pathwise or score_function",
    ),
    (
        lambda: E.measure_valued(KEY, pg.Beta(Z + 1.0, 1.0), row),
        TypeError,
        "measure_valued makes no sense for Beta.*Use score_function, or pathwise",
    ),
    (lambda: E.arm(KEY, BELL, row), TypeError, "arm makes no sense for Normal.*continuous use pathwise"),
    (lambda: E.disarm(KEY, (BITS, INDEX), row), TypeError, "disarm makes no sense for Categorical.*unordered_set"),
    (lambda: E.reinmax(KEY, INDEX, row), TypeError, "reinmax makes no sense for Categorical.*OneHotCategorical"),
    (lambda: E.reinmax(KEY, BITS, row, temperature=0.0), ValueError, "temperature must be positive, got 0.0"),
    (lambda: E.sum_and_sample(KEY, BELL, row, top=1), TypeError, "sum_and_sample makes no sense for Normal"),
    (lambda: E.sum_and_sample(KEY, INDEX, row), TypeError, "sum_and_sample needs the option top"),
    (lambda: E.sum_and_sample(KEY, INDEX, row, top=0), ValueError, "top must be at least 1, got 0.*score_function"),
    (lambda: E.sum_and_sample(KEY, INDEX, row, top=1.0), TypeError, "top must be a Python int"),
    (lambda: nodes(E.sum_and_sample, pg.Bernoulli(jnp.zeros(1))), TypeError, "top is needed to list the noise"),
    (
        lambda: E.sum_and_sample.given({"x": Z}, INDEX, row, top=1),
        ValueError,
        r"the noise x must have the shape of the rows, \[3\]",
    ),
    (lambda: E.unordered_set(KEY, BELL, row, num_samples=2), TypeError, "unordered_set makes no sense for Normal"),
    (
        lambda: E.unordered_set(KEY, INDEX, row, num_samples=3),
        ValueError,
        "num_samples=3 exceeds the 2 actions.*Use enumerated",
    ),
    (
        lambda: E.unordered_set(KEY, INDEX, row, num_samples=1),
        ValueError,
        "num_samples must be at least 2, got 1.*score_function",
    ),
    (
        lambda: E.unordered_set(KEY, pg.Bernoulli(jnp.zeros(4)), row, num_samples=13),
        ValueError,
        "num_samples must be at most 12, got 13.*score_leave_one_out",
    ),
    (
        lambda: E.unordered_set(KEY, pg.Bernoulli(jnp.zeros(40)), row, num_samples=2),
        ValueError,
        "1099511627776 actions, too many to enumerate",
    ),
    (
        lambda: E.unordered_set.given({"x": jnp.zeros((3, 3), int)}, INDEX, row, num_samples=2),
        ValueError,
        r"the noise x must have the shape of num_samples and the rows, \[2, 3\]",
    ),
    (lambda: E.mirrored(row), TypeError, "rule must be .*Rule, got function"),
    (lambda: E.mirrored(E.enumerated), TypeError, "enumerated draws no noise. Use enumerated itself"),
    (lambda: E.mirrored(E.unordered_set), TypeError, "unordered_set.*of the law without replacement, has no mirror"),
    (
        lambda: E.mirrored(E.pathwise)(KEY, pg.Beta(Z + 1.0, 1.0), row),
        TypeError,
        "noise of this Beta has no mirror.*independent draws",
    ),
    (
        lambda: E.mirrored(E.score_function).given({"x": taken(jnp.zeros((3, 2), int))}, BITS, row),
        TypeError,
        "noise of this Bernoulli has no mirror",
    ),
    (
        lambda: laws.many(laws.Law("odd", row, row)).mirror(Z, BELL),
        TypeError,
        "noise of the law many.odd. has no mirror",
    ),
    (
        lambda: E.enumerated(KEY, pg.Bernoulli(jnp.zeros(40)), row),
        ValueError,
        "1099511627776 actions, too many to enumerate",
    ),
    (
        lambda: E.enumerated(KEY, (pg.Bernoulli(jnp.zeros(10)), pg.Bernoulli(jnp.zeros(10))), row),
        ValueError,
        "1048576 combinations of actions, too many to enumerate: at most 65536. Use score_function",
    ),
    (
        lambda: E.relax(KEY, BELL, row, control=row),
        TypeError,
        "relax makes no sense for Normal.*score_function, or pathwise",
    ),
    (lambda: E.rebar(KEY, INDEX, row), TypeError, "rebar makes no sense for Categorical.*OneHotCategorical.*relax"),
    (
        lambda: E.gumbel_softmax(KEY, INDEX, row),
        TypeError,
        "gumbel_softmax makes no sense for Categorical.*OneHotCategorical",
    ),
    (
        lambda: E.gumbel_softmax(KEY, BITS, row, temperature=0),
        ValueError,
        "temperature must be positive, got 0.*use score_function or enumerated",
    ),
    (
        lambda: E.straight_through(KEY, BITS, row, temperature=-1.0),
        ValueError,
        "temperature must be positive, got -1.0",
    ),
    (lambda: E.rebar(KEY, BITS, row, temperature=np.float32(0.0)), ValueError, "temperature must be positive, got 0.0"),
    (lambda: E.rebar(KEY, BITS, row, temperature=float("nan")), ValueError, "temperature must be positive, got nan"),
    (lambda: pg.distributions.tempered(INDEX, 0.0), ValueError, r"temperature must be positive, got 0.0.*mode\(\)"),
    (lambda: E.straight_through(KEY, BELL, row), TypeError, "straight_through makes no sense for Normal"),
    (
        lambda: E.pathwise.given({"x": taken(Z + 0.5)}, pg.Beta(Z + 1.0, 1.0), row),
        TypeError,
        "Beta does not determine the noise",
    ),
    (
        lambda: E.score_function(KEY, Z, row),
        TypeError,
        "score_function needs a distribution, or a tree.*Wrap logits in Categorical",
    ),
    (lambda: E.score_function(KEY, BITS, row, basline=1.0), TypeError, "no option 'basline': did you mean 'baseline'"),
    (lambda: E.pathwise(KEY, BELL, row, scale=1.0), TypeError, "pathwise has no option 'scale': it has none"),
    (lambda: E.relax(KEY, BITS, row), TypeError, r"relax needs the option control: relax\(\.\.\., control=\.\.\.\)"),
    (lambda: E.relax.using(contrl=row), TypeError, "did you mean 'control'"),
    (lambda: E.relax.using(x=row), TypeError, "relax has no option 'x'"),
    (lambda: E.relax(KEY, BITS, row, control=1.0), TypeError, "control must be a function, got float"),
    (
        lambda: E.relax(KEY, BITS, row, control=lambda z: z),
        ValueError,
        r"control must give one number for each row, shape \[3\]",
    ),
    (
        lambda: E.relax(KEY, BITS, row, control=row, scale=jnp.ones(2)),
        ValueError,
        r"scale must be a scalar or have shape \[3\]",
    ),
    (
        lambda: E.score_function(KEY, BITS, lambda a: a.sum() * 1.0),
        ValueError,
        r"f must give one number for each row, shape \[3\], got \[\]",
    ),
    (lambda: E.score_function(KEY, BITS, lambda a: NOTHING), TypeError, "the result of f is required, got None"),
    (lambda: E.score_function(KEY, BITS, 1.0), TypeError, "f must be a function"),
    (
        lambda: E.score_function(KEY, BITS, row, baseline=jnp.ones(2)),
        ValueError,
        r"baseline must be a scalar or have shape \[3\]",
    ),
    (lambda: E.score_leave_one_out(KEY, BITS, row), TypeError, r"num_samples is needed to draw the noise"),
    (lambda: E.score_leave_one_out(KEY, BITS, row, num_samples=1), ValueError, "at least 2, got 1.*score_function"),
    (lambda: E.score_leave_one_out(KEY, BITS, row, num_samples=2.0), TypeError, "num_samples must be a Python int"),
    (
        lambda: E.score_leave_one_out.given({"x": jnp.zeros((3, 3, 2))}, BITS, row, num_samples=2),
        ValueError,
        "must lead with num_samples=2 samples",
    ),
    (
        lambda: E.relax.given({"x": Z}, BITS, row, control=row),
        TypeError,
        r"relax needs noise named \['u', 'v', 'x'\], got \['x'\]",
    ),
    (lambda: E.enumerated.given({"x": Z}, BITS, row), TypeError, r"enumerated needs noise named \[\], got \['x'\]"),
    (lambda: E.score_function.given({"x": {"b": Z}}, {"a": BITS}, row), ValueError, "must have its form"),
    (
        lambda: E.score_function(KEY, (BITS, pg.Bernoulli(jnp.zeros(2))), row),
        ValueError,
        "must have the same batch axes",
    ),
    (lambda: nodes(E.score_function, BITS), ValueError, r"one row, without batch axes, got batch axes \[3\]"),
    (lambda: nodes(E.relax, pg.Bernoulli(jnp.zeros(4))), ValueError, "nodes, more than 2097152.*Lower size"),
    (
        lambda: nodes(E.relax, pg.Bernoulli(jnp.zeros(1)), size={"w": 3}),
        TypeError,
        r"size names \['w'\].*\['u', 'v', 'x'\]",
    ),
    (lambda: nodes(E.score_leave_one_out, pg.Bernoulli(jnp.zeros(1))), TypeError, "num_samples is needed"),
    (lambda: rule(x=3), TypeError, 'the law of x must be a Law or "own", got int'),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_combinations_raise_by_name_with_the_remedy(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
