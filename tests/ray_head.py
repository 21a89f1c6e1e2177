"""A Ray head with dashboard as a cluster has one: on free ports, in a folder of its own, ended by its own processes."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

WITHIN_S = 120.0


@dataclass(frozen=True)
class Head:
    """Where it listens, and what its clients need in their environment: it lets nobody in without a token."""

    address: str
    dashboard: str
    environment: dict[str, str]


def free_ports(number: int) -> list[int]:
    listeners = [socket.socket() for _ in range(number)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def short_folder() -> Path:
    """A name for a folder of Ray's, whose sockets have short names."""
    return Path(f"/tmp/ray-{secrets.token_hex(3)}")


@contextmanager
def ray_head(cpus: int = 2) -> Generator[Head]:
    folder = short_folder()
    folder.mkdir()
    port, dashboard, agent, client = free_ports(4)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    scripts = Path(sys.executable).parent
    environment["PATH"] = f"{scripts}:{environment['PATH']}"
    words = [
        str(scripts / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--include-dashboard=true", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}", f"--num-cpus={cpus}", f"--object-store-memory={100 * 2**20}",
        f"--temp-dir={folder}",
    ]  # fmt: skip
    with (folder / "out").open("wb") as log:
        process = psutil.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", token)
        _until_it_answers(head, folder / "out", process)
        yield head
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _until_it_answers(head: Head, log: Path, process: psutil.Popen) -> None:
    request = urllib.request.Request(
        f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    )
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"no head after {WITHIN_S:g} s\n{log.read_text()}")


def _end(process: psutil.Popen) -> None:
    """Exactly what was started here: the head's process and all that it started, and no other Ray."""
    ours = process.children(recursive=True)
    process.terminate()
    with suppress(psutil.TimeoutExpired):
        process.wait(20)
    _, left = psutil.wait_procs([process, *ours], timeout=5)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=10)
