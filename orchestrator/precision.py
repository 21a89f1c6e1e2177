"""The answer to `train.precision: auto`, found once a store and kept, so that keys do not drift with the noise."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.artifacts import publish
from orchestrator.errors import RunError, StoreError
from trainables.config import Device, Precision, TrialConfig, resolve

PROBE_FROM_PIXELS = 16
"""Smaller images are never probed: at 8x8 pixels bf16 gained nothing in any measurement."""


class Precisions:
    """Decides between fp32 and bf16 autocast for a workload; on a GPU it is bf16."""

    def __init__(self, file: Path, device: Device, announce: Callable[[str], None], *, may_probe: bool = True) -> None:
        self._file = file
        self._device = device
        self._announce = announce
        self._may_probe = may_probe
        self._known: dict[str, Precision] | None = None

    def __call__(self, config: TrialConfig) -> Precision:
        """The precision that `auto` stands for.

        `announce` is told before a probe of some seconds. Without leave to probe, an unknown workload is fp32.

        Raises:
            RunError: the probe failed.
            StoreError: the answers cannot be read or written.

        """
        asked = resolve(config, "fp32")
        if self._device == "cuda":
            return "bf16"
        if (asked.data.image_size or 0) < PROBE_FROM_PIXELS:
            return "fp32"
        answers = self._answers()
        name = _workload(asked)
        if name not in answers:
            if not self._may_probe:
                return "fp32"
            self._announce(f"timing bf16 against fp32 for {name} (once for {self._file.parent.parent})")
            answers[name] = _probe(asked)
            self._save(answers)
        return answers[name]

    def _answers(self) -> dict[str, Precision]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, Precision]:
        try:
            return json.loads(self._file.read_bytes()) if self._file.exists() else {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._file}: cannot be read ({error}); remove the file to probe again") from error

    def _save(self, answers: dict[str, Precision]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            publish(self._file, json.dumps(answers, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise StoreError(f"{self._file}: cannot be written: {error.strerror}") from error


def _workload(config: TrialConfig) -> str:
    model, size = config.model, config.data.image_size
    return f"{model.name}/{model.width} {model.stem} {model.block} {size}x{size} batch {config.train.batch_size}"


def _probe(config: TrialConfig) -> Precision:
    """Time both in a process of its own, so that the driver stays small and the clock undisturbed."""
    command = [sys.executable, "-m", "trainables", "--probe", "-"]
    done = subprocess.run(command, input=config.model_dump_json(), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RunError(f"the precision probe failed; set train.precision to fp32 or bf16.\n{done.stderr.strip()}")
    return "bf16" if json.loads(done.stdout)["precision"] == "bf16" else "fp32"
