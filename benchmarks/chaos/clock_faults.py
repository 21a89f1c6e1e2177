"""A clock that is set back between two runs: names and times in the ledger are then out of order."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.bench import Bench
from benchmarks.chaos.scene import LONGEST_S, Scene
from benchmarks.chaos.studies import Study, pfr_study, search_study
from benchmarks.chaos.tally import Tally

SHIFTS = ("+0", "-2h", "-3d", "+1h", "-400d")
"""What is added to the clock of each run, one after the other."""


def library() -> Path | None:
    """libfaketime, where it is installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return found[0] if found else None


def clock_set_back(bench: Bench, times: int) -> Tally:
    """A grid, whose stages are only looked up, and a search, whose questions must come back in their order."""
    tally = Tally("clock set back between killed runs, grid and search", "libfaketime: " + ", ".join(SHIFTS))
    if library() is None:
        tally.skipped = "libfaketime is not installed"
        return tally
    for number in range(times):
        study = search_study() if number % 2 else pfr_study()
        _one(bench, study, tally)
        tally.repetitions += 1
    return tally.done()


def _one(bench: Bench, study: Study, tally: Tally) -> None:
    scene = bench.scene(study, tally)
    scene.counts = study != search_study()
    with scene.watched():
        for shift in SHIFTS:
            run = scene.sweep_cold("--runner", "serial", environment={"LD_PRELOAD": str(library()), "FAKETIME": shift})
            if run.wait_for(lambda run=run: "to run" in run.output, LONGEST_S):
                run.wait(bench.random.uniform(0, scene.reference.seconds / 2))
            if run.kill():
                scene.struck(run)
            else:
                scene.judge(run)
        scene.finish()
    _ask_again(scene)
    scene.remove()


def _ask_again(scene: Scene) -> None:
    """All is cached, whichever clock wrote it."""
    run = scene.sweep()
    run.wait(LONGEST_S)
    if "0 stages ran" not in run.output:
        scene.tally.lose("redone", f"a finished study ran again: {run.output[:1000]}")


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {"clock": (clock_set_back, 6)}
