"""The process that runs Ray and Tune for the driver: `python -m orchestrator.runner.ray_host FILE_DESCRIPTOR`.

It takes tasks from the driver and gives it records; it decides nothing and remembers nothing.
"""

import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from orchestrator.runner.environment import quiet_ray
from orchestrator.runner.messages import Broken, Order, Over, Ready, Refused
from orchestrator.spec.quantities import show_bytes
from orchestrator.spec.resources import Demand

quiet_ray()

import ray  # noqa: E402 - Ray reads its environment when it is imported
from ray._private import ray_constants  # noqa: E402

OBJECT_STORE_BYTES = 100 * 2**20  # tasks and records are small; artifacts go through the store
END_S = 2.0
_KEYS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}  # Ray's names and a study's


class RefusedError(Exception):
    """The run cannot be done on this Ray."""


def main(descriptor: int) -> None:
    """Serve the driver at the other end of the connection until it has nothing left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _not_mine)
    wire = Connection(descriptor)
    order: Order = wire.recv()
    _end_with(os.getppid())
    try:
        _serve(wire, order)
        wire.send(Over())
    except RefusedError as error:
        wire.send(Refused(str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the driver has left
    except Exception as error:
        with contextlib.suppress(OSError):
            wire.send(Broken(_said(error)))


def _not_mine(number: int, frame: FrameType | None) -> None:
    """The driver decides what a signal means; to ignore it would be inherited by all that Ray starts."""


def _said(error: Exception) -> str:
    """An error's first line; its type too, where it is none of ours."""
    kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
    return f"{kind}{error}".strip().partition("\n")[0][:600]


def _serve(wire: Connection, order: Order) -> None:
    # Importing Tune takes as long as waiting for Ray's processes: both at once.
    importing = threading.Thread(target=importlib.import_module, args=("orchestrator.runner.forest",))
    importing.start()
    with _ray(order.address, order.cores) as folder:
        importing.join()
        from orchestrator.runner.forest import fit

        signal.signal(signal.SIGTERM, _not_mine)  # ray.init puts a handler of its own in place
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = _workers(nodes, order.demands)
        most_memory = int(max((node.get("memory", 0.0) for node in nodes), default=0.0))
        wire.send(Ready(workers, most_memory or None))
        fit(wire, order.place, sum(workers.values()), folder)


def _workers(nodes: list[Mapping[str, float]], demands: tuple[Demand, ...]) -> Mapping[Demand, int]:
    """How many workers of each demand fit beside each other on the machines of the Ray that runs."""
    found = {demand: sum(_fits(node, demand) for node in nodes) for demand in demands}
    for demand, count in found.items():
        if not count:
            raise RefusedError(_too_much(nodes, demand))
    return found


def _too_much(nodes: Sequence[Mapping[str, float]], demand: Demand) -> str:
    """What no machine has of a demand, and which keys of a study ask for less."""
    wanted = bundle(demand)
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    short = [name for name in wanted if wanted[name] > most[name]] or list(wanted)
    less = " and ".join(f"--set resources.{_KEYS[name]}=..." for name in short)
    return (
        f"no machine has what resources ask for a worker ({_shown(wanted)}); the most there is: {_shown(most)}. "
        f"Ask for less with {less} (or the kind of stage that asks for it, as resources.train), or add machines."
    )


def _shown(amounts: Mapping[str, float]) -> str:
    told = {name: show_bytes(int(amount)) if name == "memory" else f"{amount:g}" for name, amount in amounts.items()}
    return ", ".join(f"{name} {amount}" for name, amount in told.items())


def bundle(demand: Demand) -> dict[str, float]:
    """A demand in Ray's names."""
    wanted = {"CPU": float(demand.cpus), "GPU": demand.gpus, "memory": float(demand.memory or 0)}
    return {name: amount for name, amount in wanted.items() if amount}


def _fits(node: Mapping[str, float], demand: Demand) -> int:
    return int(min(node.get(name, 0.0) / amount + 1e-9 for name, amount in bundle(demand).items()))


def _end_with(parent: int) -> None:
    """End this process, and what Ray started with it, when the driver is gone."""

    def look() -> None:
        while os.getppid() == parent:
            threading.Event().wait(END_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


@contextlib.contextmanager
def _ray(address: str | None, cores: int) -> Generator[Path]:
    """Ray for the time of a run; Tune's own files go to a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-tune-"))
    try:
        if address:
            _join(address)
        else:
            _start(cores)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        ray.shutdown()


def _start(cores: int) -> None:
    try:
        with _loopback_alone():
            ray.init(
                address="local",
                num_cpus=cores,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray raises no narrower one where its processes are too slow to start
        raise RuntimeError(f"Ray did not start: {error}") from error


@contextlib.contextmanager
def _loopback_alone() -> Generator[None]:
    """Ray's servers, which run what anybody sends them, listen to this machine alone.

    Ray gives a node the address by which others reach it, and listens everywhere, unless it is told that no others
    can be; to ask for 127.0.0.1 has no effect.
    """
    told = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = told


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise RefusedError(f"--address {address}: no Ray cluster answers there: {error}") from error


if __name__ == "__main__":
    main(int(sys.argv[1]))
