"""What several test files need: a study small enough to be swept in seconds, and the command line in a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

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
