"""Estimators of a score function and an actor-critic, what they are given, and what each trajectory contributes."""

import functools
from typing import Any

import numpy as np
import tabular
from tabular import policy

import pgjax as pg

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
SCORE_FUNCTION = {"likelihood_ratio": pg.likelihood_ratio, "reinforce": pg.reinforce, "gpomdp": pg.gpomdp}


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


def actor(params: Any, obs: Any) -> Any:
    return policy(params["actor"], obs)


class Scores:
    """A distribution from elsewhere that offers log_prob and nothing else."""

    def __init__(self, inner: Any, extra_axis: bool = False):
        self.inner, self.extra_axis = inner, extra_axis

    def log_prob(self, action: Any) -> Any:
        log_prob = self.inner.log_prob(action)
        return log_prob[..., None] if self.extra_axis else log_prob


def each(name: str, logits: Any, batch: Any, mdp: Any, **kwargs: Any) -> Any:
    """Contributions of a score-function estimator of the discounted objective."""
    if name == "reinforce":
        kwargs = {"step_weight": tabular.weight(batch, mdp), **kwargs}
    return SCORE_FUNCTION[name].per_trajectory(logits, batch, policy=policy, discount=mdp.discount, **kwargs)[0]


def actor_part(logits: Any, critic: Any, batch: Any, mdp: Any, lam: float, policy: Any = actor) -> Any:
    grads, _ = pg.actor_critic.per_trajectory(
        {"actor": logits, "critic": critic},
        batch,
        policy=policy,
        value=value,
        discount=mdp.discount,
        lam=lam,
        value_coef=0.0,
        step_weight=tabular.weight(batch, mdp),
    )
    close(grads["critic"], 0.0)
    return grads["actor"]
