"""Several certificates side by side."""

import math
from typing import Any

from pgjax.certify.certificate.record import Certificate


class Certificates(tuple[Certificate, ...]):
    """Certificates of several estimators on one problem; `print` gives a table and compares them with the best."""

    __slots__ = ()

    def __str__(self) -> str:
        header = ["estimator", "mean", "bias", "cosine", "variance", "n for 0.9"]
        cells = [header, *(_cells(c) for c in self)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([*lines, *self._against_the_best()])

    def _against_the_best(self) -> list[str]:
        right = [c for c in self if c.unbiased and math.isfinite(c.trace) and c.is_mean(c.gradient)]
        if not right or len(self) < 2:
            return []
        best = min(right, key=lambda c: c.trace)
        return [c.compare(best) for c in self if c is not best]


def _cells(c: Certificate) -> list[str]:
    if c.is_mean(c.gradient):
        mean = "no bias shows" if c.sampling else "the gradient"
    elif c.found is None:
        mean = "no known direction"
    else:
        mean = c.found[0] if c.found[1] == 1.0 else f"{c.found[1]:.3g} times {c.found[0]}"
    return [c.estimator, mean, f"{100.0 * c.relative_bias:.3g} %", *map(_figure, _figures(c))]


def _figures(c: Certificate) -> tuple[Any, ...]:
    return c.cosine, c.trace, c.samples_for_cosine()


def _figure(x: float) -> str:
    return f"{x:.3g}" if math.isfinite(x) else "∞" if x > 0 else "–"
