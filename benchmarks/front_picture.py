"""Draw accuracy against the size of the packed file from a table of trials: the picture in the README.

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
TICKS_KB = (10, 12, 15, 20, 30, 40)


def main(table: str, picture: str) -> None:
    df = orchestrator.load(table)
    seeds = df[df["role"] == "cell"].groupby(["model.name", "compress.pfr"])[["accuracy", "packed_bytes"]]
    cells = seeds.mean().assign(spread=seeds.std()["accuracy"]).reset_index()
    front = df.pareto.front({"accuracy": "max", "packed_bytes": "min"}, over="seed").sort_values("packed_bytes")
    figure, axes = plt.subplots(figsize=(7.2, 4.3), layout="constrained")
    # Between two points of a front nothing is known to be reachable: the line goes in steps.
    kilobytes = front["packed_bytes"] / 1e3
    axes.step(kilobytes, 100 * front["accuracy"], where="post", color="#999999", zorder=1, label="Pareto front")
    axes.set_xscale("log")
    axes.set_xticks(TICKS_KB, [str(tick) for tick in TICKS_KB])
    axes.minorticks_off()
    for name, (colour, mark, label) in STYLES.items():
        draw_network(axes, cells[cells["model.name"] == name], colour, mark, label)
        finetuned = df[(df["baseline"] == "dense_finetuned") & (df["model.name"] == name)]
        dense = 100 * finetuned["accuracy"].to_numpy(dtype=float).mean()
        axes.axhline(dense, color=colour, linewidth=0.9, linestyle=":", zorder=0)
        axes.annotate(f"{label} fp32, {dense:.2f} %", (0.01, dense), xycoords=("axes fraction", "data"),
                      ha="left", va="bottom", fontsize=8, color=colour)  # fmt: skip
    axes.set_xlabel("packed file (kB)")
    axes.set_ylabel("test accuracy (%), mean and spread of 3 seeds")
    axes.set_title("Fashion-MNIST, one-bit weights, filters pruned by PFR", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=160)


def draw_network(axes: Axes, cells: pd.DataFrame, colour: str, mark: str, label: str) -> None:
    axes.errorbar(
        cells["packed_bytes"] / 1e3, 100 * cells["accuracy"], yerr=100 * cells["spread"], fmt=mark, color=colour,
        markersize=5, elinewidth=0.9, capsize=2, linestyle="none", label=label, zorder=2,
    )  # fmt: skip
    points = zip(cells["compress.pfr"], cells["packed_bytes"] / 1e3, 100 * cells["accuracy"], strict=True)
    for ratio, kilobytes, accuracy in points:
        axes.annotate(f"{ratio:g}", (kilobytes, accuracy), xytext=(-6, 5), ha="right", textcoords="offset points",
                      fontsize=7, color=INK)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
