"""Draw accuracy against the size of the packed file, latency as colour, from a table of trials: the README's picture.

uv run python benchmarks/front_picture.py results/reference/fashion_mnist_pfr.parquet docs/fashion_mnist_pfr.png
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import orchestrator

# A mark each, so that colour is free for the latency; cividis reads the same to the colour-blind and in grey.
MARKS = {("resnet8", 16): ("o", "ResNet-8"), ("resnet8", 32): ("^", "ResNet-8, twice as wide"),
         ("resnet20", 16): ("s", "ResNet-20")}  # fmt: skip
COLOURS = "cividis"
INK, PALE = "#222222", "#999999"
TICKS_KB = (10, 12, 15, 20, 30, 40, 50)
TICKS_MS = (0.05, 0.1, 0.2, 0.5, 1.0)


def main(table: str, picture: str) -> None:
    df = orchestrator.load(table)
    figure, axes = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
    draw_front(axes, df)
    draw_networks(figure, axes, means(df[df["role"] == "cell"]))
    draw_dense(axes, df[df["baseline"] == "dense_finetuned"])
    axes.set_ylim(top=100 * df.loc[df["baseline"] == "dense_finetuned", "accuracy"].max() + 0.6)  # its label fits in
    axes.set_xlabel("packed file (kB)")
    axes.set_ylabel("test accuracy (%), mean and spread of 3 seeds")
    axes.set_title("Fashion-MNIST, one-bit weights; numbers are prune factor ratios", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=160)


def means(cells: pd.DataFrame) -> pd.DataFrame:
    seeds = cells.groupby(["model.name", "model.width", "compress.pfr"])[["accuracy", "packed_bytes", "latency_ms"]]
    return seeds.mean().assign(spread=seeds.std()["accuracy"]).reset_index()


def draw_front(axes: Axes, df: pd.DataFrame) -> None:
    front = df.pareto.front({"accuracy": "max", "packed_bytes": "min"}, over="seed").sort_values("packed_bytes")
    # Between two points of a front nothing is known to be reachable: the line goes in steps.
    kilobytes = front["packed_bytes"] / 1e3
    axes.step(kilobytes, 100 * front["accuracy"], where="post", color=PALE, zorder=1, label="Pareto front")
    axes.set_xscale("log")
    axes.set_xticks(TICKS_KB, [str(tick) for tick in TICKS_KB])
    axes.minorticks_off()


def draw_networks(figure: Figure, axes: Axes, cells: pd.DataFrame) -> None:
    fastest, slowest = float(cells["latency_ms"].min()), float(cells["latency_ms"].max())
    colours = ScalarMappable(LogNorm(fastest, slowest), COLOURS)
    for (name, width), (mark, label) in MARKS.items():
        own = cells[(cells["model.name"] == name) & (cells["model.width"] == width)]
        kilobytes, accuracy = own["packed_bytes"] / 1e3, 100 * own["accuracy"]
        axes.errorbar(kilobytes, accuracy, yerr=100 * own["spread"], fmt="none", ecolor=PALE, elinewidth=0.9, capsize=2)
        axes.scatter(
            kilobytes, accuracy, c=colours.to_rgba(own["latency_ms"].to_numpy()), marker=mark, s=38, edgecolors=INK,
            linewidths=0.5, zorder=2, label=label,
        )  # fmt: skip
        for ratio, x, y in zip(own["compress.pfr"], kilobytes, accuracy, strict=True):
            axes.annotate(f"{ratio:g}", (x, y), xytext=(-6, 5), ha="right",
                          textcoords="offset points", fontsize=7, color=INK)  # fmt: skip
    bar = figure.colorbar(colours, ax=axes, label="latency, one image, one thread (ms)", pad=0.02)
    ticks = [tick for tick in TICKS_MS if fastest <= tick <= slowest]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def draw_dense(axes: Axes, dense: pd.DataFrame) -> None:
    for (name, width), (_, label) in MARKS.items():
        own = dense[(dense["model.name"] == name) & (dense["model.width"] == width)]
        accuracy = 100 * own["accuracy"].mean()
        axes.axhline(accuracy, color=PALE, linewidth=0.9, linestyle=":", zorder=0)
        axes.annotate(f"{label} fp32, {accuracy:.2f} %", (0.01, accuracy), xycoords=("axes fraction", "data"),
                      ha="left", va="bottom", fontsize=8, color=INK)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
