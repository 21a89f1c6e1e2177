"""The commands, used rightly and wrongly, as a user has them."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY, Command

from orchestrator.cli import main
from orchestrator.layout import Layout

SERIAL = ("--runner", "serial")
ONE_CELL = TINY.replace("[0, 0.5]", "[0.5]").replace("[0.5, 0.7]", "[0.5]").replace("seeds: 2", "seeds: 1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("cli"))
    command("sweep", command.study(ONE_CELL), *SERIAL)
    return command


def run(command: Command, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.chdir(command.folder)
    return main(words)


def test_plan_says_what_would_run_and_then_that_all_is_cached(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(swept, monkeypatch, "plan", "tiny.yaml", "--results", "elsewhere") == 0
    fresh = capsys.readouterr().out
    assert "tiny: 1 cell + 3 baselines" in fresh
    assert "by a guess; --probe measures" in fresh
    assert run(swept, monkeypatch, "plan", "tiny.yaml") == 0
    assert "nothing to run: all is cached" in capsys.readouterr().out


def test_a_probe_replaces_the_guess(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    assert run(command, monkeypatch, "plan", "tiny.yaml", "--probe") == 0
    assert "from finished stages" in capsys.readouterr().out


def test_plan_counts_excluded_cells_with_their_reason(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(TINY + 'exclude: ["compress.pfr == 0 and compress.threshold > 0.6"]\n')
    assert run(command, monkeypatch, "plan", "tiny.yaml") == 0
    assert "excluded: 2 cells by `compress.pfr == 0 and compress.threshold > 0.6`" in capsys.readouterr().out


def test_check_refuses_with_every_fault_and_its_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(TINY.replace("width: 4", "widht: 4").replace("epochs: 2, batch", "epochs: 0, batch"))
    assert run(command, monkeypatch, "check", "tiny.yaml") == 2
    told = capsys.readouterr().err
    assert "2 problems" in told
    assert "line 5" in told
    assert "width" in told
    assert "line 6" in told


def test_status_counts_trials(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(swept, monkeypatch, "status") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "tiny" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][:7] == ["tiny", "done", "4", "4", "0", "0", "0"]


def test_show_takes_the_beginning_of_an_id(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = swept.trials()["trial_id"].iloc[0]
    assert run(swept, monkeypatch, "show", trial[:8]) == 0
    shown = capsys.readouterr().out
    assert f"trial {trial} of tiny" in shown
    assert "compress.pfr" in shown
    assert run(swept, monkeypatch, "show", "nothing") == 2
    assert "no trial of" in capsys.readouterr().err


def test_pareto_gives_the_same_rows_in_every_form(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("pareto", "results/tiny", "--max", "accuracy", "--max", "compression:1%")
    assert run(swept, monkeypatch, *words) == 0
    assert "Pareto front: 1 point, accuracy max, compression max within 1 %" in capsys.readouterr().out
    assert run(swept, monkeypatch, *words, "--json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert run(swept, monkeypatch, *words, "--csv") == 0
    (as_csv,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert as_json["accuracy"] == pytest.approx(float(as_csv["accuracy"]), abs=1e-14)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pareto", "results/tiny", "--max", "acuracy"], "did you mean 'accuracy'"),
        (["pareto", "results/tiny", "--min", "accuracy"], "contradicts the column table"),
        (["pareto", "results/nothing"], "nothing"),
        (["sweep", "nothing.yaml"], "no such study"),
        (["sweep", "tiny.yaml", "--set", "train.epochs=0"], "train.epochs"),
        (["sweep", "tiny.yaml", "--set", "resources.cpus=64", "--results", "other"], "is more than the"),
        (["sweep", "tiny.yaml", "--set", "study=../escape"], "a letter or digit, then at most 63"),
        (["status", "--results", "nowhere"], "no study has results here"),
        (["status", "nothing"], "nothing"),
    ],
)
def test_a_users_mistake_is_told_without_a_traceback(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(swept, monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_missing_data_set_is_told_before_anything_starts(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    command.study(ONE_CELL.replace("{name: digits, train_size: 300}", "{name: cifar10, train_size: 300}"))
    words = ("sweep", "tiny.yaml", "--set", f"train.precision={precision}", "--data-root", "nowhere")
    assert run(command, monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert "timing bf16" not in told, "nothing is timed for a study that cannot run"
    assert "data set cifar10 is not usable under" in told
    assert "data_batch_1" in told
    assert "--data-root" in told
    assert "--download" in told


@pytest.mark.ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:port"])
def test_an_address_where_nobody_listens_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    command.study(ONE_CELL)
    assert run(command, monkeypatch, "sweep", "tiny.yaml", "--address", address) == 2
    assert f"--address {address}: no Ray cluster answers there" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_results_folder_that_cannot_be_written_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    (command.folder / "results").mkdir(mode=0o500)
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 2
    assert "name another --results" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_results_folder_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    (command.folder / "results").write_text("")
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_foreign_ledger_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    ledger = Layout(command.folder / "results").ledger
    ledger.mkdir(parents=True)
    (ledger / "other.jsonl").write_text('b4ad52ed {"ledger":99}\n')
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 0, "a line whose sum is wrong is only torn"
    capsys.readouterr()
    import zlib

    (ledger / "other.jsonl").write_text(f'{zlib.crc32(b"""{"ledger":99}"""):08x} {{"ledger":99}}\n')
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 2
    assert "written with ledger version 99" in capsys.readouterr().err


def test_plain_pandas_reads_the_folder(swept: Command) -> None:
    df = pd.read_parquet(swept.folder / "results" / "tiny")
    assert len(df) == 4
    assert df["compress.pfr"].dtype == float


def test_a_study_is_found_by_bare_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "pfr_grid.yaml"]) == 0
    assert main(["check", "pfr_grid"]) == 0


def test_one_trial_runs_without_the_orchestrator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.__main__ import main as one_trial

    config = {
        "data": {"name": "digits", "train_size": 300},
        "model": {"name": "resnet8", "width": 4},
        "train": {"epochs": 1, "batch_size": 32},
        "compress": {"method": "stq", "epochs": 1},
    }
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(config))
    assert one_trial([str(path), "--out", str(tmp_path / "net.packed")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packed_bytes"] == (tmp_path / "net.packed").stat().st_size
    path.write_text('{"data": {"name": "digit"}}')
    assert one_trial([str(path)]) == 2
    assert "data" in capsys.readouterr().err
    assert one_trial([str(tmp_path / "nothing.json")]) == 2


def test_no_command_is_undocumented() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    import subprocess

    words = [sys.executable, "-m", "orchestrator.cli", "--help"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    commands = [line.split()[0] for line in told.splitlines() if line.startswith("    ") and line[4] != " "]
    assert len(commands) == 24
    for name in commands:
        assert f"orchestrator {name}" in readme, name


REFUSED = [
    (("--set", "resources.gpus=1"), "resources.gpus 1 asks for a GPU"),
    (("--set", "resources.gpus=1"), "Add --set resources.gpus=0 to run on the CPU"),
    (("--set", "resources.device=cuda"), "resources.device cuda asks for a GPU"),
    (("--set", "resources.device=cuda"), "Add --set resources.device=cpu to run on the CPU"),
    (("--set", "resources.cpus=64"), "is more than the"),
    (("--set", "data.name=cifar10", "--set", "train.precision=fp32"), "data set cifar10 is not usable"),
    (("--runner", "tune", "--address", "127.0.0.1:1"), "no Ray cluster answers there"),
    (("--address", "127.0.0.1:1", "--set", "resources.train.device=auto"), "add --set resources.train.device=cuda"),
    (("--address", "127.0.0.1:1"), "--runner serial uses no Ray"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_a_refused_sweep_leaves_the_finished_table_alone(
    swept: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr("orchestrator.sweep._cuda_available", lambda: False)
    monkeypatch.setattr("orchestrator.spec.load.cuda_here", lambda: False)
    table = swept.folder / "results" / "tiny" / "trials.parquet"
    before = table.read_bytes()
    assert run(swept, monkeypatch, "sweep", "tiny.yaml", *SERIAL, "--set", "train.epochs=3", *words) == 2
    assert message in capsys.readouterr().err
    assert table.read_bytes() == before


def test_rows_that_leave_the_table_are_announced(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 0
    assert "leave" not in capsys.readouterr().out
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL, "--set", "axes.compress.pfr=[0.3]") == 0
    assert "1 rows of the former plan leave tiny/trials.parquet" in capsys.readouterr().out


def test_a_folder_of_something_else_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(ONE_CELL)
    (command.folder / "results" / "tiny").mkdir(parents=True)
    (command.folder / "results" / "tiny" / "mine.txt").write_text("mine")
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 2
    assert "holds other files, no study" in capsys.readouterr().err


def test_one_unreadable_table_does_not_hide_the_others(
    swept: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = swept.folder / "results" / "bad"
    bad.mkdir()
    (bad / "trials.parquet").write_text("x")
    assert run(swept, monkeypatch, "status") == 2
    shown = capsys.readouterr().out
    assert "unreadable" in shown
    assert "tiny" in shown
    (bad / "trials.parquet").unlink()


def test_a_front_of_one_point_still_says_which_setting_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.study(TINY.replace("seeds: 2", "seeds: 1"))
    assert run(command, monkeypatch, "sweep", "tiny.yaml", *SERIAL) == 0
    capsys.readouterr()
    assert run(command, monkeypatch, "pareto", "results/tiny", "--min", "packed_bytes", "--max", "accuracy") == 0
    assert "pfr" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_failed_trial(command: Command) -> None:
    words = " ".join(map(shlex.quote, command.arguments("studies")))
    shell = ["bash", "-c", f"{words} | true; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, cwd=command.folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")
