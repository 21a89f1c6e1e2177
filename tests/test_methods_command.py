"""`orchestrator methods` tells of every method that a study may name, and the shipped study has them all."""

import json
import subprocess
import sys

import pytest

from orchestrator.cli import main
from orchestrator.methods_command import config_of, settings
from orchestrator.spec.leaves import sections
from orchestrator.spec.load import load_spec
from trainables.method_config.facts import METHOD_FACTS


def test_every_method_is_told_of() -> None:
    assert set(METHOD_FACTS) == set(sections()["compress"].classes)


@pytest.mark.parametrize("name", METHOD_FACTS)
def test_its_settings_are_the_leaves_of_its_config(name: str) -> None:
    told = settings(name)
    leaves = set(config_of(name).model_fields) - {"method"} - ({"epochs", "lr"} if name == "combine" else set())
    assert {setting["leaf"] for setting in told} == {f"compress.{leaf}" for leaf in leaves}
    assert all(setting["meaning"] and setting["values"] for setting in told)


def test_settings_say_what_they_take() -> None:
    found = {setting["leaf"]: setting["values"] for setting in settings("ptq_group")}
    assert found["compress.weight_bits"] == "a whole number in [2, 8]"
    assert found["compress.activation_bits"] == "a whole number in [2, 8] or null"
    assert found["compress.distill"] == "a number in [0, 1]"
    assert found["compress.clip"] == "one of max, mse, learned"
    assert found["compress.eight_bits"] == "a list of first, last, downsample"
    assert found["compress.joint"] == "true or false"
    assert found["compress.distill_layers"] == "a list of texts"
    assert [setting["values"] for setting in settings("combine")] == ["a mapping"]


def test_the_list_has_a_line_of_each_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, facts in METHOD_FACTS.items():
        assert name in text
        assert facts.source.split(" (")[0] in text
    assert main(["methods", "xnet"]) == 0
    told = capsys.readouterr().out
    assert "compress.reduction" in told
    assert "a whole number in [2, 256]" in told


def test_as_json_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in told] == list(METHOD_FACTS)
    assert all(one["limits"] and one["stored"] and one["runtimes"] and one["does"] for one in told)


def test_a_wrong_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "xnets"]) == 2
    assert capsys.readouterr().err == "'xnets' is no compression method; did you mean 'xnet'?\n"


def test_it_needs_no_tensors() -> None:
    code = (
        "import sys; from orchestrator.cli import main; main(['methods', '--json']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_study_of_all_methods_has_all_of_them() -> None:
    spec = load_spec("methods")
    (axis,) = spec.axes
    found = {value["method"] for value in axis.values}  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue, reportGeneralTypeIssues, reportAttributeAccessIssue]
    assert found == set(METHOD_FACTS) - {"finetune"}  # which is the baseline of each
