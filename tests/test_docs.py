"""What the documents show works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command
from ruamel.yaml import YAML

from orchestrator.spec.load import load_spec, shipped_studies

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("results/**/*.md")])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.ray
def test_the_five_minutes_run_as_they_stand(command: Command) -> None:
    """Every console line, then every Python block, in one folder; `uv run` is what started this test already."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        shell = ["bash", "-euo", "pipefail", "-c", line.replace("uv run ", "")]
        done = subprocess.run(
            shell, cwd=command.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=command.folder, check=True, timeout=60)


def test_the_study_in_the_readme_is_the_shipped_one() -> None:
    (block,) = (block for block in blocks("yaml") if block.startswith("study:"))
    shown = YAML(typ="safe", pure=True).load(block)
    assert shown == YAML(typ="safe", pure=True).load((shipped_studies() / "pfr_grid.yaml").read_text())
    assert load_spec("pfr_grid").study == "pfr_grid"


def test_parts_of_studies_in_the_readme_fit_a_study(tmp_path: Path) -> None:
    rest = "study: shown\nbase:\n  data: {name: fashion_mnist}\n  model: {name: resnet8}\n"
    (part,) = (block for block in blocks("yaml") if block.startswith("base:"))
    path = tmp_path / "shown.yaml"
    path.write_text(rest + part.removeprefix("base:\n"))
    assert len(load_spec(str(path)).all_axes) == 2


def test_the_two_commands_stand_in_the_readme_and_ci_runs_the_second() -> None:
    sweep = "pip install -q uv && uv run orchestrator sweep pfr_grid.yaml"
    tests = "pip install -q uv && uv run pytest"
    assert f"    {sweep}\n" in README
    assert f"    {tests}\n" in README
    assert tests in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert missing == []


def test_exit_codes_in_the_readme_are_those_of_the_program() -> None:
    from orchestrator import cli

    told = re.search(r"Exit codes: (.*?)\n\n", README, flags=re.DOTALL)
    assert told is not None
    numbers = {int(number) for number in re.findall(r"\b(\d+) [a-z]", told[1])}
    codes = {cli.EXIT_FAILED_TRIALS, cli.EXIT_USER_MISTAKE, cli.EXIT_RESUMABLE, cli.EXIT_STOPPED}
    assert numbers == {0, *codes}
