"""The answer to `train.precision: auto`, found once a store and kept, so that keys do not drift with the noise."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec

from orchestrator.durable import publish
from orchestrator.errors import RunError, StoreError
from orchestrator.estimate import network
from orchestrator.storage.places import AnyPath
from orchestrator.storage.remote import RemotePath
from trainables.config import SMALLEST_PROBED_IMAGE, Device, Precision, TrialConfig, resolve


class Precisions:
    """Decides between fp32 and bf16 autocast for a workload; on a GPU it is bf16."""

    def __init__(
        self,
        file: AnyPath,
        device: Device,
        announce: Callable[[str], None],
        *,
        may_probe: bool = True,
        before_probe: Callable[[TrialConfig], None] | None = None,
    ) -> None:
        self._file = file
        self._device = device
        self._announce = announce
        self._may_probe = may_probe
        self._before_probe = before_probe
        self._known: dict[str, Precision] = {}

    def __call__(self, config: TrialConfig) -> Precision:
        """The precision that `auto` stands for.

        `announce` is told before a probe of some seconds, and `before_probe` may refuse the config first. Without leave
        to probe, an unknown workload is fp32.

        Raises:
            RunError: the probe failed.
            StoreError: the answers cannot be read or written.

        """
        asked = resolve(config, "fp32")
        if self._device == "cuda":
            return "bf16"
        if (asked.data.image_size or 0) < SMALLEST_PROBED_IMAGE:
            return "fp32"
        name = f"{network(asked)} batch {asked.train.batch_size}"
        if name not in self._known:
            self._known = self._read()
        if name not in self._known and self._may_probe:
            self._known = self._probed(name, asked)
        return self._known.get(name, "fp32")

    def _probed(self, name: str, config: TrialConfig) -> dict[str, Precision]:
        """The answers with that of `name`; another run may give it first, and then it stands."""
        if self._before_probe is not None:
            self._before_probe(config)
        with self._locked():
            answers = self._read()
            if name not in answers:
                self._announce(f"timing bf16 against fp32 for {name} (once for {self._file.parent.parent})")
                answers[name] = _probe(config)
                publish(self._file, json.dumps(answers, indent=1, sort_keys=True).encode())
            return answers

    @contextmanager
    def _locked(self) -> Generator[None]:
        """One probe at a time; elsewhere than on a disk two may probe at once, and the later answer stands."""
        if isinstance(self._file, RemotePath):
            yield
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreError(f"{self._file}: cannot be written: {error.strerror}; name another --results") from error

    def _read(self) -> dict[str, Precision]:
        try:
            found = self._file.read_bytes() if self._file.exists() else b"{}"
            return msgspec.json.decode(found, type=dict[str, Precision])
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise StoreError(f"{self._file}: cannot be read ({error}); remove the file to probe again") from error


def _probe(config: TrialConfig) -> Precision:
    """Time both in a process of its own, so that the driver stays small and the clock undisturbed."""
    command = [sys.executable, "-m", "trainables", "--probe", "-"]
    if config.model.code_sha256 is not None:
        command.append("--allow-code")
    text = config.model_dump_json(exclude={"model": {"code_sha256"}})
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RunError(f"the precision probe failed; set train.precision to fp32 or bf16.\n{done.stderr.strip()}")
    return "bf16" if json.loads(done.stdout)["precision"] == "bf16" else "fp32"
