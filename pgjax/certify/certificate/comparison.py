"""Several certificates side by side."""

import dataclasses
import math
from collections.abc import Iterable

from pgjax.certify.certificate.record import Certificate


class Certificates(tuple[Certificate, ...]):
    """Certificates of several estimators on one problem; ``print`` gives a table and compares them with the best."""

    __slots__ = ()

    def __new__(cls, certificates: Iterable[Certificate] = ()) -> "Certificates":
        """Tell each which of them is the best: right, and of the least variance."""
        given = tuple(certificates)
        right = [c for c in given if c.is_mean(c.gradient) and c.claim is not None and math.isfinite(c.trace)]
        best = min(right, key=lambda c: c.trace, default=None)
        return super().__new__(cls, [c if c is best else dataclasses.replace(c, best=best) for c in given])

    def __str__(self) -> str:
        header = ("estimator", "the mean is", "bias", "cosine", "variance", "n for 0.9")
        cells = [header, *(_cells(c) for c in self)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*lines, *(c.compare(c.best) for c in self if c.best is not None)])


def _cells(c: Certificate) -> tuple[str, ...]:
    right = c.is_mean(c.gradient)
    if right:
        mean = "the gradient"
    elif c.found is None:
        mean = "no direction known"
    else:
        mean = c.found[0] if c.found[1] == 1.0 else f"{c.found[1]:.3g} times {c.found[0]}"
    bias = ("none shows" if c.sampling else "0") if right else f"{100.0 * c.relative_bias:.3g} %"
    return c.estimator, mean, bias, *map(_figure, (c.cosine, c.trace, c.samples_for_cosine()))


def _figure(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "∞" if x > 0 else "–"
