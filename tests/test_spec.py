import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_files import HEAD, faults, load

from orchestrator.errors import SpecError
from orchestrator.spec.cells import cells
from orchestrator.spec.load import load_spec, shipped_studies
from orchestrator.spec.model import Distribution
from orchestrator.spec.schema import study_schema
from orchestrator.spec.yaml_nodes import parse, resolve


def test_the_working_folder_comes_before_the_shipped_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_spec("pfr_grid").study == "pfr_grid"
    (tmp_path / "pfr_grid.yaml").write_text(HEAD)
    assert load_spec("pfr_grid").study == "s"


def test_yaml_is_read_by_version_1_2() -> None:
    texts = [
        "1",
        "-0",
        "0o17",
        "0x1F",
        "1e-3",
        "5e-4",
        ".5",
        "1.",
        "no",
        "yes",
        "on",
        "012",
        "1_000",
        "12:30",
        "~",
        "null",
    ]
    texts += ["True", "5%", "-.5e+2", "+1", "0b1", "1.2.3"]
    read = [
        1,
        0,
        15,
        31,
        0.001,
        0.0005,
        0.5,
        1.0,
        "no",
        "yes",
        "on",
        12,
        "1_000",
        "12:30",
        None,
        None,
        True,
        "5%",
        -50.0,
    ]
    read += [1, "0b1", "1.2.3"]
    assert [resolve(text) for text in texts] == read
    assert [type(resolve(text)) for text in texts] == [type(value) for value in read]


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        ("[0, 0.6, 0.1]", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
        ("[0.6, 0, -0.2]", (0.6, 0.4, 0.2, 0.0)),
        ("[0, 0.35, 0.1]", (0.0, 0.1, 0.2, 0.3)),
        ("[0.5, 0.5, 1]", (0.5,)),
        ("[0.1, 0.12, 1e-2]", (0.1, 0.11, 0.12)),
    ],
)
def test_ranges_are_exact_decimals_with_both_ends(bounds: str, values: tuple[float, ...], tmp_path: Path) -> None:
    spec = load(tmp_path, HEAD + f"axes: {{compress.pfr: {{range: {bounds}}}}}\n")
    assert spec.axes[0].values == values


def test_a_range_of_whole_numbers_stays_whole(tmp_path: Path) -> None:
    (axis,) = load(tmp_path, HEAD + "axes: {train.epochs: {range: [10, 30, 10]}}\n").axes
    assert axis.values == (10, 20, 30)
    assert isinstance(axis.values, tuple)
    assert {type(value) for value in axis.values} == {int}


def test_a_study_becomes_what_it_says(tmp_path: Path) -> None:
    text = "\ufeff# yaml-language-server: $schema=x\n# What is asked?\n# More.\n" + HEAD
    spec = load(
        tmp_path,
        text + "seeds: [4, 2]\nsearch: {name: random, trials: 3, seed: 9}\nresources: {cpus: 2, gpus: 0.5}\n"
        "axes: {train.lr: {loguniform: [1e-3, 1]}}\n",
    )
    assert spec.question == "What is asked?"
    assert spec.seeds == (4, 2)
    assert (spec.search.name, spec.search.trials, spec.search.seed) == ("random", 3, 9)
    assert (spec.resources.worker.cpus, spec.resources.worker.gpus) == (2, 0.5)
    assert spec.axes[0].values == Distribution("loguniform", 0.001, 1)
    assert [objective.column for objective in spec.objectives] == ["accuracy", "compression", "wall_time_s"]
    assert spec.base["compress"] == {"method": "stq"}


def test_the_text_of_a_study_is_that_study_again(tmp_path: Path) -> None:
    text = (
        "# Q?\n"
        + HEAD
        + "zip: {train.lr: [1, 2e-05], compress.pfr: [0, 0.5]}\nexclude: ['train.lr > 1 and seed == 0']\n"
    )
    spec = load(tmp_path, text, "seeds=2", "study=other")
    again = load(tmp_path, spec.text())
    assert again == spec
    assert cells(again) == cells(spec)


def test_overrides_change_base_axes_and_the_rest(tmp_path: Path) -> None:
    text = HEAD + "axes: {compress.pfr: [0, 0.4]}\nseeds: 3\n"
    sets = [
        "train.epochs=3",
        "seeds=1",
        "axes.compress.pfr=[0, 0.2, 0.3]",
        "study=t",
        "search.seed=4",
        "compress.lr=1e-2",
    ]
    spec = load(tmp_path, text, *sets, "train.epochs=4")
    found = cells(spec).cells
    assert spec.study == "t"
    assert spec.search.seed == 4
    assert [cell.values for cell in found] == [(("compress.pfr", pfr),) for pfr in (0.0, 0.2, 0.3)]
    assert {cell.config.train.epochs for cell in found} == {4}
    assert {cell.config.compress and cell.config.compress.lr for cell in found} == {0.01}
    assert cells(load(tmp_path, HEAD, "compress=null")).cells[0].config.compress is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs=0", "base.train.epochs: 0 is not a whole number of at least 1 (from --set train.epochs=0)"),
        (
            "compress.pfr=0.2",
            "compress.pfr: is an axis of this study; set axes.compress.pfr=[0.2] instead (from --set compress.pfr=0.2)",
        ),
        (
            "base.compress.pfr=0.2",
            "compress.pfr: is an axis of this study; set axes.compress.pfr=[0.2] instead (from --set "
            "base.compress.pfr=0.2)",
        ),
        (
            "axes.compress.pfr=[0,1.4]",
            "axes.compress.pfr[1]: 1.4 is not a number in [0, 1) (from --set axes.compress.pfr=[0,1.4])",
        ),
        ("sudy=x", "sudy: unknown path; did you mean 'study'? (from --set sudy=x)"),
        ("x", "--set: 'x' must be path=value, as in train.epochs=3"),
        ("train.lr=", "train.lr: no value (from --set train.lr=); write null for none"),
        ("train.epoch=3", "base.train.epoch: unknown key; did you mean 'epochs'? (from --set train.epoch=3)"),
        ("x" * 9000 + "=1", f"--set: '{'x' * 56}... is no path of a study: it has 9,000 characters"),
        (
            "train.lr=" + "x" * 9000,
            f"base.train.lr: '{'x' * 56}... is text; a number above 0 is wanted (from --set train.lr={'x' * 60}...)",
        ),
        ("train.lr=.nan", "train.lr: .nan is no finite number (from --set train.lr=.nan)"),
    ],
)
def test_a_wrong_override_is_named(override: str, told: str, tmp_path: Path) -> None:
    assert told in faults(tmp_path, HEAD + "axes: {compress.pfr: [0, 0.4]}\n", override)


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "study: ../x\nbase:\n  data: {name: nope}\n  model: {name: resnet8}\naxes: {train.lr: []}\nseeds: x\nfoo: 1\n"
    )
    assert [told.split(":")[0] for told in faults(tmp_path, text)] == [
        f"line {n}, column {c}" for n, c in ((1, 8), (3, 16), (5, 18), (6, 8), (7, 1))
    ]


STUDIES = {
    "smoke": 4,
    "pfr_grid": 42,
    "threshold_grid": 63,
    "stq_ablation": 96,
    "fashion_mnist_pfr": 63,
    "fashion_mnist_width": 6,
    "fashion_mnist_freeze": 6,
    "cifar10_resnet20": 9,
    "cifar10_resnet18": 12,
    "al_budget": 72,
    "al_pfr_joint": 30,
    "search_grid": 1620,
    "decompose": 27,
    "expand": 18,
    "group_sparsity": 24,
    "low_rank": 36,
    "xnet": 24,
    "lkam": 60,
    "ptq_group": 150,
    "methods": 84,
    "fashion_mnist_methods": 28,
    "binary_methods": 18,
    "combine": 27,
}


@pytest.mark.parametrize(("name", "count"), STUDIES.items())
def test_shipped_studies_ask_a_question_and_have_the_cells_they_say(name: str, count: int) -> None:
    spec = load_spec(str(shipped_studies() / f"{name}.yaml"))
    assert spec.study == name
    assert spec.question.endswith("?")
    assert len(cells(spec).cells) == count


def test_every_shipped_study_is_tested() -> None:
    assert {path.stem for path in shipped_studies().iterdir()} == set(STUDIES)


def test_the_schema_knows_every_leaf_and_bound() -> None:
    properties = study_schema()["properties"]
    axes = properties["axes"]["properties"]
    assert axes["compress.pfr"]["oneOf"][0]["items"]["exclusiveMaximum"] == 1
    assert "compress.threshold_of" in axes
    inner = properties["axes"]["patternProperties"]
    step = study_schema()["$defs"]["step"]
    (named,) = properties["base"]["properties"]["compress"]["oneOf"][0]["properties"]["steps"][
        "patternProperties"
    ].values()
    assert named == {"$ref": "#/$defs/step"}
    assert step["properties"]["pfr"] == axes["compress.pfr"]["oneOf"][0]["items"]
    assert "steps" not in step["properties"]
    found = [schema for pattern, schema in inner.items() if re.fullmatch(pattern, "compress.steps.2_stq.pfr")]
    assert found == [axes["compress.pfr"]]
    assert properties["base"]["properties"]["data"]["properties"]["name"]["enum"][0] == "digits"
    assert "required" not in properties["base"]["properties"]["data"]


def test_the_schema_lists_every_model_and_leaves_out_what_the_plan_fills_in() -> None:
    leaves = study_schema()["properties"]["base"]["properties"]["model"]["properties"]
    assert set(leaves) == {"name", "width", "stem", "block"}
    known, code = leaves["name"]["anyOf"]
    assert {"resnet8", "resnet18", "vgg_small", "mobilenet_v2", "densenet121"} < set(known["enum"])
    assert re.fullmatch(code["pattern"], "own.models:make")
    assert not re.fullmatch(code["pattern"], "own.models")


def test_reading_a_study_loads_nothing_heavy() -> None:
    code = (
        "import sys; from orchestrator.spec.load import load_spec; from orchestrator.spec.cells import "
        "cells; cells(load_spec('smoke'));"
        "print([m for m in ('torch', 'ray', 'pandas', 'numpy', 'sklearn', 'scipy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


PIECES = st.sampled_from(
    [
        *HEAD.splitlines(keepends=True),
        "axes:\n",
        "  compress.pfr: [0, 0.4]\n",
        "  train.lr: {range: [0, 1, 0.1]}\n",
        "zip:\n",
        "when: {compress.pfr: seed > 0}\n",
        "exclude:\n",
        "  - compress.pfr == 0\n",
        "seeds: 2\n",
        "search: {name: random, trials: 2}\n",
        "  compress: [null, {method: stq}]\n",
        "  compress.method: [stq, binary]\n",
        "objectives: {accuracy: max}\n",
        "\t",
        "&a ",
        "*a ",
        "!!x ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "'",
        '"',
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "? ",
        "| ",
        "\\U00110000",
        "%TAG",
        "\x07",
        "1e999",
        "null\n",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(PIECES, PIECES, st.text(max_size=8)), max_size=14).map("".join))
def test_any_text_is_a_study_or_a_told_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        spec = load_spec(str(path))
    except SpecError as error:
        assert error.faults  # noqa: PT017 - either outcome is right
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert cells(spec).cells or spec.excludes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_study_is_a_study_or_a_told_fault(tmp_path: Path, data: st.DataObject) -> None:
    text = (shipped_studies() / "fashion_mnist_pfr.yaml").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    path = tmp_path / "fuzz.yaml"
    path.write_text(text[:start] + data.draw(st.one_of(PIECES, st.just(""))) + text[end:], errors="replace")
    try:
        load_spec(str(path))
    except SpecError as error:
        assert error.faults  # noqa: PT017 - either outcome is right


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_an_override_with_any_text_is_a_value_or_a_fault(text: str) -> None:
    root, found = parse(text, "--set x")
    assert root is not None or found or not text.strip() or text.lstrip("\ufeff \r\n").startswith(("#", "%", "-", "."))
    try:
        load_spec("smoke", [text, f"train.lr={text}", f"{text}=1"])
    except SpecError as error:
        assert error.faults  # noqa: PT017 - either outcome is right
