"""Choices whose noise is held for several steps, so that what explores moves on instead of trembling on the spot."""

from pgjax import _checks
from pgjax._pytree import static, validated_pytree
from pgjax.distributions import Categorical


@validated_pytree
class HeldCategorical(Categorical):
    """A categorical whose uniform number is drawn anew only now and then.

        a_t = min { k : Σ_{j≤k} π(j|s_t) > u },   u ~ U[0, 1) once for `hold` steps

    Within them the same probabilities always lead to the same action, and where probabilities change the action moves
    to a neighbour: actions should be numbered in a sensible order, as pushes from left to right are. Each action by
    itself has the probabilities of the `Categorical`, and log-probability, entropy and divergence are of each action by
    itself, so that every estimator for a `Categorical` takes this one as it is. It is to choices what
    `StateDependentNormal` is to boxes.

    Shapes: logits, mask [..., K]; actions [...] integer; noise [...].

    Args:
        logits: [..., K] float, unnormalised log-probabilities, nats.
        mask: [..., K] bool or None, True where the action is allowed.
        hold: steps of a rollout that share a number; each window begins with a new one. Static.

    Raises:
        TypeError: as `Categorical`, or if hold is not an int.
        ValueError: as `Categorical`, or if hold < 1.

    Properties:
        Biased where it explores: the first action of a window is a draw from π(·|s_t), later ones given s_t are not,
        for the state tells of the number that led to it. Estimators treat them as if they were, as they do with gSDE.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> policy = pg.exploration.HeldCategorical(jnp.zeros((5, 3)), hold=2)
        >>> noise = pg.distributions.draw_noise(policy, jax.random.key(0), num_draws=4)
        >>> steps = [policy.sample_from(noise[t]) for t in range(4)]
        >>> print(bool((steps[0] == steps[1]).all()), bool((steps[1] == steps[2]).all()))
        True False

    References:
        Raffin, Kober and Stulp (2021), Smooth exploration for robotic reinforcement learning, for continuous actions.
    """

    hold: int = static(default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(hold=_checks.as_positive_int("hold", self.hold))
