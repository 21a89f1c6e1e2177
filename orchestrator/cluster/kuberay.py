"""Kubernetes: a RayJob is handed to kubectl; KubeRay's operator makes its cluster, and takes it away."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from orchestrator.cluster.manifest import DIGEST, LABEL, KubeRayOptions, Manifest, label
from orchestrator.cluster.outcome import AGAIN, Say
from orchestrator.cluster.request import Request, shell
from orchestrator.errors import RunError

ENDED = ("Complete", "Failed")
ASK_S = 60.0


class KubeRay:
    """See `base.Target`."""

    def __init__(self, request: Request, options: KubeRayOptions, say: Say) -> None:
        self._request = request
        self._options = options
        self._say = say
        self._first = Manifest(request, options, 1)

    def preview(self) -> str:
        """The manifest of the first attempt; a later one has the next free number in its names."""
        return self._first.text()

    def submit(self, *, follow: bool) -> int:
        """Hand the manifest to kubectl, unless a job of this study is there; it is not followed."""
        del follow
        if shutil.which("kubectl") is None:
            raise RunError("there is no kubectl here: --print the manifest, and apply it where there is one")
        known = self._known()
        running = self._running(known)
        if running:
            self._say(f"rayjob {running} runs this study already; nothing is sent")
        else:
            manifest = Manifest(self._request, self._options, max(known, default=0) + 1)
            self._kubectl("apply", "-f", "-", text=manifest.text())
            running = manifest.name
            self._say(f"rayjob {running} sent")
        where = ("-n", self._options.namespace) if self._options.namespace else ()
        self._say(f"Follow it: {shell(('kubectl', *where, 'logs', '-f', f'job/{running}'))}")
        self._say(f"Stop it: {shell(('kubectl', *where, 'delete', 'rayjob', running))}")
        self._say(f"What was finished is kept. {AGAIN}")
        return 0

    def _known(self) -> dict[int, dict[str, Any]]:
        """The jobs of this study in this results root, by attempt."""
        told = json.loads(self._kubectl("get", "rayjobs.ray.io", "-l", f"{LABEL}={label(self._request)}", "-o", "json"))
        jobs = {job["metadata"]["name"].rpartition("-")[2]: job for job in told.get("items", ())}
        return {int(number): job for number, job in jobs.items() if number.isdecimal()}

    def _running(self, known: Mapping[int, dict[str, Any]]) -> str:
        for job in known.values():
            name = str(job["metadata"]["name"])
            if job.get("status", {}).get("jobDeploymentStatus") in ENDED:
                continue
            if job["metadata"].get("annotations", {}).get(DIGEST) != self._request.digest:
                raise RunError(
                    f"study {self._request.study} is being run with another plan by rayjob {name}. A running study is "
                    "frozen: wait for it or delete it, or give this one another name with --set study=NAME."
                )
            return name
        return ""

    def _kubectl(self, *words: str, text: str | None = None) -> str:
        where = ("-n", self._options.namespace) if self._options.namespace else ()
        command = ("kubectl", *where, *words)
        try:
            done = subprocess.run(  # noqa: S603
                command, input=text, capture_output=True, text=True, check=False, timeout=ASK_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{shell(command)}: {error}") from error
        if done.returncode != 0:
            raise RunError(f"{shell(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout
