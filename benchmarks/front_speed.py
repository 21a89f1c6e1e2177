"""Seconds from a table on disk to its front, and to the certainty of membership over seeds.

    uv run python benchmarks/front_speed.py [--rows 1000000] [--repeated-rows 100000] [--draws 1000] [--rounds 5]

The tables are drawn: 40 columns with the names and types of trials.parquet, compressed as a sweep writes them. `random`
rows are independent in three objectives; `simplex` rows all lie on one plane, so that none dominates another. Timed is
what a user writes: `orchestrator.load` of four columns, then `df.pareto.front`. Membership takes cells of five seeds
(means on a noisy surface, and on a simplex, which is the worst case) with their whole table in memory.

Printed are medians of seconds passed and of the processor's: on a busy machine the former holds what others took.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import orchestrator
from orchestrator.analysis import pareto, tables
from orchestrator.analysis.membership import membership

COLUMNS = 40
SEEDS = 5
OBJECTIVES: Mapping[str, object] = {"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}}
PLAIN: Mapping[str, object] = {"accuracy": "max", "compression": "max", "wall_time_s": "min"}
Points = npt.NDArray[np.float64]


def random_points(rows: int) -> Points:
    return np.random.default_rng(0).random((rows, 3))


def simplex_points(rows: int) -> Points:
    """On the plane where the three losses add up to 1."""
    return 1 - np.random.default_rng(1).dirichlet([1, 1, 1], rows)


def trials(points: Points, seeds: int = 1) -> pa.Table:
    """Trials with these gains (the third is made a time), each cell repeated in so many rows."""
    rows, source = len(points), np.random.default_rng(2)
    cells = np.arange(rows) // seeds
    columns: dict[str, object] = {
        "study": pa.repeat("drawn", rows).dictionary_encode().cast(pa.string()),
        "trial_id": [f"{i:016x}" for i in range(rows)],
        "role": pa.repeat("cell", rows),
        "seed": np.arange(rows) % seeds,
        "status": pa.repeat("complete", rows),
        "accuracy": points[:, 0],
        "compression": 1 + 99 * points[:, 1],
        "wall_time_s": 1000 * (1.001 - points[:, 2]),
        "mixed_hosts": np.zeros(rows, dtype=np.bool_),
        "compress.pfr": (cells % 100) / 100,
        "compress.threshold": (cells // 100 % 100) / 100,
        "train.epochs": cells // 10_000,
    }
    others = [name for name, one in tables.COLUMNS.items() if one.dtype == "double" and name not in columns]
    for name in others[: COLUMNS - len(columns)]:
        columns[name] = np.round(source.random(rows), 4)
    return pa.table(columns)


def noisy(points: Points) -> Points:
    """Each cell in five seeds, with a spread of a hundredth of the range."""
    spread = np.random.default_rng(3).normal(0, 0.01, (len(points) * SEEDS, 3))
    return np.repeat(points, SEEDS, axis=0) + spread


def timed(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of the seconds passed and of the processor's, after one turn to warm up."""
    passed, busy = list[float](), list[float]()
    for _ in range(rounds + 1):
        start, start_busy = time.perf_counter(), time.process_time()
        work()
        passed.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    return median(passed[1:]), median(busy[1:])


def report(name: str, found: object, seconds: tuple[float, float]) -> None:
    print(f"{name:58} {found!s:>9} {seconds[0]:8.3f} {seconds[1]:8.3f}")


def fronts(folder: Path, kind: str, points: Points, rounds: int) -> None:
    names = ["trial_id", *OBJECTIVES]
    wanted = OBJECTIVES if kind == "random" else PLAIN
    path = folder / f"{kind}.parquet"
    pq.write_table(trials(points), path, compression="zstd")

    def front() -> pd.DataFrame:
        return pareto.front(orchestrator.load(path, columns=names), wanted, role=None)

    report(f"{kind}: load 4 of {COLUMNS} columns, front", len(front()), timed(front, rounds))
    report(f"{kind}: load alone", "", timed(lambda: orchestrator.load(path, columns=names), rounds))
    losses = -points
    report(f"{kind}: moocore's sort alone", "", timed(lambda: moocore.is_nondominated(losses), rounds))


def memberships(kind: str, points: Points, draws: int, rounds: int) -> None:
    df = trials(noisy(points), SEEDS).to_pandas()

    def members() -> pd.DataFrame:
        return membership(df, PLAIN, draws=draws)

    sometimes = int((members()["membership"] > 0).sum())
    what = f"{kind}: membership, {len(points)} cells x {SEEDS} seeds, {draws} draws"
    report(what, sometimes, timed(members, rounds))


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeated-rows", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(None if arguments is None else list(arguments))
    print(f"{platform.machine()}, pandas {pd.__version__}, pyarrow {pa.__version__}, moocore {moocore.__version__}")
    print(f"{'':58} {'found':>9} {'seconds':>8} {'cpu s':>8}")
    kinds = {"random": random_points, "simplex": simplex_points}
    with tempfile.TemporaryDirectory() as folder:
        for kind, drawn in kinds.items():
            fronts(Path(folder), kind, drawn(options.rows), options.rounds)
    for kind, drawn in kinds.items():
        memberships(kind, drawn(options.repeated_rows // SEEDS), options.draws, min(options.rounds, 3))


if __name__ == "__main__":
    main()
