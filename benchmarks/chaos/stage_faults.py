"""Stages that never end, stand still, or want more memory than they may have."""

import contextlib
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

from benchmarks.chaos import faulty_network
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.ray_faults import ended
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.studies import Study, pfr_study
from benchmarks.chaos.tally import Tally
from orchestrator.cli import EXIT_FAILED_TRIALS

GROUPS = Path("/sys/fs/cgroup")
ROOM_MIB, MORE_MIB, WANTED_MIB = 2048, 6144, 2400
"""A worker has no 2 GiB of its own; with what it is ordered to hold it has more than that, and less than 6 GiB."""

MONITOR = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}

WORDS = ("--allow-code", "--cores", "1")


def own_study(name: str, resources: str = "") -> Study:
    """A study over the network that can be told to do harm; `resources` are those keys of the study."""
    text = f"""\
study: {name}
base:
  data: {{name: digits, train_size: 200}}
  model: {{name: "faulty_network:make"}}
  train: {{epochs: 2, batch_size: 32, precision: fp32}}
  compress: {{method: l1_prune, epochs: 1}}
axes:
  compress.pfr: [0.25, 0.5]
seeds: 1
objectives: {{accuracy: max, compression: max}}
{resources}"""
    network = Path(faulty_network.__file__)
    return Study(name, text, files=(network,), words=("--allow-code",))


def hangs(bench: Bench, times: int) -> Tally:
    """A loop without end in a stage, on Ray and in one process: it is stopped at its time, and tried again."""
    tally = Tally("a stage that never ends", "an endless loop; resources.timeout")
    study = own_study("hanging", "resources: {cpus: 1, timeout: 40s}\n")
    for number in range(times):
        scene = bench.scene(study, tally)
        _order(scene, "hang")
        words = WORDS if number % 2 == 0 else ("--allow-code", "--runner", "serial")
        _ends_well(scene, words, "longer than the 40 s")
    return tally.done()


def stopped_workers(bench: Bench, times: int) -> Tally:
    """A worker that stands still in a stage is killed at its time, and the stage tried again."""
    tally = Tally("a worker that stands still", "SIGSTOP; resources.timeout")
    study = own_study("stopped", "resources: {cpus: 1, timeout: 20s}\n")
    for _ in range(times):
        scene = bench.scene(study, tally)
        _order(scene, "stop")
        _ends_well(scene, WORDS, "took longer than 20 s and could not be stopped otherwise")
    return tally.done()


def memory_ladder(bench: Bench, times: int) -> Tally:
    """Every stage holds more than it is given first; the declared ladder gives it enough."""
    tally = Tally("stages that want more memory, and get it", "resources.memory and the ladder retry.oom")
    rules = f"resources: {{cpus: 1, memory: {ROOM_MIB}MiB}}\nretry: {{oom: {{memory: [{MORE_MIB}MiB]}}}}\n"
    for number in range(times):
        scene = bench.scene(own_study("hungry", rules), tally)
        _order(scene, f"hold {WANTED_MIB}")
        _ends_well(scene, WORDS if number % 2 == 0 else ("--allow-code", "--runner", "serial"), "its process held")
    return tally.done()


def memory_row(bench: Bench, times: int) -> Tally:
    """No step is enough: the trials are rows that say so, and a later sweep that may have more makes them."""
    tally = Tally("stages that want more memory than there is", "resources.memory; rows, then a sweep with more")
    scant = f"resources: {{cpus: 1, memory: {ROOM_MIB}MiB}}\nretry: {{oom: 0}}\n"
    ample = f"resources: {{cpus: 1, memory: {MORE_MIB}MiB}}\n"
    for _ in range(times):
        scene = bench.scene(own_study("hungry", scant), tally)
        _order(scene, f"hold {WANTED_MIB}")
        run = scene.sweep_cold(*WORDS)
        ended(scene, run, EXIT_FAILED_TRIALS)
        tally.struck += "its process held" in run.output
        # Not beside a reader: it would meet the study file of before.
        bench.beside(scene, own_study("hungry", ample)).finish()
        tally.repetitions += 1
        scene.remove()
    return tally.done()


def kernel_kills(bench: Bench, times: int) -> Tally:
    """The kernel ends a worker for want of memory in the sweep's control group; the stage is tried again."""
    tally = Tally("a worker that the kernel ends for want of memory", "memory limit of a control group")
    study = own_study("killed")
    for _ in range(times):
        with _group(ROOM_MIB * 3) as group:
            if group is None:
                tally.skipped = "no control group can be made here"
                return tally
            scene = bench.scene(study, tally)
            _order(scene, f"grow {ROOM_MIB * 4}")
            _ends_well(scene, WORDS, "the kernel ended its process", group)
    return tally.done()


def monitored(bench: Bench, times: int) -> Tally:
    """Ray's own monitor of the machine's memory ends whoever works: rows that say so, and then a sweep without it."""
    tally = Tally(
        "a worker that Ray's memory monitor ends", "a threshold that every machine is above; rows, then a sweep"
    )
    study = pfr_study("monitored", epochs=200, pfrs="[0.5]", seeds=1)
    for _ in range(times):
        scene = bench.scene(study, tally)
        run = scene.sweep_cold("--cores", "1", environment=MONITOR)
        ended(scene, run, EXIT_FAILED_TRIALS)
        tally.struck += "Ray's memory monitor ended its process" in run.output
        scene.finish("--retry-failed")
        tally.repetitions += 1
        scene.remove()
    return tally.done()


def _ends_well(scene: Scene, words: tuple[str, ...], sign: str, group: Path | None = None) -> None:
    """A sweep that tells of the fault by `sign` and ends as if nothing had been."""
    with scene.watched():
        run = scene.sweep_cold(*words, within=group)
        ended(scene, run)
        scene.tally.struck += sign in run.output
        if sign not in run.output:
            scene.tally.lose("wrong", f"the fault is not told of: {run.output[-2000:]}")
        shutil.rmtree(scene.folder / "harm")
        scene.finish()
    scene.tally.repetitions += 1
    scene.remove()


def _order(scene: Scene, what: str) -> None:
    (scene.folder / "harm").mkdir()
    (scene.folder / "harm" / what).touch()


@contextlib.contextmanager
def _group(mib: int) -> Generator[Path | None]:
    """A control group below that of this process, with so much memory; None where none can be made."""
    group = _own_group()
    made = group / f"chaos-{os.getpid()}" if group else None
    limit = "memory.limit_in_bytes" if made and "memory" in made.parts[:5] else "memory.max"
    try:
        if made is None:
            yield None
            return
        made.mkdir()
        (made / limit).write_text(str(mib * 2**20))
    except OSError:
        yield None
        return
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()


def _own_group() -> Path | None:
    """Of this process, in either version of the kernel's control groups."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if "memory" in controllers.split(","):
            return GROUPS / "memory" / place.lstrip("/")
        if not controllers and (GROUPS / "cgroup.controllers").exists():
            return GROUPS / place.lstrip("/")
    return None


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {
    "hang": (hangs, 4),
    "stopped-worker": (stopped_workers, 3),
    "memory-ladder": (memory_ladder, 2),
    "memory-row": (memory_row, 2),
    "kernel-oom": (kernel_kills, 2),
    "memory-monitor": (monitored, 2),
}
