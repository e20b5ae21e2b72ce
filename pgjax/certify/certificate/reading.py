"""A certificate in sentences: an answer to the question whether a gradient is right."""

import math
from typing import Any

import numpy as np

from pgjax.certify.certificate.directions import PHRASES, name_of, of_noise

CLOSE = 1e-3  # how near a sampled factor has to be to 1/T or 1 - 1/K for that to be said


def reading(certificate: Any) -> str:
    """Say what a certificate means: the verdict, where the mean points, on what it depends, and how noisy it is.

    Args:
        certificate: the certificate.

    Returns:
        A few lines of text.
    """
    lines = [
        f"{certificate.estimator} on {certificate.problem}: {_verdict(certificate)}.",
        _direction(certificate),
        _dependence(certificate),
        _noise(certificate),
        comparison(certificate, certificate.best) if certificate.best else "",
        _split(certificate),
        _cost(certificate),
    ]
    return "\n  ".join(line for line in lines if line)


def _verdict(c: Any) -> str:
    if c.is_mean(c.gradient):
        return "no bias shows in the sample" if c.sampling else "the gradient is right"
    if c.unbiased:
        return f"the claim holds, but it is not {_truth(c)}"
    return "the gradient is wrong" if c.claim else "the estimate is biased, and claims no direction"


def _truth(c: Any) -> str:
    """What the gradient of the problem is called."""
    return name_of(next(iter(c.known), "discounted"))


def _direction(c: Any) -> str:
    if not np.isfinite(c.mean).all():
        return "The expected estimate is not finite: the mean does not exist, or a step gives NaN."
    if c.is_mean(c.gradient):
        return _right(c)
    if not c.mean.any() or c.is_mean(np.zeros_like(c.mean)):
        return (
            f"The expected estimate is zero, {_truth(c)} is not. A loss whose gradient is stopped gives that, and a "
            "baseline that equals the return."
        )
    sentences = [_away(c), _distance(c), _advice(c)]
    return " ".join(sentence for sentence in sentences if sentence)


def _right(c: Any) -> str:
    if c.sampling is None:
        close = f"to {c.relative_bias:.0e} of its length" if np.any(c.gradient) else "which is zero"
        return f"The expected estimate is {_truth(c)}, {close}, {_basis(c)}."
    return (
        f"The mean of {c.num_trajectories} sampled {_unit(c)} is {_truth(c)} within their noise. A bias of "
        f"{_percent(c.sampling.detectable)} of its length would have shown with probability 0.9."
    )


def _basis(c: Any) -> str:
    if c.method == "recursion":
        return "by the recursion for endless trajectories"
    return f"over all {c.num_trajectories} {_unit(c)}"


def _unit(c: Any, number: int = 2) -> str:
    one, several = ("value of the noise", "values of the noise") if of_noise(c.known) else ("trajectory",) * 2
    return one if number == 1 else several.replace("trajectory", "trajectories")


def _away(c: Any) -> str:
    """What the mean is in place of the gradient."""
    if c.found is None:
        turned = "points away from" if c.cosine < 0.0 else "is not"
        return f"The expected estimate {turned} {_truth(c)}, and no multiple of a direction that is known here."
    name, factor = c.found
    within = " within the noise of the sample" if c.sampling else ""
    if factor == 1.0:
        return f"The expected estimate is {PHRASES[name][0]}{within}."
    times = f"minus {PHRASES[name][0]}" if factor == -1.0 else f"{factor:.4g} times {PHRASES[name][0]}"
    opposite = "points the opposite way: it " if factor < 0.0 else ""
    return f"The expected estimate {opposite}is {times}{_origin(c, factor)}{within}."


def _origin(c: Any, factor: float) -> str:
    """Where a factor may come from."""
    tolerance = max(CLOSE * factor, 1e-9) if c.sampling else 1e-9
    group, steps = c.group_size, c.num_steps
    if c.depends_on_others and group > 1 and abs(factor - (1.0 - 1.0 / group)) < tolerance:
        return f" (1 - 1/{group}, as where a baseline contains the trajectory's own return)"
    if steps is not None and steps > 1 and abs(factor - 1.0 / steps) < tolerance:
        return f" (1/{steps}, as where a mean over the {steps} steps stands in place of their sum)"
    return ""


def _distance(c: Any) -> str:
    if not np.any(c.gradient):
        return f"The gradient is zero, and the length of the bias {c.bias_norm:.3g}."
    low, high = (100.0 * x / float(np.linalg.norm(c.gradient)) for x in c.sampling.interval) if c.sampling else (0, 0)
    interval = f" ({low:.3g} to {high:.3g} %)" if c.sampling and c.claim in (None, next(iter(c.known), None)) else ""
    return (
        f"The bias is {_percent(c.relative_bias)}{interval} of the length of the gradient, the cosine {c.cosine:.4g}."
    )


def _advice(c: Any) -> str:
    if c.found is None or c.unbiased:
        return ""
    name, factor = c.found
    if factor < 0.0:
        if of_noise(c.known):
            what = (
                "A rule gives the gradient of E f" if "expectation" in c.known else "A search gives the gradient of f"
            )
            return f"{what} itself, which is minimised."
        return "An estimator gives the gradient of minus the objective, which is minimised."
    return PHRASES[name][1]


def _dependence(c: Any) -> str:
    if not c.depends_on_others:
        return ""
    return (
        "What a trajectory adds depends on the other trajectories of the batch: the figures are for groups of "
        f"{c.group_size} (group_size)."
    )


def _noise(c: Any) -> str:
    if not math.isfinite(c.trace):
        return "The variance is infinite."
    one = "One sample" if of_noise(c.known) else "One trajectory"
    start = f"{one} has variance {c.trace:.3g} (trace of the covariance), signal to noise {c.signal_to_noise:.3g}"
    needed = c.samples_for_cosine()
    if not np.any(c.gradient):
        return f"{start}."
    if math.isinf(needed):
        return f"{start}; no number of them keeps a cosine of 0.9 to the gradient."
    count = math.ceil(needed - 1e-9)
    return f"{start}; {'one' if count == 1 else f'a mean over {count}'} keeps a cosine of 0.9 to the gradient."


def _split(c: Any) -> str:
    if c.terms is None or not c.trace > 0.0:
        return ""
    state, action, after, between = (100.0 * x / c.trace for x in vars(c.terms).values())
    return (
        f"Of the variance {state:.0f} % come from the states, {action:.0f} % from the actions, {after:.0f} % from what "
        f"follows them and {between:.0f} % from between the steps."
    )


def _cost(c: Any) -> str:
    if c.cost is None:
        return ""
    each = 1e6 * c.cost.run_seconds / c.cost.batch_size
    return (
        f"It takes {each:.2g} µs for a trajectory in a batch of {c.cost.batch_size}, {c.cost.compile_seconds:.2g} s to "
        "compile."
    )


def comparison(one: Any, other: Any) -> str:
    """Say how many times the trajectories of another estimator one needs: see `Certificate.compare`.

    Args:
        one: a certificate.
        other: another, on the same problem.

    Returns:
        A sentence.
    """
    if one.unbiased and other.unbiased and one.claim == other.claim and math.isfinite(one.trace + other.trace):
        mine, others, purpose = one.trace, other.trace, "the same variance"
    else:
        mine, others, purpose = one.samples_for_cosine(), other.samples_for_cosine(), "a cosine of 0.9 to the gradient"
    if math.isinf(mine) or math.isinf(others):
        failing = [x.estimator for x, n in ((one, mine), (other, others)) if math.isinf(n)]
        return f"{' and '.join(failing)} cannot reach {purpose}, however many {_unit(one)} there are."
    if others == 0.0:
        return f"{other.estimator} has no variance, {one.estimator} {'neither' if mine == 0.0 else 'has'}."
    samples = "samples" if of_noise(one.known) else "trajectories"
    return f"{one.estimator} needs {mine / others:.3g} times the {samples} of {other.estimator} for {purpose}."


def _percent(x: float) -> str:
    return f"{100.0 * x:.3g} %"
