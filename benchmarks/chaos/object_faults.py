"""An object store that is slow, answers with errors, drops connections and loses answers, under drivers that die."""

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.bench import Bench
from benchmarks.chaos.cold import ColdRun
from benchmarks.chaos.scene import LONGEST_S, Scene
from benchmarks.chaos.studies import pfr_study
from benchmarks.chaos.tally import Tally
from tests.object_store import Bucket, Faults, running

HARM = Faults(delay=0.1, delay_s=0.3, error=0.1, drop=0.03, lose=0.03)
"""One request in four is harmed."""


def harmed_requests(bench: Bench, times: int) -> Tally:
    """Sweeps with results in a bucket, each killed once and swept again, through a proxy that harms requests."""
    tally = Tally("an object store that is slow, fails and loses requests, and kill -9", "moto behind a proxy of ours")
    harmed = 0
    with running() as proxy:
        for number in range(times):
            scene = bench.scene(pfr_study(), tally)
            bucket = Bucket(proxy, f"chaos-{number}", scene.folder)
            proxy.suffer(Faults())
            bucket.direct.create_dir(bucket.name)
            proxy.suffer(HARM)
            _killed_once(bench, scene, bucket)
            harmed += sum(proxy.harmed.values())
            proxy.harmed.clear()
            tally.repetitions += 1
            scene.remove()
    tally.how += f"; {harmed} requests harmed"
    return tally.done()


def _killed_once(bench: Bench, scene: Scene, bucket: Bucket) -> None:
    words = ("--runner", "serial", "--results", bucket.root)
    run = scene.sweep_cold(*words, environment=bucket.environment)
    if run.wait_for(lambda: "to run" in run.output, LONGEST_S):
        run.wait(bench.random.uniform(0, 2 * scene.reference.seconds))
    if run.kill():
        scene.struck(run)
    again = scene.sweep_cold(*words, environment=bucket.environment)
    _ended_well(scene, again)
    bucket.proxy.suffer(Faults())
    once_more = scene.sweep_cold(*words, environment=bucket.environment)
    _ended_well(scene, once_more)
    if "0 stages ran" not in once_more.output:
        scene.tally.lose("redone", f"a finished study ran again: {once_more.output[:1000]}")
    fetch(bucket, scene.root)
    scene.compare()


def _ended_well(scene: Scene, run: ColdRun) -> None:
    code = run.wait(2 * LONGEST_S)
    if code != 0:
        run.kill()
        scene.tally.lose("wrong", f"exit code {code}: {run.output[-2000:]}")
    if "Traceback" in run.output:
        scene.tally.lose("tracebacks", run.output[-2000:])


def fetch(bucket: Bucket, root: Path) -> None:
    """All objects as files, for those who judge files."""
    shutil.rmtree(root, ignore_errors=True)
    for name in bucket.files("results"):
        path = root / name.removeprefix("results/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.read(name))


FAULTS: dict[str, tuple[Callable[[Bench, int], Tally], int]] = {"object-store": (harmed_requests, 6)}
