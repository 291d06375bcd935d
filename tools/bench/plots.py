"""Small plots for docs/: lines with points over one axis. Owns their looks; refuses to know what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Label -> the points' places on both axes."""


def lines(
    file: Path,
    series: Series,
    *,
    x: str,
    y: str,
    fitted: Mapping[str, tuple[float, float]] | None = None,
    limit: tuple[str, float] | None = None,
) -> Path:
    """Write the file, a PNG, and return it. fitted: label -> slope and intercept, dashed. limit: a horizontal line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(6.4, 3.4), dpi=110, layout="constrained")
    for label, (places, values) in series.items():
        (line,) = axes.plot(places, values, marker="o", markersize=4, linewidth=1.4, label=label)
        if fitted and label in fitted:
            slope, intercept = fitted[label]
            ends = [0.0, max(places)]
            axes.plot(ends, [intercept + slope * end for end in ends], "--", color=line.get_color(), linewidth=0.9)
    if limit is not None:
        axes.axhline(limit[1], color="0.4", linewidth=0.9, linestyle=":", label=limit[0])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Software": None})
    plt.close(figure)
    return file
