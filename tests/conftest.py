"""What several test files need: a study swept in seconds, exports of it, and the command line in a process."""

import csv
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from orchestrator.cli import main
from trainables.config import DataConfig
from trainables.data.load import Dataset, load, normalise
from trainables.export.facts import Facts, Format
from trainables.export.packed import unpack


def pytest_configure() -> None:
    """A shell that runs this in its background has Ctrl-C ignored, and every command that is started here with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes many minutes runs where it is asked for: `-m chaos`."""
    if "chaos" in str(config.getoption("markexpr")):
        return
    long = [item for item in items if item.get_closest_marker("chaos")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


TINY = """\
# Does the whole path work?
study: tiny
base:
  data: {name: digits, train_size: 300}
  model: {name: resnet8, width: 4}
  train: {epochs: 2, batch_size: 32}
  compress: {method: stq, pfr: 0.5, epochs: 2}
axes:
  compress.pfr: [0, 0.5]
  compress.threshold: [0.5, 0.7]
seeds: 2
objectives: {accuracy: max, compression: max, wall_time_s: {min: 5%}}
"""


@dataclass(frozen=True)
class Command:
    """The command line as a user has it: in a process of its own, in a folder of its own."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def study(self, text: str = TINY, name: str = "tiny.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def arguments(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", *map(str, words)]

    def start(self, *words: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.arguments(*words), cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    def __call__(self, *words: object, expect: int = 0) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == expect, output
        return output

    def trials(self, study: str = "tiny") -> pd.DataFrame:
        return pd.read_parquet(self.folder / "results" / study)

    def stages(self, study: str = "tiny") -> pd.DataFrame:
        return pd.read_parquet(self.folder / "results" / study / "_stages.parquet")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def deterministic() -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The columns that must be equal however a study was run, in an order of their own."""
    from orchestrator.analysis.tables import COLUMNS, is_config_column

    def chosen(df: pd.DataFrame) -> pd.DataFrame:
        names = [name for name in df.columns if is_config_column(name) or COLUMNS[name].deterministic]
        return df[names].sort_values("trial_id").reset_index(drop=True)

    return chosen


SIGNS = (
    TINY.replace("resnet8, width: 4", "resnet8, width: 4, block: bn_first")
    .replace("  compress.pfr: [0, 0.5]\n  compress.threshold: [0.5, 0.7]", "  compress.activations: [float, sign]")
    .replace("seeds: 2", "seeds: 1")
    .replace("epochs: 2", "epochs: 10")  # so that rounding to int8 finds few images between two classes
)


FORMATS: tuple[Format, ...] = ("packed", "onnx", "torch")


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = Command(tmp_path_factory.mktemp("export"), {"OMP_NUM_THREADS": "1"})
    command("sweep", command.study(SIGNS), "--runner", "serial")
    return command


@pytest.fixture(scope="session")
def trial(swept: Command) -> str:
    """The cell with one-bit weights and fp32 activations."""
    df = swept.trials()
    return df[(df["role"] == "cell") & (df["compress.activations"] == "float")]["trial_id"].iloc[0]


@pytest.fixture(scope="session")
def data() -> Dataset:
    config = DataConfig(name="digits", image_size=8, train_size=300, augment="none")
    return load(config, 0, Path())


@pytest.fixture(scope="session")
def exported(swept: Command, trial: str) -> dict[Format, Path]:
    """The trial in each format; made once, read by many tests, written to by none."""
    torch.set_num_threads(1)
    folders: dict[Format, Path] = {}
    for form in FORMATS:
        folders[form] = swept.folder / f"{form}-folder"
        words = ("export", trial, "--format", form, "--out", folders[form], "--results", swept.folder / "results")
        assert main([str(word) for word in words]) == 0
    return folders


@pytest.fixture(scope="session")
def images(swept: Command, data: Dataset) -> list[Path]:
    folder = swept.folder / "digits"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(data.test.images[index, 0].numpy()).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def expected(swept: Command, trial: str, data: Dataset) -> np.ndarray:
    """Probabilities of the test images by the network of the trial, straight from the store."""
    df = swept.trials()
    key = df[df["trial_id"] == trial]["stage_keys.evaluate"].iloc[0]
    network, _ = unpack((swept.folder / "results/.store/artifacts" / key).read_bytes())
    with torch.inference_mode():
        return network.model(normalise(data.test.images, data)).softmax(1).numpy()


def python(*words: object, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def predictions(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["predict", *map(str, words), "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def refused(capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    capsys.readouterr()
    assert main(list(map(str, words))) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def facts(folder: Path) -> Facts:
    return Facts.model_validate_json((folder / "model.json").read_bytes())
