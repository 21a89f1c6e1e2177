"""Studies written into a folder and read back, for the tests of what a study file may say."""

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import StudySpec

HEAD = """\
study: s
base:
  data: {name: digits}
  model: {name: resnet8}
  compress: {method: stq}
"""


def load(folder: Path, text: str, *overrides: str) -> StudySpec:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_spec(str(path), overrides)


def faults(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(folder, text, *overrides)
    return [str(fault) for fault in caught.value.faults]
