"""The keys `resources` and `retry` of a study."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from orchestrator.errors import Fault
from orchestrator.failures import RETRIES, Retried
from orchestrator.spec.quantities import BYTES, SECONDS, seconds, size
from orchestrator.spec.resources import Demand, Resources, Retry
from orchestrator.spec.settings import count
from orchestrator.spec.wording import show
from orchestrator.spec.yaml_nodes import Node, Value
from trainables.config import Device
from trainables.keys import StageKind

MAX_CPUS = 4096
MAX_GPUS = 1024
MAX_RETRIES = 1_000_000
DEVICES = ("cpu", "cuda", "auto")
DEMANDS = ("cpus", "gpus", "memory", "device", "timeout")
KINDS: tuple[StageKind, ...] = ("select", "train", "compress", "evaluate")
_LADDERS = {"oom": "memory", "timeout": "after"}
_SIZE = f"must be a size such as 2GiB or 500MiB ({', '.join(BYTES)})"
_DURATION = f"must be a duration such as 90s, 30min or 2h ({', '.join(SECONDS)}), above 0"


def resources(node: Node | None, faults: list[Fault], cuda_here: Callable[[], bool]) -> Resources:
    """What the stages are given; `device: auto` is a GPU where there is one (`cuda_here`)."""
    if node is None:
        return Resources()
    entries = node.only("resources", (*DEMANDS, *KINDS), faults)
    reader = _DemandReader(faults, cuda_here)
    own = {name: entries[name] for name in DEMANDS if name in entries}
    worker = reader.demand(own, "resources", Demand())
    kinds: dict[StageKind, Demand] = {}
    for kind in KINDS:
        if kind in entries:
            key = f"resources.{kind}"
            kinds[kind] = reader.demand(entries[kind].only(key, DEMANDS, faults), key, worker)
    return Resources(worker, kinds)


def settled_devices(value: Value, found: Resources) -> Value:
    """The section `resources` with what `auto` came to: the study as it runs is the same study elsewhere."""
    if not isinstance(value, Mapping):
        return value
    parts: dict[str, Value] = {kind: _settled(value[kind], found.of(kind)) for kind in KINDS if kind in value}
    return {**cast("Mapping[str, Value]", _settled(value, found.worker)), **parts}


def _settled(value: Value, demand: Demand) -> Value:
    if not isinstance(value, Mapping) or value.get("device") != "auto":
        return value
    gpus: Value = "auto" if demand.packed else demand.gpus
    return {**value, "device": demand.device, "gpus": gpus}


def absent_gpu(section: Value) -> str:
    """What to say of a section `resources` without a GPU: the keys that ask for one, and what to set instead."""
    asked: list[str] = []
    instead: list[str] = []
    for key, part in _parts(section):
        if part.get("device") == "cuda":
            asked.append(f"{key}.device cuda")
            instead.append(f"--set {key}.device=cpu")
        if gpus := part.get("gpus"):
            asked.append(f"{key}.gpus {gpus}")
            instead.append(f"--set {key}.gpus=0")
    verb = "asks" if len(asked) == 1 else "ask"
    return (
        f"{' and '.join(asked)} {verb} for a GPU and this machine has none that torch can use. "
        f"Add {' '.join(instead)} to run on the CPU"
    )


def written_auto(section: Value) -> list[str]:
    """The keys of a section `resources` at which `device: auto` stands."""
    return [f"{key}.device" for key, part in _parts(section) if part.get("device") == "auto"]


def decided_auto(section: Value, *, cuda: bool) -> list[str]:
    """The overrides that decide each `device: auto` of a section, where machines are known to have a GPU or none."""
    found: list[str] = []
    for key, part in _parts(section):
        if part.get("device") == "auto":
            gpus = part.get("gpus")
            on_gpu = cuda and gpus != 0
            found.append(f"{key}.device={'cuda' if on_gpu else 'cpu'}")
            found += [f"{key}.gpus=0"] if gpus and not on_gpu else []
    return found


def _parts(section: Value) -> list[tuple[str, Mapping[str, Value]]]:
    """(key, what stands there) of a worker and of the kinds of stage that have something of their own."""
    whole = section if isinstance(section, Mapping) else {}
    parts = [("resources", whole), *((f"resources.{kind}", whole.get(kind)) for kind in KINDS)]
    return [(key, cast("Mapping[str, Value]", part)) for key, part in parts if isinstance(part, Mapping)]


class _DemandReader:
    """Reads what a worker, or one kind of stage, is given; `faults` grows."""

    def __init__(self, faults: list[Fault], cuda_here: Callable[[], bool]) -> None:
        self._faults = faults
        self._cuda_here = cuda_here

    def demand(self, entries: Mapping[str, Node], key: str, above: Demand) -> Demand:
        """What `entries` say, and what is `above` them where they say nothing."""
        cpus = count(entries.get("cpus"), f"{key}.cpus", (1, MAX_CPUS), self._faults) or above.cpus
        memory = self._amount(entries.get("memory"), f"{key}.memory", size, _SIZE) or above.memory
        timeout = self._amount(entries.get("timeout"), f"{key}.timeout", seconds, _DURATION) or above.timeout_s
        found = replace(above, cpus=cpus, memory=None if memory is None else int(memory), timeout_s=timeout)
        return self._on_device(entries, key, found)

    def _on_device(self, entries: Mapping[str, Node], key: str, demand: Demand) -> Demand:
        """With device class and GPUs; one follows from the other where it is not said."""
        gpus, packed = self._gpus(entries.get("gpus"), f"{key}.gpus")
        word = self._device(entries.get("device"), f"{key}.device")
        if word is None and gpus is None:
            return demand
        if word is None:
            return replace(demand, gpus=gpus or 0.0, packed=packed, device="cuda" if gpus else "cpu")
        if (word == "cpu" and gpus) or (word == "cuda" and gpus == 0):
            needs = "takes no GPU" if word == "cpu" else "needs a GPU, or a share of one"
            self._faults.append(entries["gpus"].fault(f"{key}.gpus", f"device {word} {needs}; leave one of them out"))
        device: Device = "cuda" if word == "cuda" or (word == "auto" and gpus != 0 and self._cuda_here()) else "cpu"
        if device == "cpu":
            return replace(demand, gpus=0.0, packed=False, device=device)
        if gpus is None:
            gpus, packed = demand.gpus or 1.0, demand.packed
        return replace(demand, gpus=gpus, packed=packed, device=device)

    def _device(self, node: Node | None, key: str) -> str | None:
        value = node.plain() if node is not None else None
        if node is None or value in DEVICES:
            return cast("str | None", value)
        self._faults.append(node.fault(key, f"{show(value)} is not known; valid: {', '.join(DEVICES)}"))
        return None

    def _gpus(self, node: Node | None, key: str) -> tuple[float | None, bool]:
        """GPUs of a worker, None where nothing is said; and whether they are to be shared by what stages need."""
        if node is None:
            return None, False
        value = node.plain()
        if value == "auto":
            return 1.0, True
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_GPUS:
            self._faults.append(node.fault(key, f"{show(value)} must be a number of 0 to {MAX_GPUS}, per worker"))
            return None, False
        if value > 1 and value != int(value):
            self._faults.append(node.fault(key, f"{show(value)} is more than one GPU and no whole number of them"))
        return float(value), False

    def _amount(self, node: Node | None, key: str, read: Callable[[Value], float | None], wanted: str) -> float | None:
        if node is None or node.value is None:
            return None
        found = read(node.plain())
        if found is None:
            self._faults.append(node.fault(key, f"{show(node.plain())} {wanted}"))
        return found


def retry(node: Node | None, faults: list[Fault]) -> Retry:
    """How often, and how, a failed stage is tried again."""
    if node is None:
        return Retry()
    entries = node.only("retry", tuple(RETRIES), faults, _NEVER)
    times: dict[Retried, int] = dict(RETRIES)
    ladders: dict[str, tuple[float, ...]] = {}
    for name, item in entries.items():
        key, kind = f"retry.{name}", cast("Retried", name)
        if name in _LADDERS and isinstance(item.value, Mapping):
            ladders[name] = _ladder(item, name, faults)
            times[kind] = len(ladders[name])
            continue
        times[kind] = count(item, key, (0, MAX_RETRIES), faults) or 0
        if name == "diverged" and times[kind]:
            faults.append(item.fault(key, f"{times[kind]} must be 0: the same numbers would diverge again"))
    memory = tuple(int(step) for step in ladders.get("oom", ()))
    return Retry(times, memory, ladders.get("timeout", ()))


_NEVER = {
    "export": "is of latencies, which are taken anew; leave it out",
    "infeasible": "is no failure: the config asks for what this network cannot be; leave it out",
    "storage": "ends the sweep at once, as nothing could be kept; leave it out",
}


def _ladder(node: Node, name: str, faults: list[Fault]) -> tuple[float, ...]:
    """Steps of memory in bytes, or of time in seconds, each larger than the one before."""
    leaf, key = _LADDERS[name], f"retry.{name}.{_LADDERS[name]}"
    read, wanted = (size, _SIZE) if name == "oom" else (seconds, _DURATION)
    item = node.only(f"retry.{name}", (leaf,), faults).get(leaf)
    if item is None or not isinstance(item.value, tuple) or not item.value:
        example = "[2GiB, 4GiB]" if name == "oom" else "[1h, 4h]"
        faults.append((item or node).fault(key, f"must be a list of steps, such as {example}"))
        return ()
    steps: list[float] = []
    for number, step in enumerate(item.value):
        found = read(step.plain())
        if found is None:
            faults.append(step.fault(f"{key}[{number}]", f"{show(step.plain())} {wanted}"))
        elif steps and found <= steps[-1]:
            faults.append(step.fault(f"{key}[{number}]", f"{show(step.plain())} must be more than the step before it"))
        else:
            steps.append(found)
    return tuple(steps)
