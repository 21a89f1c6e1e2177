"""Draw accuracy against compression from a table of trials: the picture in the README.

uv run python benchmarks/front_picture.py results/reference/fashion_mnist_pfr.parquet docs/fashion_mnist_pfr.png
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

import orchestrator

# Okabe and Ito's colours, which the colour-blind can tell apart, and a mark each for print in grey.
STYLES = {"resnet8": ("#0072B2", "o", "ResNet-8"), "resnet20": ("#D55E00", "s", "ResNet-20")}
INK = "#222222"


def main(table: str, picture: str) -> None:
    df = orchestrator.load(table)
    means = df[df["role"] == "cell"].groupby(["model.name", "compress.pfr"])[["accuracy", "compression"]]
    cells = means.mean().join(means.std(), rsuffix="_std").reset_index()
    front = df.pareto.front({"accuracy": "max", "compression": "max"}, over="seed").sort_values("compression")
    figure, axes = plt.subplots(figsize=(7.2, 4.3), layout="constrained")
    # Between two points of a front nothing is known to be reachable: the line goes in steps.
    axes.step(
        front["compression"], 100 * front["accuracy"], where="pre", color="#999999", zorder=1, label="Pareto front"
    )
    for name, (colour, mark, label) in STYLES.items():
        draw_network(axes, cells[cells["model.name"] == name], colour, mark, label)
        finetuned = df[(df["baseline"] == "dense_finetuned") & (df["model.name"] == name)]
        dense = 100 * finetuned["accuracy"].to_numpy(dtype=float).mean()
        axes.axhline(dense, color=colour, linewidth=0.9, linestyle=":", zorder=0)
        axes.annotate(f"{label} fp32, {dense:.2f} %", (0.995, dense), xycoords=("axes fraction", "data"),
                      ha="right", va="bottom", fontsize=8, color=colour)  # fmt: skip
    axes.set_xlabel("compression (dense fp32 bytes / bytes of the packed file)")
    axes.set_ylabel("test accuracy (%), mean and spread of 3 seeds")
    axes.set_title("Fashion-MNIST, one-bit weights, filters pruned by PFR", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=160)


def draw_network(axes: Axes, cells: pd.DataFrame, colour: str, mark: str, label: str) -> None:
    axes.errorbar(
        cells["compression"], 100 * cells["accuracy"], yerr=100 * cells["accuracy_std"], fmt=mark, color=colour,
        markersize=5, elinewidth=0.9, capsize=2, linestyle="none", label=label, zorder=2,
    )  # fmt: skip
    points = zip(cells["compress.pfr"], cells["compression"], 100 * cells["accuracy"], strict=True)
    for ratio, compression, accuracy in points:
        axes.annotate(f"{ratio:g}", (compression, accuracy), xytext=(5, 4), textcoords="offset points",
                      fontsize=7, color=INK)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
