"""What befalls a results root: a disk that is full or read-only, other sweeps, kills beside them."""

import contextlib
import subprocess
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.chaos.bench import Bench
from benchmarks.chaos.reader import Reader
from benchmarks.chaos.scene import LONGEST_S, Scene
from benchmarks.chaos.serial_faults import REASONS
from benchmarks.chaos.studies import pfr_study
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.warm import Orders, Run
from orchestrator.cli import EXIT_USER_MISTAKE

PAGE = 4096
AMPLE = "64m"


def small_disks(bench: Bench, times: int) -> Tally:
    """A file system that has room for a part of the results; then it is given more."""
    tally = Tally("full disk, then more room", "a tmpfs smaller than the results")
    for _ in range(times):
        scene = bench.scene(pfr_study(), tally)
        needed = _pages(bench.untouched(scene.study) / "results")
        with _disk(scene.root, f"{round(bench.random.uniform(0.1, 0.9) * needed) * PAGE}") as remount, scene.watched():
            if remount is None:
                return _not_permitted(tally)
            _refused(scene, scene.sweep())
            remount(f"size={AMPLE}")
            scene.finish()
        tally.repetitions += 1
        scene.remove()
    return tally.done()


def read_only_disks(bench: Bench, times: int) -> Tally:
    """Half of a study is done, then the file system is read-only: a sweep is refused, what is there can be read."""
    tally = Tally("results on a read-only file system", "a tmpfs mounted read-only")
    for _ in range(times):
        scene = bench.scene(pfr_study(), tally)
        with _disk(scene.root, AMPLE) as remount, scene.watched():
            if remount is None:
                return _not_permitted(tally)
            run = scene.sweep(Orders(eager_checkpoints=True))
            run.wait(bench.random.uniform(0, scene.reference.seconds))
            run.kill()
            scene.judge(run)
            remount("ro")
            _refused(scene, scene.sweep())
            _readable(scene)
            remount("rw")
            scene.finish()
        tally.repetitions += 1
        scene.remove()
    return tally.done()


def _refused(scene: Scene, run: Run) -> None:
    """It ends with exit code 2 and the reason on its last line."""
    code = run.wait(LONGEST_S)
    scene.judge(run)
    last = (run.output.strip().splitlines() or [""])[-1]
    if code == EXIT_USER_MISTAKE and any(reason in last for reason in REASONS):
        scene.tally.struck += 1
    else:
        run.kill()
        scene.tally.lose("wrong", f"exit code {code}: {run.output[-1000:]}")


def _readable(scene: Scene) -> None:
    """Where there is a table, the commands that only read say what it holds."""
    if not (scene.root / scene.study.name / "trials.parquet").exists():
        return
    for words in (["status"], ["pareto", f"results/{scene.study.name}"], ["plan", f"{scene.study.name}.yaml"]):
        run = scene.warm.start(words, scene.folder)
        if run.wait(LONGEST_S) != 0 or "Traceback" in run.output:
            scene.tally.lose("wrong", f"{words} on read-only results: {run.output[-1000:]}")


def _not_permitted(tally: Tally) -> Tally:
    tally.skipped = "file systems cannot be mounted here"
    return tally


@contextlib.contextmanager
def _disk(folder: Path, size: str) -> Generator[Callable[[str], None] | None]:
    """A file system of its own at `folder`, and what changes its options; None where mounting is not permitted."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield lambda option: _mount_again(folder, option)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount_again(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def _pages(root: Path) -> int:
    """Of a finished results root: files are stored in whole ones."""
    return sum(-(-path.stat().st_size // PAGE) for path in root.rglob("*") if path.is_file())


def two_sweeps(bench: Bench, times: int) -> Tally:
    """Two studies that share stages and a third sweep of the first one, one root, a reader; one of them is killed."""
    tally = Tally(
        "two studies and a repeated sweep on one root, one killed", "SIGKILL at a random moment, and a reader"
    )
    twice = 0
    for _ in range(times):
        first = bench.scene(pfr_study("first", pfrs="[0, 0.5]"), tally)
        second = bench.beside(first, pfr_study("second", pfrs="[0.25, 0.5]"))
        with _reader(first, second), _reader(second, first):
            runs = [(scene, scene.sweep(Orders(eager_checkpoints=True))) for scene in (first, second, first)]
            scene, victim = bench.random.choice(runs)
            if victim.wait(bench.random.uniform(0, first.reference.seconds)) is None and victim.kill():
                scene.struck(victim)
                runs.append((scene, scene.sweep()))
            _all_end(runs, victim)
            first.finish()
            second.finish()
        twice += len(first.committed_twice())
        tally.repetitions += 1
        first.remove()
    tally.how += f"; {twice} stages were done by both, as is allowed"
    return tally.done()


def _all_end(runs: Sequence[tuple[Scene, Run]], victim: Run) -> None:
    for scene, run in runs:
        code = run.wait(LONGEST_S)
        if run is not victim and code != 0:
            run.kill()
            scene.tally.lose("wrong", f"exit code {code} beside another sweep: {run.output[-2000:]}")
        scene.judge(run)


def _reader(scene: Scene, other: Scene) -> Reader:
    """Knows the outputs of both."""
    known = replace(scene.reference, outputs={**scene.reference.outputs, **other.reference.outputs})
    return Reader(scene.root, scene.study.name, known, scene.tally)


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {
    "full-disk": (small_disks, 20),
    "read-only-disk": (read_only_disks, 10),
    "two-sweeps": (two_sweeps, 20),
}
