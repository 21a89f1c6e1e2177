"""An S3 of the tests' own: moto's server, and a proxy in front of it that counts requests and does them harm."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow.fs as arrow

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}


@dataclass(frozen=True)
class Faults:
    """The chance of each harm to a request, and the seconds of a delay.

    `error`: 500 or 503 in place of an answer; `drop`: the connection ends before anything was done; `lose`: it was
    done, and the answer is lost.
    """

    delay: float = 0.0
    delay_s: float = 0.3
    error: float = 0.0
    drop: float = 0.0
    lose: float = 0.0
    seed: int = 0


NONE = Faults()


class Proxy(ThreadingHTTPServer):
    """Forwards to the S3 at `port`, in the state that the test gives it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.asked = Counter[tuple[str, str]]()
        self.harmed = Counter[str]()
        self._state = threading.Lock()
        self.suffer(NONE)

    def suffer(self, faults: Faults) -> None:
        """From now on."""
        self.faults, self._chance = faults, random.Random(faults.seed)

    def harm(self) -> str:
        """What happens to the next request."""
        with self._state:
            lot, found = self._chance.random(), ""
            for name in ("delay", "error", "drop", "lose"):
                lot -= getattr(self.faults, name)
                if lot < 0:
                    found = name
                    break
            if found:
                self.harmed[found] += 1
            return found

    def count(self, method: str, target: str) -> None:
        """A request that was passed on; a listing is of its bucket."""
        with self._state:
            self.asked[method, unquote(urlsplit(target).path).lstrip("/")] += 1

    def gets(self, part: str) -> dict[str, int]:
        """How often each object was fetched whose path holds `part`."""
        return {path: n for (method, path), n in self.asked.items() if method == "GET" and part in path}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is none of ours."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self._body()
        harm = self.server.harm()
        if harm == "delay":
            time.sleep(self.server.faults.delay_s)
        if harm == "drop":
            self._hang_up()
        elif harm == "error":
            self._answer(503 if len(body) % 2 else 500, {}, b"")
        else:
            self._forward(body, lose=harm == "lose")

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any  # noqa: N815

    def _forward(self, body: bytes, *, lose: bool) -> None:
        self.server.count(self.command, self.path)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        headers["Content-Length"] = str(len(body))
        connection = HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, HTTPException):
            self._hang_up()
            return
        finally:
            connection.close()
        if lose:
            self._hang_up()
        else:
            self._answer(answer.status, dict(answer.getheaders()), data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the parent's
        """Say nothing."""


@contextmanager
def running() -> Generator[Proxy]:
    """Both servers, on free ports."""
    code = (
        "import sys; from moto.server import ThreadedMotoServer as S; s = S('127.0.0.1', 0, verbose=False); s.start();"
        "print(s.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert process.stdin
    line = process.stdout.readline()
    assert line.strip().isdecimal(), "moto's server did not start"
    proxy = Proxy(int(line))
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for a test, and how our commands reach it: by the environment alone."""

    proxy: Proxy
    name: str
    home: Path

    @property
    def root(self) -> str:
        return f"s3://{self.name}/results"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.proxy.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAOFTHETESTS",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
        }

    @property
    def direct(self) -> arrow.S3FileSystem:
        """Past the proxy and our own code."""
        return arrow.S3FileSystem(
            access_key="k", secret_key="s", region="us-east-1", scheme="http", allow_bucket_creation=True,
            endpoint_override=f"127.0.0.1:{self.proxy.upstream}",
        )  # fmt: skip

    def files(self, below: str = "") -> dict[str, int]:
        """Objects and their sizes."""
        found = self.direct.get_file_info(arrow.FileSelector(f"{self.name}/{below}".rstrip("/"), recursive=True))
        return {one.path.removeprefix(f"{self.name}/"): one.size or 0 for one in found if one.is_file}

    def read(self, path: str) -> bytes:
        with self.direct.open_input_file(f"{self.name}/{path}") as file:
            return file.readall()
