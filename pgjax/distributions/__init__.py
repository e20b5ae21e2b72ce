"""What a policy returns: a distribution over actions.

Every class is a pytree of arrays with `sample`, `log_prob`, `sample_and_log_prob`, `entropy`, `mode` and
`kl_divergence`; the last axis of all but `Categorical` is the action, and `log_prob` sums over it. The shape
of an action must end with the distribution's: extra leading axes are samples, and nothing else is broadcast.

`sample(key)` is `sample_from(base_noise(key))`, so that explicit noise can drive a rollout. `noise_of` goes back.
`support` lists the actions of the discrete ones, and `relaxed_from`, `relaxed_given`, `relaxed_path`, `soften` and
`harden` deal with continuous samples that round to them: `pgjax.expectation` is built on these.

In a loss write ``log_prob_of(distribution, trajectory.action, trajectory.raw_action)``, not ``log_prob(action)``: it
is exact for squashed actions too, where inverting a rounded action costs up to 2 nats, and more far out.
An action outside the range or the box has log-probability −∞ and no gradient; a masked one has `MASKED_LOG_PROB`.

Parameters in bf16 or f16 are widened to float32 on entry. Discrete actions are integers (one-hot ones
floats), continuous ones floats; the other kind is an error.
"""

from pgjax.distributions.acting import action_from_noise, draw_noise, log_prob_of, sample_action
from pgjax.distributions.bernoulli import Bernoulli
from pgjax.distributions.beta import Beta
from pgjax.distributions.categorical import MASKED_LOG_PROB, Categorical
from pgjax.distributions.multi_categorical import MultiCategorical
from pgjax.distributions.normal import Normal
from pgjax.distributions.one_hot import OneHotCategorical
from pgjax.distributions.tanh_normal import TanhNormal
from pgjax.distributions.tempering import tempered

__all__ = [
    "MASKED_LOG_PROB",
    "Bernoulli",
    "Beta",
    "Categorical",
    "MultiCategorical",
    "Normal",
    "OneHotCategorical",
    "TanhNormal",
    "action_from_noise",
    "draw_noise",
    "log_prob_of",
    "sample_action",
    "tempered",
]
