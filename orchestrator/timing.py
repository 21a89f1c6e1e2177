"""The process that times networks, as the driver sees it."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from trainables.measure.request import Answer, Request

LIMIT_S = 1800.0
"""An observation that takes longer hangs."""


def timing_command(data_root: Path, code_folder: Path | None = None) -> list[str]:
    """What starts the process; `code_folder` is searched for a user's own models."""
    return [
        sys.executable,
        "-m",
        "trainables.stages.latency",
        str(data_root),
        *([str(code_folder)] if code_folder else []),
    ]


class Child:
    """A process that answers requests one by one; it is started when the first one comes."""

    def __init__(self, command: Sequence[str], limit_s: float = LIMIT_S) -> None:
        self._command = command
        self._limit_s = limit_s
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._said.close()

    def ask(self, request: Request) -> Answer | str:
        """The answer to a request, or in words how the process died over it."""
        process = self._started()
        timer = threading.Timer(self._limit_s, process.kill)
        timer.start()
        try:
            line = self._exchanged(process, request.model_dump_json())
        finally:
            timer.cancel()
        try:
            return Answer.model_validate_json(line)
        except ValidationError:
            return self._death(process)

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            # A session of its own: Ctrl-C at the terminal is for the driver, which lets the observation finish.
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
                start_new_session=True,
            )  # fmt: skip
        return self._process

    @staticmethod
    def _exchanged(process: "subprocess.Popen[str]", line: str) -> str:
        if process.stdin is None or process.stdout is None:
            return ""
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        return process.stdout.readline()

    def _death(self, process: "subprocess.Popen[str]") -> str:
        process.kill()
        code = process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        last = f"; it last said: {lines[-1][:200]}" if lines else ""
        return f"the process that timed it ended with code {code}{last}"
