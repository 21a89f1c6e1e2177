"""SIGKILL of what a sweep on Ray consists of: its driver, its workers, Ray's own processes, a node, the head."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import psutil

from benchmarks.chaos.bench import Bench
from benchmarks.chaos.cold import GONE_S, ColdRun, has_ended, survivors
from benchmarks.chaos.scene import LONGEST_S, Scene
from benchmarks.chaos.studies import Study, pfr_study
from benchmarks.chaos.tally import Tally
from orchestrator.cli import EXIT_RESUMABLE

AT_WORK = "ray::StageWorker.train"
"""What Ray calls a worker that holds a task."""

NO_START = "Ray did not start"
RAY_STARTS = 5
RUN_S = 2 * LONGEST_S
"""A sweep on Ray pays for Ray's start."""


def ray_study() -> Study:
    """Stages long enough to be struck."""
    return pfr_study("on_ray", epochs=15)


def driver_kills(bench: Bench, kills: int) -> Tally:
    """Sweeps on Ray whose driver is killed again and again; Ray's processes must end with it."""
    tally = Tally("kill -9 of the driver on Ray, again and again", "SIGKILL at a random moment of the work")
    while tally.struck < kills:
        with _watched_scene(bench, tally) as scene:
            while tally.struck < kills and _driver_killed(bench, scene):
                pass
        tally.repetitions += 1
    return tally.done()


def _driver_killed(bench: Bench, scene: Scene) -> bool:
    """Whether it was; otherwise the sweep came to its end."""
    run = _at_work_on_ray(scene)
    run.wait(bench.random.uniform(0, scene.reference.seconds))
    family, busy = run.family(), bool(run.members(AT_WORK))
    if not run.kill():
        scene.judge(run)
        return False
    scene.struck(run, in_stage=busy)
    left = survivors(family)
    if left:
        scene.tally.lose("wrong", f"processes outlive their driver: {left}", len(left))
    return True


def _at_work_on_ray(scene: Scene) -> ColdRun:
    """A sweep whose workers are at work, or one that ended; on a busy machine Ray itself may need a second try."""
    run = scene.sweep_cold("--cores", "2")
    for _ in range(RAY_STARTS):
        if run.wait_for(lambda run=run: bool(run.members(AT_WORK)), RUN_S) or NO_START not in run.output:
            break
        scene.judge(run)
        run = scene.sweep_cold("--cores", "2")
    return run


def worker_kills(bench: Bench, kills: int) -> Tally:
    """In each sweep one worker is killed while it holds a task; the sweep must tell of it and end well."""
    return _victims(bench, kills, "kill -9 of a worker that holds a task", AT_WORK)


def raylet_kills(bench: Bench, kills: int) -> Tally:
    """The same with Ray's process for the machine."""
    return _victims(bench, kills, "kill -9 of the raylet of a local Ray", "/raylet")


def head_kills(bench: Bench, kills: int) -> Tally:
    """The same with Ray's own store of what runs where."""
    return _victims(bench, kills, "kill -9 of the GCS of a local Ray", "gcs_server")


def _victims(bench: Bench, kills: int, fault: str, victim: str) -> Tally:
    tally = Tally(fault, "SIGKILL while a worker was at work")
    for _ in range(kills):
        with _watched_scene(bench, tally) as scene:
            run = _at_work_on_ray(scene)
            run.wait(bench.random.uniform(0, scene.reference.seconds / 2))
            _strike_one(bench, scene, run, victim)
            ended(scene, run)
        tally.repetitions += 1
    return tally.done()


def _strike_one(bench: Bench, scene: Scene, run: ColdRun, victim: str) -> None:
    """Kill one of the processes of that name while a stage is under way, and see it die."""
    until_busy = run.wait_for(lambda: bool(run.members(AT_WORK)) and bool(run.members(victim)), RUN_S)
    chosen = run.members(victim)
    if not until_busy or not chosen:
        return
    one = bench.random.choice(chosen)
    with contextlib.suppress(psutil.Error):
        one.kill()
        run.wait_for(lambda: has_ended(one), GONE_S)
        scene.tally.struck += 1
        scene.tally.in_stage += 1


def ended(scene: Scene, run: ColdRun, expect: int = 0) -> None:
    """The end of a sweep that lost something under it."""
    code = run.wait(RUN_S)
    if code != expect:
        family = run.family()
        run.kill()
        survivors(family)
        scene.tally.lose("wrong", f"exit code {code}, not {expect}: {run.output[-2000:]}")
    scene.judge(run)


def node_kills(bench: Bench, kills: int) -> Tally:
    """A cluster of two nodes loses one of them while both are at work."""
    tally = Tally("a node of a Ray cluster is lost", "ray.cluster_utils, SIGKILL of all its processes")
    for _ in range(kills):
        with _watched_scene(bench, tally) as scene, _cluster() as cluster:
            node = cluster.add_node(num_cpus=1)
            run = scene.sweep_cold("--address", cluster.address)
            if run.wait_for(lambda node=node: _at_work(node), RUN_S):
                cluster.remove_node(node, allow_graceful=False)
                tally.struck += run.wait(0) is None
                tally.in_stage += 1
            ended(scene, run)
        tally.repetitions += 1
    return tally.done()


def cluster_head_kills(bench: Bench, kills: int) -> Tally:
    """The head of a cluster dies; the sweep stops resumable, and goes on when a head is there again."""
    tally = Tally(
        "the head of a Ray cluster is lost, and there again", "ray.cluster_utils, SIGKILL of all its processes"
    )
    for _ in range(kills):
        with _watched_scene(bench, tally) as scene:
            with _cluster() as cluster:
                run = scene.sweep_cold("--address", cluster.address)
                if run.wait_for(lambda cluster=cluster: _at_work(cluster.head_node), RUN_S):
                    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
                    tally.struck += run.wait(0) is None
                    tally.in_stage += 1
                ended(scene, run, EXIT_RESUMABLE)
            with _cluster() as cluster:
                ended(scene, scene.sweep_cold("--address", cluster.address))
        tally.repetitions += 1
    return tally.done()


def _at_work(node: Any) -> bool:
    """Whether a worker below the node's raylet holds a task."""
    for information in node.all_processes.get("raylet", []):
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(information.process.pid).children(recursive=True)
            if any(AT_WORK in " ".join(one.cmdline()) for one in below):
                return True
    return False


@contextlib.contextmanager
def _cluster() -> Generator[Any]:
    """A head with one core, on ports of its own."""
    from orchestrator.runner.environment import quiet_ray

    quiet_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):  # what was killed cannot be shut down
            cluster.shutdown()


@contextlib.contextmanager
def _watched_scene(bench: Bench, tally: Tally) -> Generator[Scene]:
    """A root with a reader beside it; compared, and run to its end in one process where Ray did not get there."""
    scene = bench.scene(ray_study(), tally)
    with scene.watched():
        yield scene
        scene.finish()
    scene.remove()


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {
    "ray-driver": (driver_kills, 20),
    "ray-worker": (worker_kills, 6),
    "ray-raylet": (raylet_kills, 3),
    "ray-gcs": (head_kills, 3),
    "ray-node": (node_kills, 3),
    "ray-head": (cluster_head_kills, 2),
}
