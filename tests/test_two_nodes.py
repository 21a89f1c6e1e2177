"""A sweep that joins a cluster of two nodes from outside, with results in a folder that they share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command
from ray_head import short_folder

pytestmark = pytest.mark.ray


@pytest.fixture
def address() -> Generator[str]:
    folder = short_folder()
    script = Path(__file__).parent / "two_nodes.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_both_nodes_work_and_the_numbers_are_those_of_one_process(
    address: str, command: Command, deterministic: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    study = command.study()
    command("sweep", study, "--address", address)
    stages = command.stages().sort_values("started_at")
    # a node has one CPU: where stages overlap, both nodes are at work
    assert (stages["started_at"].to_numpy()[1:] < stages["finished_at"].cummax().to_numpy()[:-1]).any()
    command("sweep", study, "--runner", "serial", "--results", "results-here")
    here = pd.read_parquet(command.folder / "results-here" / "tiny")
    pd.testing.assert_frame_equal(deterministic(command.trials()), deterministic(here))
