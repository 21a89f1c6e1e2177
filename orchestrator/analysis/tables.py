"""The column table: name, unit, better direction, determinism and type of every column of every Parquet file.

Nothing heavy is imported here: pyarrow is loaded when a schema is asked for. `python -m orchestrator.analysis.tables`
writes the data dictionary, which is what `results/README.md` holds.
"""

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import TableError

if TYPE_CHECKING:
    import pyarrow as pa

Direction = Literal["max", "min"]

ROLES = ("cell", "baseline")
CONFIG_SECTIONS = ("data", "model", "train", "compress", "cost", "select", "latency")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    `unit` is empty where there is none and `1` for a plain ratio; `direction` says which way is better, None where
    neither is. A `deterministic` column is equal bit for bit on one kind of machine at a fixed thread count, however
    the study was run. `dtype` is the name of a pyarrow type. Every column but the identity may be null.
    """

    name: str
    unit: str
    direction: Direction | None
    deterministic: bool
    dtype: str
    doc: str


_TIMESTAMP = "timestamp[us, tz=UTC]"

_BUT = "deterministic but for a failed latency pass"

_IDENTITY = (
    Column("study", "", None, True, "string", "name of the study"),
    Column("trial_id", "", None, True, "string", "the trial's identity: equal configs and seeds have equal ids"),
    Column("role", "", None, True, "string", "`cell` of the grid, or a `baseline` that the plan added"),
    Column(
        "baseline",
        "",
        None,
        True,
        "string",
        "`dense`, `dense_finetuned`, `binary`, `random` (labels drawn by chance) or `all_labels`; null for cells",
    ),
    Column("seed", "", None, True, "int64", "seed of the trial; cells of one seed share splits and batches"),
    Column(
        "status",
        "",
        None,
        True,
        "string",
        f"`complete`, `failed`, `infeasible` or `stopped` at a rung; null if unfinished; {_BUT}, and for `stopped`, "
        "which depends on who came first",
    ),
    Column("failure", "", None, True, "string", f"kind of failure (`diverged`, ...); null where there is none; {_BUT}"),
    Column("error", "", None, False, "string", "text of the error; null where there is none"),
)

_MEASURED = (
    Column("stage_keys.select", "", None, True, "string", "key of the stage that chose the labelled images"),
    Column("stage_keys.train", "", None, True, "string", "key of the dense training"),
    Column("stage_keys.compress", "", None, True, "string", "key of the compression; null for `dense`"),
    Column("stage_keys.evaluate", "", None, True, "string", "key of the evaluation"),
    Column("accuracy", "fraction", "max", True, "double", "test accuracy of the packed network, reloaded"),
    Column("val_accuracy", "fraction", "max", True, "double", "validation accuracy; the one that choices may read"),
    Column("accuracy_low", "fraction", "max", True, "double", "lower end of the Wilson 95 % interval of `accuracy`"),
    Column("accuracy_high", "fraction", "max", True, "double", "upper end of it; binomial over `test_images`"),
    Column("dense_accuracy", "fraction", "max", True, "double", "`accuracy` of the dense parent, same seed"),
    Column(
        "dense_finetuned_accuracy",
        "fraction",
        "max",
        True,
        "double",
        "`accuracy` of the parent trained on with the same schedule, nothing compressed",
    ),
    Column("binary_accuracy", "fraction", "max", True, "double", "`accuracy` with one-bit weights and nothing pruned"),
    Column("accuracy_drop", "fraction", "min", True, "double", "`dense_finetuned_accuracy` - `accuracy`"),
    Column("binary_accuracy_drop", "fraction", "min", True, "double", "`binary_accuracy` - `accuracy`"),
    Column(
        "random_accuracy",
        "fraction",
        "max",
        True,
        "double",
        "`accuracy` with as many labels drawn by chance, all other settings equal, same seed; null without `select` "
        "and where asking ended early, with fewer labels than chance has: it asks for the whole budget",
    ),
    Column(
        "all_labels_accuracy",
        "fraction",
        "max",
        True,
        "double",
        "`accuracy` with every image labelled, all other settings equal, same seed; null without `select`",
    ),
    Column("random_accuracy_gain", "fraction", "max", True, "double", "`accuracy` - `random_accuracy`"),
    Column("all_labels_accuracy_drop", "fraction", "min", True, "double", "`all_labels_accuracy` - `accuracy`"),
    Column("test_images", "images", None, True, "int64", "test images behind `accuracy`"),
    Column("compression", "1", "max", True, "double", "`dense_bytes` / `packed_bytes`, the whole file counted"),
    Column(
        "payload_compression",
        "1",
        "max",
        True,
        "double",
        "dense weights x 32 bits / stored bits of the weights, of convolutions and linear layers; BN, biases, scales "
        "and manifest left out",
    ),
    Column(
        "hidden_compression",
        "1",
        "max",
        True,
        "double",
        "the same over the layers that are not full precision alone; null where there are none",
    ),
    Column("layer_compression_max", "1", "max", True, "double", "the largest ratio of dense to stored bits of a layer"),
    Column(
        "pfr_achieved",
        "fraction",
        "max",
        True,
        "double",
        "share of the filters in scope that were removed, by all steps of a pipeline",
    ),
    *(
        column
        for step in range(1, 5)
        for column in (
            Column(
                f"step_{step}_bytes",
                "bytes",
                "min",
                True,
                "int64",
                f"`packed_bytes` if step {step} of a pipeline (`combine`) were its last; null in other rows",
            ),
            Column(
                f"step_{step}_val_accuracy",
                "fraction",
                "max",
                True,
                "double",
                f"`val_accuracy` after the last epoch of step {step}; null in other rows",
            ),
        )
    ),
    Column(
        "bits_per_weight",
        "bits",
        "min",
        True,
        "double",
        "stored bits per surviving weight, mean over the network; a ternary one takes 1.6 (five a byte)",
    ),
    Column(
        "weight_bytes",
        "bytes",
        "min",
        True,
        "int64",
        "bytes of the packed file that hold these weights; the rest of `packed_bytes` is overhead: BN, biases, scales, "
        "manifest",
    ),
    Column("packed_bytes", "bytes", "min", True, "int64", "size of the packed file: what a device would store"),
    Column("dense_bytes", "bytes", None, True, "int64", "size of the dense parent's parameters in fp32"),
    Column("params", "1", "min", True, "int64", "parameters of the compact network"),
    Column(
        "macs",
        "1",
        "min",
        True,
        "int64",
        "multiply-accumulates for one image; mean over the test images where they depend on the image (`lkam`)",
    ),
    Column("macs_worst", "1", "min", True, "int64", "those of an image that needs every kernel; null without gates"),
    Column("macs_class_least", "1", "min", True, "int64", "the mean of the class that needs least; null without gates"),
    Column("macs_class_most", "1", "min", True, "int64", "the mean of the class that needs most; null without gates"),
    Column("bops", "1", "min", True, "int64", "bit operations for one image: MACs x weight bits x activation bits"),
    Column(
        "mac_cost",
        "1",
        "min",
        True,
        "double",
        "MACs for one image, each counted by the bits of its two sides as `cost.*` says; 1 where both are fp32",
    ),
    Column("latency_ms", "ms", "min", False, "double", "median time of a call in `runtime`; null until measured"),
    Column("latency_iqr_ms", "ms", "min", False, "double", "interquartile range of the calls behind `latency_ms`"),
    Column("latency_ratio", "1", "max", False, "double", "dense parent in OpenVINO fp32 / `latency_ms`, interleaved"),
    Column(
        "latency_same_runtime_ratio",
        "1",
        "max",
        False,
        "double",
        "dense parent in fp32 in `runtime` / `latency_ms`; null where it cannot run there",
    ),
    Column("runtime", "", None, False, "string", "the fastest of the runtimes asked for, of which the latency is"),
    Column("latency_batch", "images", None, False, "int64", "images per call of `latency_ms`: the first batch size"),
    Column("latency_machine", "", None, False, "string", "fingerprint of the machine that measured the latency"),
    Column("latency_error", "", None, False, "string", "why no runtime asked for could be measured; null otherwise"),
    Column(
        "runtime_agreement",
        "fraction",
        "max",
        False,
        "double",
        "share of test images for which `runtime` predicts what the packed network does",
    ),
    Column(
        "labels",
        "images",
        "min",
        True,
        "int64",
        "labelled images used, fewer than `select.budget` where asking ended early; validation images, labelled too, "
        "are not counted; null without `select`",
    ),
    Column(
        "select_s",
        "s",
        "min",
        False,
        "double",
        "busy seconds of choosing images, of all rounds up to the budget, the last one whole; validation left out; "
        "null without `select`",
    ),
    Column("select_train_s", "s", "min", False, "double", "the part of `select_s` that trained the selection network"),
    Column("select_score_s", "s", "min", False, "double", "the part of `select_s` that looked at candidates with it"),
    Column("select_query_s", "s", "min", False, "double", "the part of `select_s` that chose among them"),
    Column("train_s", "s", "min", False, "double", "busy seconds of the dense training when it ran, also if cached"),
    Column("compress_s", "s", "min", False, "double", "busy seconds of the compression when it ran"),
    Column("measure_s", "s", "min", False, "double", "busy seconds of the evaluation; no part of `wall_time_s`"),
    Column("wall_time_s", "s", "min", False, "double", "`select_s` + `train_s` + `compress_s`, what the network cost"),
    Column("threads", "1", None, False, "int64", "CPU threads of the stages"),
    Column("device", "", None, True, "string", "device class, `cpu` or `cuda`"),
    Column("hosts", "", None, False, "string", "machines on which the row's stages ran, joined by commas"),
    Column("machine", "", None, False, "string", "kind of machine of the last stage: architecture, vector units, CPU"),
    Column(
        "mixed_hosts", "", None, False, "bool", "stages differ in machine kind, threads or device: no front on time"
    ),
    Column("finished_at", "", None, False, _TIMESTAMP, "when the last stage of the row was done"),
    Column("versions.python", "", None, False, "string", "Python that ran the last stage"),
    Column("versions.torch", "", None, False, "string", "torch that ran the last stage"),
    Column("versions.orchestrator", "", None, False, "string", "this project's version"),
)

_STAGES = (
    Column("key", "", None, True, "string", "key of the stage"),
    Column("stage", "", None, True, "string", "`select`, `train`, `compress` or `evaluate`"),
    Column("parent", "", None, True, "string", "key of the parent stage; null at the root"),
    Column("seed", "", None, True, "int64", "seed of the stage"),
    Column("status", "", None, True, "string", "as in trials.parquet"),
    Column("failure", "", None, True, "string", "as in trials.parquet"),
    Column("error", "", None, False, "string", "as in trials.parquet"),
    Column("busy_s", "s", "min", False, "double", "seconds that the stage worked, waiting left out"),
    Column("started_at", "", None, False, _TIMESTAMP, "when the stage began"),
    Column("finished_at", "", None, False, _TIMESTAMP, "when it was done"),
    Column("host", "", None, False, "string", "machine"),
    Column("pid", "", None, False, "int64", "process"),
    Column("threads", "1", None, False, "int64", "CPU threads"),
    Column("device", "", None, True, "string", "device class, `cpu` or `cuda`"),
    Column("run", "", None, False, "string", "run that committed the stage"),
    Column("attempt", "1", None, False, "int64", "attempt of the run that succeeded or failed last"),
    Column("earlier", "", None, False, "string", "failures of the attempts before it, the first one first; or null"),
    Column("memory_limit", "bytes", None, False, "int64", "memory that its worker might hold; null: no limit"),
    Column("timeout_s", "s", None, False, "double", "seconds that the attempt might take; null: no limit"),
    Column("peak_memory_bytes", "bytes", "min", False, "int64", "most that its worker's process held while it ran"),
    Column("grown_memory_bytes", "bytes", "min", False, "int64", "how much more that was than when it began"),
    Column("peak_gpu_bytes", "bytes", "min", False, "int64", "most that it held of a GPU; null on a CPU"),
    Column("artifact_sha256", "", None, True, "string", "SHA-256 of the stage's output"),
    Column("artifact_bytes", "bytes", "min", True, "int64", "size of the stage's output"),
)

_HISTORY = (
    Column("key", "", None, True, "string", "key of the stage"),
    Column("stage", "", None, True, "string", "`select`, `train` or `compress`"),
    Column("epoch", "", None, True, "int64", "epoch, from 1; null in a round of labelling"),
    Column("loss", "nat", "min", True, "double", "mean training loss of the epoch"),
    Column("lr", "1", None, True, "double", "learning rate of the epoch's last step"),
    Column("val_accuracy", "fraction", "max", True, "double", "validation accuracy after the epoch"),
    Column("images_per_s", "images/s", "max", False, "double", "training speed, validation left out"),
    Column("round", "", None, True, "int64", "round of labelling, 0 for the initial draw; null in an epoch"),
    Column("labels", "images", "min", True, "int64", "labelled images after the round"),
    Column("candidates", "images", None, True, "int64", "images that the round could ask for"),
    Column("round_train_s", "s", "min", False, "double", "what training the selection network took in the round"),
    Column("round_score_s", "s", "min", False, "double", "what looking at candidates with it took"),
    Column("round_query_s", "s", "min", False, "double", "what choosing among them took"),
)

_LATENCY = (
    Column("stage_keys.evaluate", "", None, True, "string", "key of the evaluation whose packed file was timed"),
    Column("runtime", "", None, True, "string", "`openvino`, `onnxruntime`, `packed` or `skipping`"),
    Column("batch", "images", None, True, "int64", "images per call"),
    Column("threads", "1", None, True, "int64", "threads of the runtime"),
    Column("repeats", "1", None, True, "int64", "turns of each network"),
    Column("status", "", None, False, "string", "`complete`, `failed`, or `infeasible`: no such network runs there"),
    Column("failure", "", None, False, "string", "kind of failure; `export`: the predictions differ; null if none"),
    Column("error", "", None, False, "string", "text of the error; null where there is none"),
    Column("latency_ms", "ms", "min", False, "double", "median time of a call"),
    Column("latency_q1_ms", "ms", "min", False, "double", "lower quartile"),
    Column("latency_q3_ms", "ms", "min", False, "double", "upper quartile"),
    Column("latency_iqr_ms", "ms", "min", False, "double", "`latency_q3_ms` - `latency_q1_ms`"),
    Column("dense_ms", "ms", "min", False, "double", "the same of the dense parent in OpenVINO fp32"),
    Column("dense_q1_ms", "ms", "min", False, "double", "its lower quartile"),
    Column("dense_q3_ms", "ms", "min", False, "double", "its upper quartile"),
    Column("same_runtime_dense_ms", "ms", "min", False, "double", "of the dense parent in fp32 in `runtime`; or null"),
    Column("same_runtime_dense_q1_ms", "ms", "min", False, "double", "its lower quartile"),
    Column("same_runtime_dense_q3_ms", "ms", "min", False, "double", "its upper quartile"),
    Column("latency_ratio", "1", "max", False, "double", "`dense_ms` / `latency_ms`"),
    Column("latency_same_runtime_ratio", "1", "max", False, "double", "`same_runtime_dense_ms` / `latency_ms`"),
    Column("runtime_agreement", "fraction", "max", False, "double", "as in trials.parquet"),
    Column("calls", "1", None, False, "int64", "calls behind the median and the quartiles"),
    Column("machine", "", None, False, "string", "fingerprint: architecture, CPU, cores, vector units"),
    Column("versions", "", None, False, "string", "packages that ran the networks"),
    Column("busy_s", "s", "min", False, "double", "seconds that the observation took, checks included"),
    Column("finished_at", "", None, False, _TIMESTAMP, "when it was done"),
    Column("host", "", None, False, "string", "machine"),
    Column("run", "", None, False, "string", "run that committed it"),
    Column("key", "", None, False, "string", "key of the observation: networks, protocol, machine and versions"),
)

COLUMNS: dict[str, Column] = {column.name: column for column in (*_IDENTITY, *_MEASURED)}
STAGE_COLUMNS: dict[str, Column] = {column.name: column for column in _STAGES}
HISTORY_COLUMNS: dict[str, Column] = {column.name: column for column in _HISTORY}
LATENCY_COLUMNS: dict[str, Column] = {column.name: column for column in _LATENCY}


def is_config_column(name: str) -> bool:
    """Whether `name` is the dotted path of a config leaf, such as `compress.pfr`."""
    section, dot, leaf = name.partition(".")
    return section in CONFIG_SECTIONS and bool(dot and leaf)


LATENCIES = frozenset({"latency_ms", "latency_iqr_ms", "latency_ratio", "latency_same_runtime_ratio"})

TEST_COLUMNS = frozenset(
    name for name in COLUMNS if ("accuracy" in name and name != "val_accuracy") or name == "runtime_agreement"
)
"""Columns that rest on test images: a front may report them, nothing may be chosen by them."""


def timed_by(name: str) -> tuple[str, ...]:
    """The columns that say on what a measured time was taken; times only compare where these are equal."""
    if name in COLUMNS and COLUMNS[name].unit == "s":
        return ("machine", "threads", "device")
    return ("latency_machine",) if name in LATENCIES else ()


def suggestion(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the known name nearest to `name`, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def schema(extra: "Mapping[str, pa.DataType]") -> "pa.Schema":
    """The schema of trials.parquet; `extra` (the config leaves) stands between the identity and the measurements.

    Raises:
        TableError: a name of `extra` is one of the table's own.

    """
    import pyarrow as pa

    taken = sorted(set(extra) & set(COLUMNS))
    if taken:
        msg = f"trials.parquet already has the columns {', '.join(taken)}; other columns need other names"
        raise TableError(msg)
    between = [pa.field(name, dtype) for name, dtype in extra.items()]
    return pa.schema([*_fields(_IDENTITY), *between, *_fields(_MEASURED)])


def stages_schema() -> "pa.Schema":
    """The schema of _stages.parquet, one row per stage."""
    import pyarrow as pa

    return pa.schema(_fields(_STAGES))


def history_schema() -> "pa.Schema":
    """The schema of _history.parquet, one row per stage and epoch, or round of labelling."""
    import pyarrow as pa

    return pa.schema(_fields(_HISTORY))


def latency_schema() -> "pa.Schema":
    """The schema of _latency.parquet, one row per evaluated network, runtime and batch size."""
    import pyarrow as pa

    return pa.schema(_fields(_LATENCY))


def _fields(columns: Sequence[Column]) -> "list[pa.Field]":
    import pyarrow as pa

    def arrow(dtype: str) -> "pa.DataType":
        return pa.timestamp("us", tz="UTC") if dtype == _TIMESTAMP else pa.type_for_alias(dtype)

    return [pa.field(column.name, arrow(column.dtype)) for column in columns]


_INTRO = """\
# What the tables hold

A study leaves one folder, `results/<study>/`. `trials.parquet` is what `pandas.read_parquet("results/<study>")` sees;
the files whose names begin with an underscore stand beside it and are ignored by dataset readers. Each file is
replaced whole, never edited, so it may be read while the study runs.

    import orchestrator
    df = orchestrator.load("results/<study>")
    df.pareto.front({"accuracy": "max", "compression": "max", "wall_time_s": {"min": "5%"}})
    df.al.curve()      # of a study with `select`: accuracy by labels; then df.al.area, savings, plot

A table that pandas itself has read has `df.pareto` and `df.al` after `import orchestrator.analysis.accessor`.

- *better* is the direction in which a column improves; a dash where neither is better.
- A *deterministic* column is equal bit for bit on one kind of machine at a fixed thread count, whether stages were
  shared or not and whichever runner ran them. The others are observations: times, machines, versions.
- Missing is null, never 0. A column whose baseline is unfinished is null, and so is one that was not measured.
- Fractions lie in [0, 1]; a drop is baseline - this, a gain this - baseline, both in the same unit; they may be
  negative. Ratios have the unit 1.
- A trial that failed is a row with its `status` and `error`. A failed latency pass fails its trial.
"""

_CONFIG = """\
Every leaf of the config is a column named by its dotted path (`compress.pfr`, `train.epochs`, `data.name`, ...), with
its resolved value; it is deterministic, and null where the leaf does not apply to the row. Of a pipeline,
`compress.steps` holds the names of its steps, and `compress.steps.2_stq.pfr` is a leaf of one. The sections are
{sections}. `orchestrator schema` prints the leaves with their types, defaults and bounds.
"""


_LATENCY_TEXT = """\
Latencies are observations on one machine, taken alone after all training. The table holds those of the machine that
wrote it last: on another one they are taken again. Networks are timed turn by turn in one process with their dense
parent; a time is that of one call with all images of the batch. It joins trials.parquet on `stage_keys.evaluate`.
"""


def document() -> str:
    """The data dictionary as Markdown: the text of `results/README.md`."""
    sections = ", ".join(f"`{name}.*`" for name in CONFIG_SECTIONS)
    parts = (
        _INTRO,
        "## trials.parquet: one row per trial\n",
        _markdown(COLUMNS),
        "### Config columns\n",
        _CONFIG.format(sections=sections),
        "## _stages.parquet: one row per stage\n",
        "A stage that several trials share is one row.\n",
        _markdown(STAGE_COLUMNS),
        "## _history.parquet: one row per stage and epoch, or round of labelling\n",
        _markdown(HISTORY_COLUMNS),
        "## _latency.parquet: one row per evaluated network, runtime and batch size\n",
        _LATENCY_TEXT,
        _markdown(LATENCY_COLUMNS),
    )
    return "\n".join(parts)


def _markdown(columns: Mapping[str, Column]) -> str:
    head = "| column | unit | better | deterministic | type | meaning |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(_markdown_row(column) for column in columns.values())


def _markdown_row(column: Column) -> str:
    better, certain = column.direction or "-", "yes" if column.deterministic else "no"
    unit = column.unit or "-"
    return f"| `{column.name}` | {unit} | {better} | {certain} | {column.dtype} | {column.doc} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
