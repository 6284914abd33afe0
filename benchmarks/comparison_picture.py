"""Draws docs/images/comparison.svg: success of eight methods on three families along training, of five seeds each.

python benchmarks/comparison_picture.py    # needs matplotlib; reads docs/results/comparison/results.json
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = {"elpo": "#b2182b", "grpo": "#2166ac"}  # with their intervals; the others without


def main() -> None:
    curves = json.loads((DOCS / "results" / "comparison" / "results.json").read_text())["curves"]
    success = [curve for curve in curves if (curve["measure"], curve["axis"]) == ("success", "iterations")]
    families = list(dict.fromkeys(curve["family"] for curve in success))
    figure, axes = plt.subplots(1, len(families), figsize=(9.5, 3.0), sharey=True, layout="constrained")
    others = sorted({curve["method"] for curve in success} - SHOWN.keys())
    colors = dict(zip(others, plt.cm.Dark2.colors, strict=False)) | SHOWN
    for ax, family in zip(axes, families, strict=True):
        for curve in sorted((c for c in success if c["family"] == family), key=lambda c: c["method"] in SHOWN):
            method = curve["method"]
            at, mean, low, high = ([point[name] for point in curve["points"]] for name in ("at", "mean", "low", "high"))
            ax.plot(at, mean, color=colors[method], label=method, lw=2 if method in SHOWN else 1)
            if method in SHOWN:
                ax.fill_between(at, low, high, color=colors[method], alpha=0.15, lw=0)
        ax.set(title=family, xlabel="iterations of 16 tasks x 16 rollouts", xlim=(0, at[-1]), xticks=at, ylim=(0, 1))
        ax.grid(alpha=0.2)
    axes[0].set_ylabel("success on held-out tasks")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    plt.rcParams["svg.hashsalt"] = "comparison"  # the same file each time
    figure.savefig(DOCS / "images" / "comparison.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
