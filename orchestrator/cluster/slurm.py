"""Slurm: one batch job a study. On one machine the sweep starts Ray itself; several are joined by `ray symmetric-run`.

`ray symmetric-run` ends every Ray of this user that it can see on a machine, and refuses to start beside one. So a job
on several machines takes them whole, and a job on one does without it.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster.batch_script import batch_script
from orchestrator.cluster.outcome import AGAIN, RESUMABLE, Say, leaving, sweep_code
from orchestrator.cluster.request import Request, shell
from orchestrator.errors import RunError

LOOK_EVERY_S = 2.0
ASK_S = 60.0
DRAIN_S = 120
OURS = ("array", "comment", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "wrap")
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
)  # fmt: skip
_KEY = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """`cpus` and `gpus` of each machine (None: all of its CPUs); `more` are options of sbatch."""

    nodes: int = 1
    cpus: int | None = None
    gpus: int = 0
    python: str = sys.executable
    more: Mapping[str, str] = field(default_factory=dict[str, str])


def sbatch_options(texts: list[str]) -> dict[str, str]:
    """`KEY=VALUE` and `KEY` as sbatch knows them without their dashes.

    Raises:
        RunError: one cannot stand in a batch file, or is the job's own.

    """
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not _KEY.fullmatch(key):
            raise RunError(f"--sbatch {text!r}: write the long name of an option without dashes, as in qos=long")
        if key in OURS:
            raise RunError(f"--sbatch {text}: {key} is this command's own; there is --nodes for machines")
        if re.search(r"[\s\"'\\#]", value):
            raise RunError(f"--sbatch {text!r}: spaces, quotes, backslashes and # cannot stand in a batch file's head")
        found[key] = value
    return found


class Slurm:
    """See `base.Target`."""

    def __init__(self, request: Request, options: SlurmOptions, say: Say, show: Callable[[str], object]) -> None:
        self._request = request
        self._options = options
        self._say = say
        self._show = show

    def preview(self) -> str:
        """The batch file."""
        options = self._options
        return batch_script(
            self._request, self._directives(), self._logs, nodes=options.nodes, gpus=options.gpus, python=options.python
        )

    def submit(self, *, follow: bool) -> int:
        """Send it, or find the job that runs."""
        if shutil.which("sbatch") is None:
            raise RunError(
                "there is no sbatch here: submit from a login node of the cluster, or --print the batch file and "
                "take it there"
            )
        running = self._running()
        job = running or self._send()
        with leaving(job, f"scancel {job}", self._say) as left:
            if running:
                self._say(f"job {job} is this study already; it is followed, nothing is sent")
            else:
                self._say(f"job {job} sent; it writes to {self._log(job)}")
            if not follow:
                self._say(f"The same command follows it. To stop it: scancel {job}")
                return 0
            return self._outcome(job, self._until_ended(job))
        return left.code

    @property
    def _logs(self) -> str:
        """With the results where these are a folder, as all machines see that; else in the working folder."""
        folder = self._request.results_folder
        place = Path(folder) / ".store" / "jobs" if folder else Path.cwd()
        return str(place / f"{self._request.name()}-%j.log")

    def _log(self, job: str) -> Path:
        return Path(self._logs.replace("%j", job))

    def _directives(self) -> dict[str, str]:
        """Options of sbatch; an empty value is a flag. What a user asks for wins."""
        options = self._options
        whole = options.cpus is None or options.nodes > 1
        size = {"exclusive": ""} if whole else {"cpus-per-task": str(options.cpus)}
        gpus = {"gpus-per-node": str(options.gpus)} if options.gpus else {}
        return {
            "job-name": self._request.name(), "comment": self._request.digest, "nodes": str(options.nodes),
            "ntasks-per-node": "1", **size, **gpus, "output": self._logs, "open-mode": "append",
            "signal": f"B:USR1@{DRAIN_S}", "requeue": "", **options.more,
        }  # fmt: skip

    def _running(self) -> str:
        listed = _ask("squeue", "--me", "-h", "-n", self._request.name(), "-o", "%i %k").splitlines()
        for line in listed:
            job, _, digest = line.strip().partition(" ")
            if digest != self._request.digest:
                raise RunError(
                    f"study {self._request.study} is being run with another plan by job {job}. A running study is "
                    f"frozen: wait for it or stop it (scancel {job}), or give this one another name with "
                    "--set study=NAME."
                )
            return job
        return ""

    def _send(self) -> str:
        try:
            Path(self._logs).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{error.filename}: cannot be written: {error.strerror}. Name another --results") from error
        return _ask("sbatch", "--parsable", text=self.preview()).strip().partition(";")[0]

    def _outcome(self, job: str, facts: Mapping[str, str]) -> int:
        state = facts.get("JobState", "")
        if state in ("COMPLETED", "FAILED"):
            return sweep_code(int(facts["ExitCode"].partition(":")[0]), self._say)
        self._say(f"job {job} ended as {state or 'nobody knows'}; what was finished is kept. {AGAIN}")
        return RESUMABLE

    def _until_ended(self, job: str) -> dict[str, str]:
        """Show what a job writes until it has ended; what Slurm then knows of it."""
        log, shown, told = self._log(job), 0, ""
        while True:
            facts = _facts(job)
            shown += self._new(log, shown)
            state = facts.get("JobState", "")
            if not facts or state in ENDED:
                return facts
            waiting = facts.get("Reason", "") if state == "PENDING" else ""
            if waiting not in ("", "None", told):
                self._say(f"job {job} waits in the queue: {waiting}")
            told = waiting
            time.sleep(LOOK_EVERY_S)

    def _new(self, log: Path, shown: int) -> int:
        try:
            with log.open("rb") as file:
                file.seek(shown)
                new = file.read()
        except FileNotFoundError:
            return 0
        self._show(new.decode(errors="replace"))
        return len(new)


def _facts(job: str) -> dict[str, str]:
    """What Slurm knows of a job; nothing where it has forgotten it and keeps no accounts."""
    try:
        told = _ask("scontrol", "show", "job", "-o", job)
        return dict(pair.split("=", 1) for pair in told.split() if "=" in pair)
    except RunError as forgotten:
        if "Invalid job id" not in str(forgotten):
            raise
    try:
        lines = _ask("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode").splitlines()
    except RunError:
        return {}
    state, _, code = (lines or [""])[-1].partition("|")
    return {"JobState": state.split(" ")[0], "ExitCode": code} if state else {}


def _ask(*words: str, text: str | None = None) -> str:
    """What a command of Slurm answers; a controller that is away for a while is asked again.

    Raises:
        RunError: it cannot be run, or refuses.

    """
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=ASK_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{shell(words)}: {error}") from error
    if done.returncode != 0:
        raise RunError(f"{shell(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
