"""How much of the front each search has found after so many trials: searches replayed on a stored table.

    uv run python benchmarks/hypervolume_per_trial.py docs/hypervolume_per_trial.png [--trials 200] [--repeats 20]

The study is search_grid.yaml, 540 configs, all of them in results/reference/search_grid.parquet: a trial is a look-up.
Each search runs through the program's own `Sampler`, one config at a time, told the means over the three seeds of
val_accuracy, compression and wall_time_s; a config that is asked for again is told at once and is no trial, as in a
sweep. The hypervolume of what was tried so far is taken in the same means, each objective scaled to 0..1 over the table
with the worst values as reference, as a share of the whole table's. Nothing reads the test images.

Curves are the mean of the repeats, which differ in the search's seed, and the band holds the middle 80 %; the grid has
one order. Finished repeats are kept in --out, by the table's digest, so that a run that was cut off goes on.
"""

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import moocore
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

import orchestrator
from orchestrator.search.sampler import Sampler
from orchestrator.spec.cells import listed
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import SearchName, SearchSpec
from orchestrator.spec.space import Space, State
from orchestrator.spec.yaml_nodes import Value

Floats = npt.NDArray[np.float64]

STUDY, TABLE = "search_grid", Path("results/reference/search_grid.parquet")
SIGNS = {"val_accuracy": -1.0, "compression": -1.0, "wall_time_s": 1.0}
SEARCHES: tuple[SearchName, ...] = ("grid", "random", "qmc", "tpe", "nsga2", "nsga3")
# Okabe and Ito's colours for the colour-blind, and dashes, so that grey print tells the lines apart too.
LOOKS: Mapping[SearchName, tuple[str, Any]] = {
    "grid": ("#999999", ":"), "random": ("#000000", "-"), "qmc": ("#56b4e9", "--"),
    "tpe": ("#d55e00", "-"), "nsga2": ("#009e73", "-."), "nsga3": ("#cc79a7", (0, (3, 1, 1, 1, 1, 1))),
}  # fmt: skip
PANELS: tuple[tuple[SearchName, ...], ...] = (("tpe", "random", "grid"), ("nsga2", "nsga3", "qmc", "random"))
SHOWN = (20, 50, 100, 200)
ENOUGH = 0.95
MAX_REPEATED = 100


def main() -> None:
    """Replay all searches, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description="Hypervolume against trials for each search.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/.hypervolume_per_trial"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[SearchName, int]] = [
        (name, seed) for seed in range(options.repeats) for name in SEARCHES if seed == 0 or name != "grid"
    ]
    curves: dict[SearchName, list[Floats]] = {name: [] for name in SEARCHES}
    repeated: dict[SearchName, list[int]] = {name: [] for name in SEARCHES}
    with ProcessPoolExecutor(options.processes) as pool:
        done = pool.map(kept, *zip(*((options.out, *job, options.trials) for job in jobs), strict=True))
        for (name, _), (curve, again) in zip(jobs, done, strict=True):
            curves[name].append(np.array(curve))
            repeated[name].append(again)
    report(curves, repeated)
    draw(curves, options.picture)


def kept(folder: Path, name: SearchName, seed: int, trials: int) -> tuple[list[float], int]:
    """Shares of the hypervolume after each trial, and how often a config was asked for again."""
    digest = hashlib.sha256(TABLE.read_bytes()).hexdigest()[:12]
    notes = folder / f"{digest}-{name}-{seed}-{trials}.json"
    if not notes.exists():
        notes.write_text(json.dumps(replay(name, seed, trials)))
    curve, again = json.loads(notes.read_text())
    return curve, again


def replay(name: SearchName, seed: int, trials: int) -> tuple[list[float], int]:
    """One search on the table."""
    spec = load_spec(STUDY)
    space = Space(spec, listed(spec))
    known = means(space)
    asked = grid_order(space) if name == "grid" else ()
    tried: dict[State, tuple[float, ...]] = {}
    curve: list[float] = []
    volume = Volume(np.array(list(known.values())))
    again = 0
    searching = Search(Sampler(space, SearchSpec(name, trials, seed), len(SIGNS)), known)
    for state in asked or searching:
        again += state in tried
        if state not in tried:
            tried[state] = known[state]
            curve.append(volume.share(list(tried.values())))
        if len(curve) == trials or searching.stuck:
            break
    return curve, again


class Search:
    """The states that a sampler asks for, each told at once."""

    def __init__(self, sampler: Sampler, known: Mapping[State, tuple[float, ...]]) -> None:
        self._sampler = sampler
        self._known = known
        self._seen: set[State] = set()
        self._since_new = 0

    @property
    def stuck(self) -> bool:
        """Whether nothing new was asked for in a long time; a sweep would now draw by chance."""
        return self._since_new >= MAX_REPEATED

    def __iter__(self) -> Iterator[State]:
        while True:
            asked = self._sampler.ask()
            self._sampler.tell(asked.number, self._known[asked.state])
            self._since_new = self._since_new + 1 if asked.state in self._seen else 0
            self._seen.add(asked.state)
            yield asked.state


def means(space: Space) -> dict[State, tuple[float, ...]]:
    """Losses of every config, the means over its seeds, by its place in the space."""
    df = orchestrator.load(TABLE)
    paths = [axis.path for axis in space.axes]
    over_seeds = df[df["role"] == "cell"].groupby(paths)[list(SIGNS)].mean()
    found: dict[State, tuple[float, ...]] = {}
    for values, row in zip(over_seeds.index, over_seeds.to_numpy(), strict=True):
        state = tuple(space.values[i].index(value) for i, value in enumerate(cast("tuple[Value, ...]", values)))
        found[(*state, 0)] = tuple(float(value) for value in row * np.array(list(SIGNS.values())))
    return found


def grid_order(space: Space) -> tuple[State, ...]:
    """The grid as a sweep runs it: the last axis the fastest."""
    return tuple((*places, 0) for places in itertools.product(*(range(len(values)) for values in space.values)))


class Volume:
    """Hypervolumes as shares of that of all configs."""

    def __init__(self, losses: Floats) -> None:
        self._low, self._high = losses.min(axis=0), losses.max(axis=0)
        self._whole = self._of(losses)

    def _of(self, losses: Floats) -> float:
        scaled = (losses - self._low) / (self._high - self._low)
        return float(moocore.hypervolume(scaled, ref=np.ones(losses.shape[1])))

    def share(self, losses: list[tuple[float, ...]]) -> float:
        """Of these configs."""
        return self._of(np.array(losses)) / self._whole


def report(curves: Mapping[SearchName, list[Floats]], repeated: Mapping[SearchName, list[int]]) -> None:
    """Print the means after some trials, runs behind the random one of the same seed, and asks for what was known."""
    shown = [n for n in SHOWN if n <= len(curves["random"][0])]
    places = np.array(shown) - 1
    print(f"| search | {' | '.join(f'after {n}' for n in shown)} | behind random | trials to 95 % | asked again |")
    print("| --- " * (len(shown) + 4) + "|")
    chance = padded(curves["random"])[:, places]
    for name, found in curves.items():
        table = padded(found)
        after = " | ".join(f"{share:.3f}" for share in table[:, places].mean(axis=0))
        behind = ", ".join(str(n) for n in (table[:, places] < chance).sum(axis=0)) if name != "random" else ""
        hits = [int(np.argmax(curve >= ENOUGH)) + 1 for curve in table if curve[-1] >= ENOUGH]
        told = f"{np.median(hits):.0f} ({len(hits)} of {len(table)})" if hits else f"none of {len(table)}"
        print(f"| {name} | {after} | {behind} | {told} | {np.mean(repeated[name]):.0f} |")


def padded(curves: list[Floats]) -> Floats:
    """Shape (repeats, trials); a search that got stuck stays where it was."""
    longest = max(map(len, curves))
    return np.stack([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves])


def draw(curves: Mapping[SearchName, list[Floats]], picture: Path) -> None:
    """Mean and middle 80 % against the trials; two panels, so that bands can be told apart."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(9.2, 4.0), sharey=True, layout="constrained")
    for axes, names in zip(panels, PANELS, strict=True):
        for name in names:
            line(axes, name, padded(curves[name]))
        axes.set_xlabel("trials (configs, each the mean of 3 seeds)")
        axes.set_xlim(1, len(curves["random"][0]))
        axes.set_ylim(0, 1)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.42) if "grid" in names else None)
    panels[0].set_ylabel("share of the whole grid's hypervolume")
    figure.savefig(picture, dpi=160)


def line(axes: Axes, name: SearchName, table: Floats) -> None:
    """One search: its mean and, where it has several runs, its band."""
    colour, dashes = LOOKS[name]
    trials = np.arange(1, table.shape[1] + 1)
    axes.plot(trials, table.mean(axis=0), color=colour, linestyle=dashes, linewidth=1.8, label=name)
    if len(table) > 1:
        low, high = np.quantile(table, [0.1, 0.9], axis=0)
        axes.fill_between(trials, low, high, color=colour, alpha=0.15, linewidth=0)


if __name__ == "__main__":
    main()
