"""What the scripts here share: where a figure was measured, how it is drawn, how a mean gets its interval."""

import datetime
import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats

mpl.use("Agg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # safe for the colour-blind


def setting() -> dict[str, str]:
    """Say on what a figure was measured: device, number of cores, versions, date."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax", "gymnax", "pgjax")},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


class Beside:
    """Measures how much of the machine's processors others used: seconds are worth something only where it is little.

    `share` is the processor time of all other processes since the start, over the time that went by and the number of
    processors; NaN where the system does not count it.
    """

    def __init__(self) -> None:
        self.started, self.busy, self.own = time.perf_counter(), _busy_seconds(), time.process_time()

    @property
    def share(self) -> float:
        """In [0, 1]."""
        spent = time.process_time() - self.own
        passed = (time.perf_counter() - self.started) * (os.cpu_count() or 1)
        return max(_busy_seconds() - self.busy - spent, 0.0) / passed


def _busy_seconds() -> float:
    """Seconds that all processors together have worked since the machine started."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _wait, interrupt, soft, steal, *_ = (int(x) for x in fields)
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")


def use_quick_code_generators() -> None:
    """Choose the code generators of XLA's CPU backend that compile in a third of the time, where jax has that choice.

    For scripts that run each of many programs a few times. Call it before anything is computed.
    """
    if jax.__version_info__ < (0, 11):
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ.setdefault("XLA_FLAGS", flags)


def quick_to_compile() -> None:
    """Leave most optimisations out: for the forms of the scripts that only show that they run."""
    jax.config.update("jax_disable_most_optimizations", True)


def write_json(path: Path, content: Any) -> None:
    """Write figures with the setting they were measured in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"setting": setting(), **content}, indent=1, default=float) + "\n")


def fingerprint(*content: Any) -> str:
    """Tell apart what would come out differently by its settings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def axes(columns: int = 1, width: float = 5.2, height: float = 3.6) -> tuple[Any, Any]:
    """Make a figure in the house style: light grid, no box, one legend."""
    figure, grid = plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    for panel in grid[0]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
    return figure, grid[0]


def save(figure: Any, path: Path) -> None:
    """Write a PNG and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def interquartile_mean(x: Any, axis: int | None = None) -> Any:
    """Compute the mean of the middle half: of all numbers, a float, or along an axis."""
    mean = scipy.stats.trim_mean(x, 0.25, axis=axis)
    return float(mean) if axis is None else mean


def bootstrap(
    *samples: Any, statistic: Any = interquartile_mean, repeats: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of a statistic; several samples are resampled each by itself.

    The statistic takes `axis`, so that it is computed for all resamples at once.
    Of a sample of one, or with a number that is none, there is no interval: NaN.
    """
    samples = tuple(np.ravel(x) for x in samples)
    if min(len(x) for x in samples) < 2 or not all(np.isfinite(x).all() for x in samples):
        return float("nan"), float("nan")
    found = scipy.stats.bootstrap(
        samples, statistic, n_resamples=repeats, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)


def markdown(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Format a table in Markdown: the first `left` columns to the left, the others to the right."""
    rule = [":--"] * left + ["--:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def table(header: list[str], rows: list[list[str]]) -> str:
    """Format a plain table: first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    align = lambda row: "  ".join(  # noqa: E731
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "\n".join([align(header), "  ".join("-" * width for width in widths), *map(align, rows)])
