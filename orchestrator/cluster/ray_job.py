"""Ray Jobs: the study and the code go to a running cluster's head, which starts the sweep among its machines.

A job runs once; asked again, the sweep goes on from what lies in the results root.
"""

import asyncio
import importlib.util
import json
import os
import re
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator.cluster.outcome import AGAIN, RESUMABLE, Say, leaving, sweep_code
from orchestrator.cluster.request import Request, shell
from orchestrator.cluster.shipment import STUDY_FILE, shipped, write
from orchestrator.errors import RunError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ENVIRONMENT = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
KNOCK_S = 10.0
LOOK_EVERY_S = 1.0
PATIENCE_S = 60.0
PENDING_S = 15.0  # while Ray unpacks the code
UNFINISHED = ("PENDING", "RUNNING")


@dataclass(frozen=True, slots=True)
class RayJobOptions:
    """`address` is the head's dashboard; `driver_cpus` are held by the sweep itself, beside its workers."""

    address: str
    driver_cpus: float = 1.0
    python: str = "python"
    code_folder: Path | None = None


def dashboard_address(given: str | None) -> str:
    """The dashboard that is meant: named, or in Ray's own environment variables, or on this machine.

    Raises:
        RunError: it is no address of a dashboard, or holds credentials.

    """
    told = [os.environ.get(name, "") for name in ENVIRONMENT]
    address = given or next((one for one in told if one.startswith("http")), DEFAULT_ADDRESS)
    if set("@?#") & set(address):
        raise RunError(
            f"{'--address' if given else ' or '.join(ENVIRONMENT)}: holds credentials or options, and what is shown of "
            "a job can be read by others. Name the dashboard as http://HOST:8265; a cluster's token stands in the "
            "environment, as RAY_AUTH_TOKEN (with RAY_AUTH_MODE=token)"
        )
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or parts.scheme == "https")
    except ValueError:
        good = False
    if not good:
        raise RunError(
            f"--address {address}: is no dashboard; Ray Jobs are sent to http://HOST:8265, which `ray start --head` "
            "prints (the port 6379 is for sweep --address)"
        )
    return address.rstrip("/")


def is_here(address: str) -> bool:
    """Whether the machine of a URL is this one."""
    host = urlsplit(address).hostname or ""
    try:
        place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(place[0]) as probe:
            probe.bind(place[4])
    except OSError:
        return False
    return True


class RayJob:
    """See `base.Target`."""

    def __init__(self, request: Request, options: RayJobOptions, say: Say, show: Callable[[str], object]) -> None:
        self._request = request
        self._options = options
        self._say = say
        self._show = show
        self._files = shipped(request, options.code_folder)

    def preview(self) -> str:
        """The submission as JSON, with the files that travel and their bytes, then the study."""
        working_dir = {name: len(content) for name, content in sorted(self._files.items())}
        told = {"address": self._options.address, **self._submission(1), "runtime_env": {"working_dir": working_dir}}
        return f"{json.dumps(told, indent=1)}\n--- {STUDY_FILE}\n{self._request.text}"

    def submit(self, *, follow: bool) -> int:
        """Send it, or find the job that runs."""
        client = _client(self._options.address)
        with _told(self._options.address):
            running = self._running(client)
            job = running or self._send(client)
        with leaving(job, self._stop(job), self._say) as left:
            if running:
                self._say(f"job {job} runs this study already; it is followed, nothing is sent")
            else:
                self._say(f"job {job} sent to {self._options.address}")
            if not follow:
                self._say(f"The same command follows it. To stop it: {self._stop(job)}")
                return 0
            return self._outcome(client, job, self._until_ended(client, job))
        return left.code

    def _submission(self, attempt: int) -> dict[str, Any]:
        words = self._request.sweep(self._options.python, "--address", "auto")
        return {
            "submission_id": f"{self._request.name()}-{attempt}",
            "entrypoint": shell((*words, STUDY_FILE)),
            "entrypoint_num_cpus": self._options.driver_cpus,
            "metadata": {
                "study": self._request.study, "results": self._request.results, "digest": self._request.digest,
            },
        }  # fmt: skip

    def _known(self, client: "JobSubmissionClient") -> dict[int, Any]:
        """The jobs of this study in this results root, by attempt."""
        pattern = re.compile(rf"{re.escape(self._request.name())}-(\d+)")
        matches = [(pattern.fullmatch(job.submission_id or ""), job) for job in client.list_jobs()]
        return {int(match[1]): job for match, job in matches if match}

    def _running(self, client: "JobSubmissionClient") -> str:
        for job in self._known(client).values():
            if job.status in UNFINISHED:
                if (job.metadata or {}).get("digest") != self._request.digest:
                    raise RunError(
                        f"study {self._request.study} is being run with another plan by job {job.submission_id}. A "
                        f"running study is frozen: wait for it or stop it ({self._stop(job.submission_id)}), or give "
                        "this one another name with --set study=NAME."
                    )
                return str(job.submission_id)
        return ""

    def _send(self, client: "JobSubmissionClient") -> str:
        attempt = max(self._known(client), default=0) + 1
        # Ray zips a folder: one of its own holds nothing that is not meant to travel.
        with tempfile.TemporaryDirectory(prefix="orchestrator-job-") as folder:
            write(self._files, Path(folder))
            return client.submit_job(runtime_env={"working_dir": folder}, **self._submission(attempt))

    def _stop(self, job: str) -> str:
        return shell(("ray", "job", "stop", "--address", self._options.address, job))

    def _outcome(self, client: "JobSubmissionClient", job: str, status: str | None) -> int:
        if status is None:
            self._say(f"{self._options.address} no longer answers; what was finished is kept. {AGAIN}")
            return RESUMABLE
        if status == "STOPPED":
            self._say(f"job {job} was stopped; what was finished is kept. {AGAIN}")
            return RESUMABLE
        info = client.get_job_info(job)
        if info.driver_exit_code is None and status == "FAILED":
            self._say(str(info.message))
        return sweep_code(0 if status == "SUCCEEDED" else info.driver_exit_code, self._say)

    def _until_ended(self, client: "JobSubmissionClient", job: str) -> str | None:
        """Show what a job writes until it has ended; its last status, or None where the cluster is gone."""
        shown, begun, heard, waiting = 0, time.monotonic(), time.monotonic(), False
        while True:
            try:
                status = str(client.get_job_status(job).value)
                if status != "PENDING":
                    shown += asyncio.run(self._tail(client, job, shown))
                    status = str(client.get_job_status(job).value)
            except (OSError, RuntimeError):
                if time.monotonic() - heard > PATIENCE_S:
                    return None
            else:
                heard = time.monotonic()
                if status not in UNFINISHED:
                    return status
                if status == "PENDING" and not waiting and heard - begun > PENDING_S:
                    waiting = True
                    self._say(
                        f"waiting for {self._options.driver_cpus:g} free CPUs on the cluster for the sweep itself"
                    )
            time.sleep(LOOK_EVERY_S)

    async def _tail(self, client: "JobSubmissionClient", job: str, shown: int) -> int:
        """Show a job's output from character `shown` on; returns how many more were shown."""
        seen = 0
        async for text in client.tail_job_logs(job):
            new = text[max(0, shown - seen) :]
            seen += len(text)
            self._show(new)
        return max(0, seen - shown)


def _client(address: str) -> "JobSubmissionClient":
    if importlib.util.find_spec("aiohttp") is None or importlib.util.find_spec("requests") is None:
        raise RunError(
            'Ray Jobs need ray[default], which is not installed: pip install "sweep-orchestrator[cluster]". '
            "--print shows what would be sent without it"
        )
    _knock(address)
    from orchestrator.runner.environment import quiet_ray

    quiet_ray()
    os.environ[ENVIRONMENT[0]] = address  # or another one in the environment would win over the one that was named
    from ray.job_submission import JobSubmissionClient

    with _told(address):
        return JobSubmissionClient(address)


def _knock(address: str) -> None:
    """Ray's client waits without end for a server that says nothing."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=KNOCK_S) as answer:  # noqa: S310
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):  # the client knows how to ask for the token
            raise _nobody(address, f"HTTP status {error.code}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _nobody(address, str(error)) from error


def _nobody(address: str, why: str) -> RunError:
    return RunError(
        f"--address {address}: no Ray dashboard answers there ({why}). Name the one that `ray start --head` prints, "
        "http://HOST:8265; a head without ray[default] has none"
    )


@contextmanager
def _told(address: str) -> Generator[None]:
    """What Ray's client raises, as a message."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise RunError(
            f"--address {address}: the cluster wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH as on its head"
        ) from error
    except (RuntimeError, ConnectionError) as error:
        raise RunError(f"--address {address}: {error}") from error
