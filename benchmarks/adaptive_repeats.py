"""What adaptive repeats save on stored tables: seeds only where they decide the front, against all seeds for all.

    uv run python benchmarks/adaptive_repeats.py [--wrong 0.02 0.05 0.1 0.2] [--samples 20] [--tables search_grid]

Every config begins with its first seed; then `orchestrator.search.adaptive.uncertain` says round by round who gets one
more, and the table says what that seed gives. Three seeds can come in six orders, and all six are replayed; on
`search_grid` random halves of the configs under random orders are replayed too (--samples). Objectives are validation
columns and costs.

The front that comes out, that of the expected means, is held against that of full repeats: how often it differs at all,
how many configs are wrongly in or out, and how much hypervolume of the full means its members lack (objectives scaled
to 0..1 over the table, the worst values as reference). `plain means` counts the errors of a front that takes the means
of whatever seeds there are. Stages are counted as the forest shares them: the different stage keys of all trials that
ran.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np
import numpy.typing as npt

import orchestrator
from orchestrator.analysis.dominance import nondominated, on_grid
from orchestrator.analysis.objectives import Objective, parse_objectives
from orchestrator.analysis.rows import hashable
from orchestrator.analysis.seed_model import expected_means
from orchestrator.analysis.tables import is_config_column
from orchestrator.search.adaptive import uncertain

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]

REFERENCE = Path("results/reference")
TIMED: Mapping[str, object] = {"val_accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}}
SIZED: Mapping[str, object] = {"val_accuracy": "max", "compression": "max"}
LABELLED: Mapping[str, object] = {"val_accuracy": "max", "labels": "min"}
CASES = (
    ("search_grid", SIZED), ("search_grid", TIMED), ("fashion_mnist_pfr", SIZED), ("fashion_mnist_pfr", TIMED),
    ("al_budget", LABELLED),
)  # fmt: skip
STAGES = ("stage_keys.select", "stage_keys.train", "stage_keys.compress", "stage_keys.evaluate")


@dataclass(frozen=True, slots=True)
class Table:
    """Losses (configs, seeds, objectives) of a stored study, and the stages of each trial (configs, seeds)."""

    losses: Floats
    stages: list[list[frozenset[str]]]
    objectives: tuple[Objective, ...]

    @classmethod
    def read(cls, name: str, wanted: Mapping[str, object]) -> "Table":
        """The complete cells; a config's seeds in ascending order."""
        df = orchestrator.load(REFERENCE / f"{name}.parquet")
        df = df[(df["role"] == "cell") & (df["status"] == "complete")].sort_values("seed", kind="stable")
        objectives = parse_objectives(wanted)
        signs = [-1.0 if one.direction == "max" else 1.0 for one in objectives]
        paths = [column for column in df.columns if is_config_column(column)]
        groups = [rows for _, rows in df.groupby([hashable(df[path]) for path in paths], dropna=False, sort=False)]
        columns = [one.column for one in objectives]
        losses = np.stack([rows[columns].to_numpy(dtype=np.float64) * signs for rows in groups])
        keys = [[frozenset(row.dropna()) for _, row in rows[list(STAGES)].iterrows()] for rows in groups]
        return cls(losses, keys, objectives)

    def part(self, configs: Sequence[int], order: Sequence[int]) -> "Table":
        """Some of the configs, with the seeds in another order."""
        stages = [[self.stages[i][j] for j in order] for i in configs]
        return Table(self.losses[configs][:, order], stages, self.objectives)

    def seen(self, counts: Counts) -> list[Floats]:
        """The seeds that ran."""
        return [seeds[:n] for seeds, n in zip(self.losses, counts, strict=True)]

    def ran(self, counts: Counts) -> int:
        """How many stages did."""
        return len(
            frozenset[str]().union(*(one for row, n in zip(self.stages, counts, strict=True) for one in row[:n]))
        )

    def front(self, means: Floats) -> npt.NDArray[np.bool_]:
        """Who is on it."""
        columns = [on_grid(means[:, k], one.tolerance, relative=one.relative) for k, one in enumerate(self.objectives)]
        return nondominated(np.stack(columns, axis=1))

    def volume(self, members: npt.NDArray[np.bool_]) -> float:
        """Hypervolume of the full means of some configs."""
        means = self.losses.mean(axis=1)
        low, high = means.min(axis=0), means.max(axis=0)
        return float(moocore.hypervolume(((means - low) / (high - low))[members], ref=np.ones(means.shape[1])))


@dataclass(frozen=True, slots=True)
class Replay:
    """What one order of seeds came to."""

    trials: float
    stages: float
    rounds: int
    errors: int
    plain_errors: int
    lost_volume: float

    @classmethod
    def of(cls, table: Table, wrong: float) -> "Replay":
        """Give seeds until none is asked for."""
        configs, seeds, _ = table.losses.shape
        counts, full = np.ones(configs, dtype=np.intp), np.full(configs, seeds)
        rounds = 0
        while chosen := uncertain(table.seen(counts), table.objectives, seeds, wrong=wrong):
            counts[chosen] += 1
            rounds += 1
        whole = table.front(table.losses.mean(axis=1))
        found = table.front(expected_means(table.seen(counts), table.objectives, seeds))
        plain = table.front(np.stack([seen.mean(axis=0) for seen in table.seen(counts)]))
        return cls(
            trials=1 - counts.sum() / full.sum(),
            stages=1 - table.ran(counts) / table.ran(full),
            rounds=rounds,
            errors=int((found != whole).sum()),
            plain_errors=int((plain != whole).sum()),
            lost_volume=1 - table.volume(found) / table.volume(whole),
        )


def main() -> None:
    """Replay all tables, print a row each."""
    parser = argparse.ArgumentParser(
        description="Trials and stages that adaptive repeats save, and what they get wrong."
    )
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--tables", nargs="+", default=[name for name, _ in CASES])
    options = parser.parse_args()
    print("| table | objectives | configs, front | wrong | trials saved | stages saved | rounds | front differs "
          "| configs wrong, mean (most) | plain means | volume lost, mean (most) |")  # fmt: skip
    print("| --- " * 11 + "|")
    for name, wanted in (case for case in CASES if case[0] in options.tables):
        table = Table.read(name, wanted)
        for wrong in options.wrong:
            report(f"`{name}`", table, wrong, orders(table))
        if name == "search_grid":
            report(f"`{name}`, halves", table, 0.05, samples(table, options.samples))


def orders(table: Table) -> Iterator[Table]:
    """The table under each order of its seeds."""
    configs, seeds, _ = table.losses.shape
    for order in itertools.permutations(range(seeds)):
        yield table.part(range(configs), order)


def samples(table: Table, number: int) -> Iterator[Table]:
    """Random halves of it under random orders."""
    rng = np.random.default_rng(0)
    configs, seeds, _ = table.losses.shape
    for _ in range(number):
        half = np.sort(rng.choice(configs, configs // 2, replace=False))
        yield table.part(half.tolist(), rng.permutation(seeds).tolist())


def report(name: str, table: Table, wrong: float, tables: Iterator[Table]) -> None:
    """Print means over the replays."""
    found: list[Replay] = []
    sizes: list[tuple[int, int]] = []
    for one in tables:
        found.append(Replay.of(one, wrong))
        sizes.append((len(one.losses), int(one.front(one.losses.mean(axis=1)).sum())))
    configs, front = np.mean(sizes, axis=0)
    columns = ", ".join(one.column for one in table.objectives)
    errors = [one.errors for one in found]
    lost = [one.lost_volume for one in found]
    print(
        f"| {name} | {columns} | {configs:.0f}, {front:.0f} | {wrong:g} "
        f"| {np.mean([one.trials for one in found]):.0%} | {np.mean([one.stages for one in found]):.0%} "
        f"| {np.mean([one.rounds for one in found]):.0f} | {np.count_nonzero(errors)} of {len(found)} "
        f"| {np.mean(errors):.2f} ({max(errors)}) | {np.mean([one.plain_errors for one in found]):.2f} "
        f"| {np.mean(lost):.3%} ({max(lost):.3%}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
