"""What reads files of others, and what it may say to a wrong one: nothing but its own clear errors."""

import hashlib
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_inputs import edited_bytes, edited_text, edited_tree
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from orchestrator.analysis.load import load as load_table
from orchestrator.compaction import write_tables
from orchestrator.errors import OrchestratorError
from orchestrator.estimate import Estimator
from orchestrator.label_files import with_answers
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.locks import holder
from orchestrator.plan import Plan, Planner
from orchestrator.rungs import with_stops
from orchestrator.runner.base import missing
from orchestrator.spec.cells import combinations
from orchestrator.spec.expressions import ExpressionError, parse_expression
from orchestrator.spec.load import load_spec, shipped_studies
from trainables.config import TrialConfig
from trainables.data.labels import read_labels
from trainables.data.load import load as load_data
from trainables.errors import TrialError
from trainables.keys import Stage
from trainables.runtimes.deployed import open_model
from trainables.stages import Paused, run_stage


@dataclass(frozen=True)
class Target:
    """Input of one kind, what takes it, and the errors that it may answer with."""

    name: str
    inputs: st.SearchStrategy[Any]
    take: Callable[[Any], None]
    clear: tuple[type[Exception], ...]

    def hold(self, given: Any) -> None:
        """Take the input; anything but a clear error of a bounded length is a fault of ours."""
        try:
            self.take(given)
        except self.clear as error:
            told = str(error)
            assert told.strip()
            assert len(told) < 20_000
            told.encode()

    def run(self, examples: int, seeded: int | None = None) -> None:
        """So many inputs; without a seed the same ones each time."""

        @settings(
            max_examples=examples, deadline=None, derandomize=seeded is None, database=None, print_blob=seeded is None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
        )  # fmt: skip
        @given(self.inputs)
        def body(given: Any) -> None:
            self.hold(given)

        (body if seeded is None else seed(seeded)(body))()


TINY = """\
# Does the whole path work?
study: tiny
base:
  data: {name: digits, train_size: 100}
  model: {name: resnet8, width: 4, block: bn_first}
  train: {epochs: 2, batch_size: 32}
  compress: {method: stq, pfr: 0.5, epochs: 2, weights: ternary, activations: sign}
  latency: {runtimes: [packed], batch: [1]}
axes:
  compress.pfr: [0, 0.5]
  compress.threshold: {uniform: [0.5, 0.7]}
when: {compress.pfr: compress.weights == 'ternary'}
exclude: ["compress.pfr > 0.6 and seed == 1"]
seeds: 2
objectives: {accuracy: max, compression: max, wall_time_s: {min: 5%}}
search: {name: tpe, trials: 4, seed: 1, where: "accuracy >= 0.5", first: {compress.pfr: [0]}}
resources: {cpus: 1, gpus: 0}
"""


def targets(folder: Path, only: str | None = None) -> dict[str, Target]:
    """All of them by name, or one; their files lie below `folder`."""
    torch.set_num_threads(1)
    return {name: Target(name, *_MAKERS[name](folder)) for name in ([only] if only else NAMES)}


Parts = tuple[st.SearchStrategy[Any], Callable[[Any], None], tuple[type[Exception], ...]]


def _study(folder: Path) -> Parts:
    texts = [TINY, *(path.read_text() for path in sorted(shipped_studies().glob("*.yaml")))]
    path = folder / "study.yaml"

    def take(text: str) -> None:
        path.write_bytes(text.encode(errors="surrogatepass"))
        spec = load_spec(str(path), allow_code=False)
        if combinations(spec) <= 200:
            plan = Planner(spec, lambda _: "fp32").plan
            path.write_text(plan.spec.text())
            assert load_spec(str(path), allow_code=False).base == spec.base

    return edited_text(texts, 6), take, (OrchestratorError,)


def _override(folder: Path) -> Parts:
    path = folder / "overridden.yaml"
    path.write_text(TINY)
    sets = (
        "train.epochs=3\ncompress.pfr=0.1\naxes.compress.pfr=[0, 0.2]\nseeds=[1, 2]\nsearch.name=grid\nbase.data=null"
    )

    def take(text: str) -> None:
        load_spec(str(path), text.split("\n"), allow_code=False)

    return edited_text([sets], 3), take, (OrchestratorError,)


def _expression(_: Path) -> Parts:
    cell: Mapping[str, Any] = {
        "compress.pfr": 0.4, "model.name": "resnet8", "compress.method": None, "seed": 2, "train.epochs": 30,
        "compress.full_precision": ("first", "last"),
    }  # fmt: skip
    texts = [
        "compress.pfr > 0.4 and model.name in ['resnet20', 'resnet32']",
        "not (seed == 2 or train.epochs * (1 - compress.pfr) / 3 <= -7)",
        "'first' in compress.full_precision\nand compress.method != null",
    ]
    tokens = st.sampled_from([
        *cell, "(", ")", "[", "]", ",", "+", "-", "*", "/", "<", "<=", "==", "!=", "in", "not", "and", "or", "1", "0",
        "9" * 60, "1e308", "'a'", "null", "true", "lambda:", "**", "if", "else", "\\", "\n", "f'{seed}'",
        "seed.__class__",
    ])  # fmt: skip
    grown = st.lists(tokens, max_size=25).map(" ".join)

    def take(text: str) -> None:
        parse_expression(text, cell).holds(cell.__getitem__)

    return edited_text(texts, 3) | grown, take, (ExpressionError,)


@cache
def _plan() -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.yaml")
        path.write_text(TINY.replace("{uniform: [0.5, 0.7]}", "[0.5, 0.7]").partition("search:")[0])
        return Planner(load_spec(str(path)), lambda _: "fp32").plan


def _record(stage: Stage, sha256: str | None = "0" * 64, **changes: Any) -> StageRecord:
    metrics = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "val_accuracy": 0.9, "test_images": 360}
    return replace(
        StageRecord(
            key=stage.key, kind=stage.kind, parent=stage.parent, seed=stage.seed, status="complete", busy_s=1.0,
            started_at=1.7e9, finished_at=1.7e9 + 1, metrics=metrics if stage.kind == "evaluate" else {},
            history=({"epoch": 1.0, "loss": 0.5},), config=stage.own_config(), workload="train", images=100,
            artifact_sha256=sha256, host="h", machine="m", versions={"torch": "2"}, run="r",
        ),
        **changes,
    )  # fmt: skip


def _ledger(folder: Path) -> Parts:
    plan, layout = _plan(), Layout(folder / "ledgers")
    stages = list(plan.stages.values())
    records = [_record(stage) for stage in stages]
    records[3] = replace(records[3], status="failed", failure="diverged", error="loss is nan")
    stop = {"search": plan.spec.search_name, "record": asdict(replace(records[5], status="stopped"))}
    lines: list[Any] = [
        {"ledger": 1},
        *({"stage": asdict(record)} for record in records[:8]),
        {"ask": {"search": "s", "number": 0, "params": {"a": 1}, "source": "sampler"}},
        {"tell": {"search": "s", "number": 0, "losses": [0.1], "violations": [0.0]}},
        {"stop": stop},
    ]
    signed = edited_tree([json.loads(json.dumps(lines))]).map(_signed)
    raw = edited_bytes([_signed(lines)])

    def take(data: bytes) -> None:
        layout.ledger.mkdir(parents=True, exist_ok=True)
        (layout.ledger / "r.jsonl").write_bytes(data)
        replayed = replay(layout.ledger)
        found = with_stops(replayed.records, replayed.events.get(plan.spec.search_name, ()))
        missing(plan, found, layout)
        write_tables(layout.study("tiny"), plan, found)
        Estimator(found.values()).estimate(stages[0])
        df = load_table(layout.study("tiny"))
        df.pareto.front(over="seed")

    return signed | raw, take, (OrchestratorError,)


def _signed(lines: Any) -> bytes:
    """Lines with their right sums, whatever they hold; NaN and lone surrogates included."""
    texts = [json.dumps(one).encode() for one in (lines if isinstance(lines, list) else [lines])]
    return b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts)


def _labels(folder: Path) -> Parts:
    valid = [
        "file,label\na.png,cat\nb/c.png,dog\n./d.png,\n",
        '\ufefflabel,file,note\r\n"cat","a,b.png","x\ny"\r\ndog,e.png,\r\n',
    ]
    path = folder / "labels.csv"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        found = read_labels(path, None)
        assert all(isinstance(fault, str) for fault in found.faults)
        if not found.faults:
            answered = with_answers(path, {"new.png": "cat"})
            path.write_bytes(answered)
            again = read_labels(path, None)
            assert not again.faults
            assert again.rows["new.png"].label == "cat"

    texts = edited_text(valid).map(lambda text: text.encode(errors="surrogatepass"))
    return texts | edited_bytes([text.encode() for text in valid]), take, ()


def _small_files(folder: Path) -> Parts:
    """Who holds a lock, and what precision probes answered."""
    from orchestrator.precision import Precisions

    probes = folder / "probes.json"
    lock = folder / "lock"
    config = TrialConfig.model_validate({"data": {"name": "cifar10"}, "model": {"name": "resnet8"}})
    valid = [b'{"resnet8": "bf16"}', b'{"digest": "d", "pid": 1, "host": "h"}']

    def take(data: bytes) -> None:
        probes.write_bytes(data)
        lock.write_bytes(data)
        assert Precisions(probes, "cpu", lambda _: None, may_probe=False)(config) in ("fp32", "bf16")
        holder(lock)

    trees = edited_tree([json.loads(one) for one in valid]).map(lambda tree: json.dumps(tree).encode())
    return trees | edited_bytes(valid), take, (OrchestratorError,)


def _table(folder: Path) -> Parts:
    plan = _plan()
    records = {stage.key: _record(stage) for stage in plan.stages.values()}
    write_tables(folder / "tables", plan, records)
    valid = [(folder / "tables" / "trials.parquet").read_bytes()]
    path = folder / "damaged.parquet"

    def take(data: bytes) -> None:
        path.write_bytes(data)
        load_table(path).pareto.front(over="seed")

    return edited_bytes(valid, 3), take, (OrchestratorError,)


@cache
def _outputs() -> Mapping[str, tuple[Stage, bytes | None, bytes, bytes | None]]:
    """By kind of stage: the stage, its parent's output, its own, and a checkpoint of it; real ones, computed once."""
    plan = _plan()
    trial = next(trial for trial in plan.trials if trial.baseline is None)
    found: dict[str, tuple[Stage, bytes | None, bytes, bytes | None]] = {}
    parent: bytes | None = None
    for key in trial.path:
        stage = plan.stages[key]
        paused = run_stage(stage, _data(stage), parent, after_epoch=lambda progress: progress.epoch == 1)
        checkpoint = paused.checkpoint if isinstance(paused, Paused) else None
        output = run_stage(stage, _data(stage), parent).artifact
        found[stage.kind] = (stage, parent, output, checkpoint)
        parent = output
    return found


def _data(stage: Stage) -> Any:
    return load_data(stage.config.data, stage.seed, Path())


def _packed(folder: Path) -> Parts:
    valid = _outputs()["evaluate"][2]
    length = int.from_bytes(valid[6:10], "little")
    manifest, blob = json.loads(zlib.decompress(valid[10 : 10 + length])), valid[10 + length : -8]
    path = folder / "model.packed"

    def framed(parts: tuple[Any, bytes]) -> bytes:
        text = zlib.compress(json.dumps(parts[0]).encode())
        body = valid[:6] + len(text).to_bytes(4, "little") + text + parts[1]
        return body + hashlib.blake2b(body, digest_size=8).digest()

    def take(data: bytes) -> None:
        path.write_bytes(data)
        model = open_model(path, "auto")
        if model.image_size <= 64:
            model.logits(np.zeros((1, model.channels, model.image_size, model.image_size), np.uint8))

    signed = st.tuples(edited_tree([manifest]), st.just(blob) | edited_bytes([blob])).map(framed)
    return signed | edited_bytes([valid]), take, (TrialError,)


def _exported(folder: Path) -> Parts:
    """An exported folder: what it says of itself, and its program; the sum in `model.json` is that of the file."""
    from trainables.export.facts import Facts, Input
    from trainables.export.packed import unpack
    from trainables.export.program import to_program

    network, header = unpack(_outputs()["evaluate"][2])
    program = to_program(network.model, torch.zeros(1, 1, 8, 8))
    inputs = Input(channels=1, image_size=8, mean=header.mean, std=header.std)
    facts = Facts(
        format="torch", file="model.pt2", sha256="", bytes=len(program), input=inputs, classes=10, class_names=None,
        study="s", trial_id="t", artifact_sha256="", config={}, measured={}, versions={},
    )  # fmt: skip
    place = folder / "exported"
    place.mkdir()

    def take(parts: tuple[Any, bytes]) -> None:
        told, data = parts
        if isinstance(told, dict):
            told = told | {"sha256": hashlib.sha256(data).hexdigest()}
        (place / "model.pt2").write_bytes(data)
        (place / "model.json").write_text(json.dumps(told))
        model = open_model(place, "auto")
        if model.image_size <= 64:
            model.logits(np.zeros((2, model.channels, model.image_size, model.image_size), np.uint8))

    trees = edited_tree([json.loads(facts.model_dump_json())], 1)
    return st.tuples(trees, _programs(program) | edited_bytes([program], 2)), take, (TrialError,)


def _programs(program: bytes) -> st.SearchStrategy[bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (graph,) = (name for name in entries if name.endswith("models/model.json"))

    def packed(tree: Any) -> bytes:
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, json.dumps(tree).encode() if name == graph else content)
        return written.getvalue()

    return edited_tree([json.loads(entries[graph])], 2).map(packed)


def _safetensors(data: bytes) -> tuple[Any, bytes]:
    """Header, with the JSON of its metadata taken apart, and tensors."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"meta": json.loads(header["__metadata__"]["meta"])}
    return header, data[8 + length :]


def _joined(parts: tuple[Any, bytes]) -> bytes:
    header, tensors = parts
    if isinstance(header, dict) and isinstance(told := header.get("__metadata__"), dict):
        header = header | {"__metadata__": {name: json.dumps(value) for name, value in told.items()}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def _edited_tensors(data: bytes) -> st.SearchStrategy[bytes]:
    header, tensors = _safetensors(data)
    trees = st.tuples(edited_tree([header]), st.just(tensors) | edited_bytes([tensors], 2)).map(_joined)
    return trees | edited_bytes([data])


def _checkpoint(_: Path) -> Parts:
    stage, parent, _output, checkpoint = _outputs()["compress"]
    assert checkpoint is not None
    signed = _edited_tensors(checkpoint[32:]).map(lambda data: hashlib.sha256(data).digest() + data)

    def take(data: bytes) -> None:
        run_stage(stage, _data(stage), parent, resume=data)

    return signed | edited_bytes([checkpoint]), take, (TrialError,)


def _artifact(_: Path) -> Parts:
    """The output of a compression, as a parent of an evaluation."""
    stage, parent = _outputs()["evaluate"][:2]
    assert parent is not None

    def take(data: bytes) -> None:
        run_stage(stage, _data(stage), data)

    return _edited_tensors(parent), take, (TrialError,)


_MAKERS: Mapping[str, Callable[[Path], Parts]] = {
    "study": _study,
    "override": _override,
    "expression": _expression,
    "ledger": _ledger,
    "labels": _labels,
    "small files": _small_files,
    "table": _table,
    "packed": _packed,
    "exported": _exported,
    "checkpoint": _checkpoint,
    "artifact": _artifact,
}

NAMES = tuple(_MAKERS)
