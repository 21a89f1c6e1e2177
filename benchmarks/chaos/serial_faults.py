"""kill -9 of the serial runner: at random moments, and at every moment at which it changes a file."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC, EROFS

from benchmarks.chaos.bench import Bench
from benchmarks.chaos.points import Kind, PointFault
from benchmarks.chaos.scene import LONGEST_S, Scene
from benchmarks.chaos.studies import Study, one_cell, pfr_study
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.warm import Orders, Run
from orchestrator.arguments import cores
from orchestrator.cli import EXIT_USER_MISTAKE

REASONS = (os.strerror(ENOSPC), os.strerror(EROFS))


def random_kills(bench: Bench, kills: int) -> Tally:
    """Sweeps that are killed again and again until they are done, until so many kills have struck."""
    tally = Tally("kill -9 of the driver, again and again until the study is done", "SIGKILL at a random moment")
    study = pfr_study()
    whole_s = bench.reference(study).seconds
    while tally.struck < kills:
        scene = bench.scene(study, tally)
        with scene.watched():
            while tally.struck < kills:
                run = scene.sweep(Orders(eager_checkpoints=True))
                if run.wait(bench.random.uniform(0, whole_s)) is not None or not run.kill():
                    scene.judge(run)
                    break
                scene.struck(run)
            scene.finish()
        tally.repetitions += 1
        scene.remove()
    return tally.done()


def kills_at_every_moment(bench: Bench, most: int) -> Tally:
    """A sweep for each moment, killed there, and swept to its end."""
    return _at_moments(
        bench, most, "kill", "kill -9 of the driver at each moment that changes a file",
        "SIGKILL at the n-th call, a write half done",
    )  # fmt: skip


def full_disk_at_every_moment(bench: Bench, most: int) -> Tally:
    """From each moment on nothing can be written, until the next sweep."""
    return _at_moments(
        bench, most, "full", "disk full from a moment on, then free again", "ENOSPC from the n-th call on",
    )  # fmt: skip


def read_only_at_every_moment(bench: Bench, most: int) -> Tally:
    """From each moment on nothing can be changed, until the next sweep."""
    return _at_moments(
        bench, most, "read-only", "results read-only from a moment on, then writable", "EROFS from the n-th call on",
    )  # fmt: skip


def _at_moments(bench: Bench, most: int, kind: Kind, fault: str, how: str) -> Tally:
    """As many at once as there are cores: each is a results root of its own."""
    tally, study = Tally(fault, how), one_cell()
    chosen = bench.some(bench.moments(study), most)
    with ThreadPoolExecutor(cores()) as pool:
        for part in pool.map(lambda moment: _struck_at(bench, study, kind, moment), chosen):
            tally.add(part)
    return tally.done()


def _struck_at(bench: Bench, study: Study, kind: Kind, moment: str) -> Tally:
    scene = bench.scene(study, Tally(kind, repetitions=1))
    point = PointFault(kind, int(moment.split()[0]), str(scene.root))
    with scene.watched():
        run = scene.sweep(Orders(eager_checkpoints=True, point=point))
        code = run.wait(LONGEST_S)
        if code is None:
            run.kill()
            scene.tally.lose("wrong", f"{kind} at {moment}: the sweep hangs")
        if code == -signal.SIGKILL and kind == "kill":
            scene.struck(run)
        else:
            _judge_refused(scene, run, moment, code)
        scene.finish()
    scene.remove()
    return scene.tally


def _judge_refused(scene: Scene, run: Run, moment: str, code: int | None) -> None:
    """A write that fails ends the sweep with exit code 2 and the reason; only checkpoints may fail in silence."""
    scene.judge(run)
    struck = bool(run.noted("struck"))
    scene.tally.struck += struck
    if code == 0:
        scene.compare()
    elif not (code == EXIT_USER_MISTAKE and struck and any(reason in run.output for reason in REASONS)):
        scene.tally.lose("wrong", f"exit code {code} at {moment}: {run.output[-2000:]}")


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {
    "serial-random": (random_kills, 200),
    "serial-moments": (kills_at_every_moment, 1000),
    "full-moments": (full_disk_at_every_moment, 60),
    "read-only-moments": (read_only_at_every_moment, 60),
}
"""Each with how often it is done; no sweep has so many as 1000 moments."""
