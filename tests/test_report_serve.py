"""The page as a file and over HTTP: what may run in it, who may read it, and what is wrong with what a user gives."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import pandas as pd
import pytest
import report_tables as made
from conftest import Command, refused
from report_tables import data_of, told

from orchestrator.cli import main
from orchestrator.errors import OrchestratorError, RunError
from orchestrator.report import render
from orchestrator.report.render import in_script, page
from orchestrator.report.serve import LiveReport, Server


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return made.write(tmp_path / "results" / "made_up", made.rows())


# --- the page is data and two scripts --------------------------------------------------------------------------------


def test_nothing_of_a_users_text_stands_in_the_page_as_html(study: Path) -> None:
    text = page(told(study))
    assert "window.spite" in text
    assert "<script>window.spite" not in text
    assert "<img src=x" not in text
    found = data_of(text)
    assert found["study"]["question"] == f"What does {made.SPITE} cost?"
    assert made.SPITE in found["study"]["text"]


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script><!--": ["&lt;", "\u2028", "<!--<script>", "é"]}
    text = in_script(value)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == value


def test_the_policy_lets_only_the_pages_own_scripts_run(study: Path) -> None:
    text = page(told(study))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    assert [one for script in scripts if (one := render._hash(script)) not in policy[1]] == []  # pyright: ignore[reportPrivateUsage]
    directives = dict(part.strip().split(" ", 1) for part in policy[1].split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in directives["script-src"]
    assert directives["connect-src"] == "'none'"
    assert len(text) < 8e6


def test_without_plotly_the_message_says_what_to_install(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType]
    assert "pip install" in refused(capsys, "report", study)
    with pytest.raises(OrchestratorError, match="sweep-orchestrator\\[plot\\]"):
        render.plotly()


# --- wrong input ----------------------------------------------------------------------------------------------------


def test_unknown_study_foreign_folder_and_damaged_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'made_up'" in refused(capsys, "report", study.with_name("mad_up"))
    foreign = study.with_name("foreign")
    foreign.mkdir()
    (foreign / "results.csv").write_text("a,b\n1,2\n")
    assert "trials.parquet" in refused(capsys, "report", foreign)
    pd.DataFrame({"loss": [1.0], "step": [2]}).to_parquet(foreign / "trials.parquet")
    assert "did another tool write it?" in refused(capsys, "report", foreign)
    pd.DataFrame({"trial_id": ["a"], "status": ["complete"]}).to_parquet(foreign / "trials.parquet")
    assert "it lacks the columns study, role, baseline" in refused(capsys, "report", foreign)
    whole = (study / "trials.parquet").read_bytes()
    (study / "trials.parquet").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(capsys, "report", study)


def test_a_damaged_table_beside_is_named_and_skipped_with_a_flag(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "_stages.parquet").write_bytes(b"PAR1 and no more")
    pd.DataFrame({"other": [1]}).to_parquet(study / "_history.parquet")
    (study / "_study.yaml").write_text("study: [")
    told = refused(capsys, "report", study, "--max", "accuracy")
    assert "_stages.parquet cannot be read" in told
    assert told.endswith("--skip-damaged leaves it out\n")
    assert main(["report", str(study), "--max", "accuracy", "--skip-damaged"]) == 0
    warned = capsys.readouterr().err
    for name in ("_stages.parquet", "_history.parquet"):
        assert f"warning: left out: {name} cannot be read" in warned
    assert "warning: _study.yaml cannot be read" in warned
    found = data_of((study / "_report" / "report.html").read_text())
    assert "truncated" in found["seconds"]["why"]
    assert "lacks the columns key" in found["training"]["why"]
    assert found["study"]["text"] == "study: ["


def test_objectives_of_the_command_are_checked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'accuracy'" in refused(capsys, "report", study, "--max", "acuracy")
    assert "contradicts" in refused(capsys, "report", study, "--min", "accuracy")
    assert main(["report", str(study), "--min", "packed_bytes", "--max", "accuracy:1%"]) == 0
    found = data_of((study / "_report" / "report.html").read_text())
    assert {one["name"]: one["within"] for one in found["objectives"]} == {"accuracy": "1 %", "packed_bytes": ""}


def test_a_place_that_cannot_be_written_is_told(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "_report").write_text("in the way")
    assert "name a file with --out" in refused(capsys, "report", study)
    assert "name another --out" in refused(capsys, "report", study, "--out", tmp_path / "no" / "where.html")
    mine = tmp_path / "mine.html"
    mine.write_text("<h1>My own</h1>")
    assert "is no report" in refused(capsys, "report", study, "--out", mine)
    assert mine.read_text() == "<h1>My own</h1>"

    def read_only(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system", str(path))

    (study / "_report").unlink()
    monkeypatch.setattr("orchestrator.durable.publish", read_only)
    message = refused(capsys, "report", study)
    assert "Read-only file system" in message
    assert "--out" in message


def test_out_may_be_a_folder_or_an_older_report(study: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["report", str(study), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size > 4e6


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(study: Path) -> Generator[Server]:
    with Server(LiveReport(str(study), {}), 0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_server_follows_the_tables(server: Server, study: Path) -> None:
    status, text = ask(server, "/")
    assert status == 200
    first = json.loads(ask(server, "/version")[1])
    found = data_of(text.decode())
    assert found["live"] == first["version"]
    assert found["counts"]["complete"] == 12
    made.write(study, made.rows()[:5])
    second = json.loads(ask(server, "/version")[1])
    assert second["version"] != first["version"]
    assert data_of(ask(server, "/")[1].decode())["counts"]["complete"] == 5


def test_a_table_that_breaks_leaves_the_last_page_and_says_why(server: Server, study: Path) -> None:
    before = ask(server, "/")[1]
    (study / "trials.parquet").write_bytes(b"PAR1")
    assert ask(server, "/") == (200, before)
    assert "trials.parquet" in json.loads(ask(server, "/version")[1])["fault"]


def test_the_server_answers_its_own_name_and_reading_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", "127.0.0.1:1"):
        assert ask(server, "/", host=host)[0] == 421
        assert ask(server, "/version", host=host)[0] == 421
    assert ask(server, "/version", host=f"localhost:{server.server_port}")[0] == 200
    assert [ask(server, "/", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")] == [501] * 4
    assert ask(server, "/", "HEAD") == (200, b"")
    assert ask(server, "/../trials.parquet")[0] == 404


def test_a_taken_port_and_a_wrong_one_are_one_line(
    server: Server, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "serve", study, "--port", server.server_port)
    assert "cannot be used" in message
    assert len(message.splitlines()) == 1
    with pytest.raises(RunError, match="--port"):
        Server(LiveReport(str(study), {}), server.server_port)
    with pytest.raises(SystemExit):
        main(["serve", str(study), "--port", "70000"])


def test_serving_what_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "serve", tmp_path / "nothing")


def test_ctrl_c_ends_the_server_quietly(study: Path, tmp_path: Path) -> None:
    process = Command(tmp_path).start("serve", study)
    assert process.stdout
    assert "http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_the_pages_files_are_in_the_package() -> None:
    assert all(render._own(name) for name in (*render.SCRIPTS, "page.html", "style.css"))  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_well_formed(tmp_path: Path) -> None:
    (tmp_path / "own.js").write_text(render.own_script())
    subprocess.run(["node", "--check", str(tmp_path / "own.js")], check=True)
