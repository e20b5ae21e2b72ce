"""What a policy returns: a distribution over actions.

Every class is a pytree of arrays with `sample`, `log_prob`, `sample_and_log_prob`, `entropy`, `mode` and
`kl_divergence`; the last axis of all but `Categorical` is the action, and `log_prob` sums over it. The shape
of an action must end with the distribution's: extra leading axes are samples, and nothing else is broadcast.

`sample(key)` is `sample_from(base_noise(key))`, so that a rollout can be driven by explicit noise.
Parameters in bf16 or f16 are widened to float32 on entry. Discrete actions are integers, continuous ones floats;
the other kind is an error.
"""

from pgjax.distributions.acting import action_from_noise, draw_noise, log_prob_of, sample_action
from pgjax.distributions.beta import Beta
from pgjax.distributions.categorical import MASKED_LOG_PROB, Categorical
from pgjax.distributions.factored import Bernoulli, MultiCategorical
from pgjax.distributions.normal import Normal
from pgjax.distributions.tanh_normal import TanhNormal

__all__ = [
    "MASKED_LOG_PROB",
    "Bernoulli",
    "Beta",
    "Categorical",
    "MultiCategorical",
    "Normal",
    "TanhNormal",
    "action_from_noise",
    "draw_noise",
    "log_prob_of",
    "sample_action",
]
