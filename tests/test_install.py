"""The wheel holds what a user needs, and nothing of a checkout is missed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.install


def uv(*words: object, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["uv", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--out-dir", folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_two_packages_and_the_studies(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"orchestrator", "trainables"}
    shipped = {Path(name).name for name in names if name.startswith("orchestrator/search_spaces/")}
    assert shipped == {path.name for path in (ROOT / "search_spaces").glob("*.yaml")}


def test_smoke_runs_from_the_wheel_in_a_fresh_environment_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    uv("venv", "--python", version, tmp_path / "env", cwd=tmp_path)
    pins = tmp_path / "pins.txt"
    pins.write_text(uv("pip", "freeze", "--exclude-editable"))
    uv("pip", "install", "--python", tmp_path / "env", "--constraint", pins, wheel, cwd=tmp_path)
    command = tmp_path / "env" / "bin" / "orchestrator"
    done = subprocess.run(
        [command, "sweep", "smoke.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pareto front" in done.stdout
    assert (tmp_path / "results" / "smoke" / "trials.parquet").is_file()
