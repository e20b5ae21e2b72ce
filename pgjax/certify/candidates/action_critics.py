"""Candidates made of a rule at each step: all-action, control variates, and rules at the action that was taken."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Trajectory
from pgjax.certify.candidates.arguments import FINITE, WHOLE, returns, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import (
    acer,
    acer_continuous,
    control_variate,
    expected_gradient,
    linearized_critic,
    sampled_gradient,
)
from pgjax.expectation import at_mode, enumerated, pathwise, relax, score_function, taken

Array = jax.Array
TEMPERATURE, SHARE = 1.3, 0.5  # of the control variate of RELAX: whatever they are, its mean is right


def action_critic_candidates() -> list[Candidate]:
    """List the estimators that look at a critic of actions.

    Returns:
        The candidates.
    """
    return [*_expected(), *_control_variates(), *_sampled(), *_replayed()]


def _expected() -> list[Candidate]:
    def all_action(name: str, claim: str | None, needs: tuple[str, ...], exact: bool = True) -> Candidate:
        return Candidate(
            name,
            expected_gradient,
            lambda p, t: {"critic": p.critic if exact else p.erring_critic, "rule": enumerated, **weight(p, t)},
            claim=claim,
            needs=(*needs, FINITE),
            reference="Sutton et al. (2000), Allen et al. (2017)",
        )

    return [
        all_action("all-action, exact critic", "gradient", ("own data", "exact value")),
        all_action("all-action, wrong critic", None, ("own data",), exact=False),
        all_action("all-action, other data, exact critic", "off-policy", ("other data", "exact value")),
    ]


def _control_variates() -> list[Candidate]:
    """Whatever the critic says, what it takes away is added again."""

    def enumerating(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        return {"critic": problem.erring_critic, "rule": enumerated}

    def linear(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        point = lambda obs: problem.policy(problem.params, obs).mode()  # noqa: E731
        return {"critic": linearized_critic(problem.critic, point), "rule": at_mode}

    def along_the_path(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        noise = {"x": taken(trajectory.action, trajectory.raw_action)}
        return {"critic": problem.critic, "rule": pathwise, "noise": noise}

    def entry(name: str, arguments: Any, needs: str, reference: str) -> Candidate:
        return Candidate(
            name,
            control_variate,
            lambda p, t: {"advantage": returns(p, t), **arguments(p, t), **weight(p, t)},
            needs=(*WHOLE, needs),
            reference=reference,
        )

    return [
        entry("control variate of all actions, wrong critic", enumerating, FINITE, "Tucker et al. (2018)"),
        entry("Q-Prop", linear, "smooth samples", "Gu et al. (2017)"),
        entry("Stein control variate", along_the_path, "smooth samples", "Liu et al. (2018)"),
    ]


def _sampled() -> list[Candidate]:
    def earned(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        return {"earned": returns(problem, trajectory), **weight(problem, trajectory)}

    def relaxed(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        """As control variate, a wrong critic interpolated between the actions."""

        def control(obs: Array, z: Array) -> Array:
            by_action = jnp.stack(
                [problem.erring_critic(obs, jnp.full(z.shape[:-1], a)) for a in range(z.shape[-1])], axis=-1
            )
            mean = by_action.mean(-1)
            return mean + SHARE * (jnp.sum(jax.nn.softmax(z / TEMPERATURE) * by_action, axis=-1) - mean)

        return {"rule": relax, "control": control, **earned(problem, trajectory)}

    return [
        Candidate(
            "score function at the action taken", sampled_gradient,
            lambda p, t: {"rule": score_function, **earned(p, t)}, needs=WHOLE, reference="Williams (1992)",
        ),
        Candidate(
            "RELAX at the action taken, wrong critic", sampled_gradient, relaxed,
            needs=(*WHOLE, FINITE), noise=relax, reference="Grathwohl et al. (2018)",
        ),
    ]  # fmt: skip


def _replayed() -> list[Candidate]:
    """ACER at ratio 1: right with the exact critic; where the ratio is truncated, the critic stands in for it."""

    def entry(name: str, claim: str | None, exact: bool, clip_rho: float) -> Candidate:
        def arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
            critic = problem.critic if exact else problem.erring_critic

            def of_all(params: Any, obs: Array) -> Array:
                number = problem.policy(problem.params, obs).logits.shape[-1]
                return jnp.stack([critic(obs, jnp.full(obs.shape[:-1], a)) for a in range(number)], axis=-1)

            behaviour = jax.lax.stop_gradient(problem.policy(problem.params, trajectory.obs))
            return {"critic": of_all, "behaviour": behaviour, "clip_rho": clip_rho, "value_coef": 0.0}

        needs = ("own data", "exact value", FINITE) if exact else (*WHOLE, FINITE)
        return Candidate(name, acer, arguments, claim=claim, needs=needs, reference="Wang et al. (2017)")

    def continuous(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        """Draws one scale to either side: their mean is that of all actions for a critic that is quadratic in them."""
        behaviour = jax.lax.stop_gradient(problem.policy(problem.params, trajectory.obs))
        sides = jnp.stack([jnp.full_like(behaviour.loc, x) for x in (0.0, 1.0, -1.0)])
        return {
            "value": problem.erring_value, "critic": lambda params, obs, action: problem.erring_critic(obs, action),
            "behaviour": behaviour, "noise": sides, "value_coef": 0.0,
        }  # fmt: skip

    return [
        entry("ACER, exact critic, without γ^t", "dropped discount", True, 10.0),
        entry("ACER truncated at 1/2, wrong critic, without γ^t", None, False, 0.5),
        Candidate(
            "ACER with continuous actions, wrong critic, without γ^t", acer_continuous, continuous, claim=None,
            needs=(*WHOLE, "smooth samples"), reference="Wang et al. (2017)",
        ),
    ]  # fmt: skip
