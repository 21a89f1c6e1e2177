"""The report of a study that still runs, over HTTP on the loopback address; made anew when its tables change."""

import hashlib
import json
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from orchestrator.errors import OrchestratorError, RunError
from orchestrator.report.data import payload
from orchestrator.report.render import page
from orchestrator.report.source import read, tables_of
from orchestrator.storage.places import AnyPath, located

HOST = "127.0.0.1"


class LiveReport:
    """The page of one study, made when it is asked for and the tables have changed since."""

    def __init__(self, path: str | AnyPath, asked: Mapping[str, object], *, skip_damaged: bool = False) -> None:
        self._path = located(path)
        self._skip_damaged = skip_damaged
        self._asked = asked
        self._lock = threading.Lock()
        self._made = ""
        self._page = b""
        self._fault = ""

    def version(self) -> str:
        """What the tables are known by: their names, sizes and times of change."""
        seen: list[tuple[str, int, int]] = []
        for path in tables_of(self._path):
            try:
                facts = path.stat()
            except OSError:
                continue
            seen.append((path.name, facts.st_size, facts.st_mtime_ns))
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]

    def page(self) -> bytes:
        """The page of the newest tables that can be read.

        Raises:
            OrchestratorError: none could be read yet.

        """
        with self._lock:
            # The version is taken first: tables that change meanwhile make the page old, never wrongly new.
            now = self.version()
            if now != self._made:
                self._renew(now)
            return self._page

    def state(self) -> bytes:
        """The version of the tables, and why the page could not be renewed, as JSON."""
        return json.dumps({"version": self.version(), "fault": self._fault}).encode()

    def _renew(self, now: str) -> None:
        try:
            source = read(self._path, skip_damaged=self._skip_damaged)
            self._page = page(payload(source, self._asked), live=now).encode()
            self._made, self._fault = now, ""
        except OrchestratorError as error:
            self._fault = str(error).splitlines()[0]
            if not self._page:
                raise


class Server(ThreadingHTTPServer):
    """Serves one report to browsers of this machine."""

    daemon_threads = True

    def __init__(self, report: LiveReport, port: int) -> None:
        self.report = report
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            told = error.strerror if isinstance(error, OSError) else "no port has this number"
            raise RunError(
                f"port {port} of {HOST} cannot be used: {told}; name another --port, or 0 for a free one"
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves in the middle of an answer is no fault; others are told as they are."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]

    @property
    def address(self) -> str:
        """Where browsers find it."""
        return f"http://{HOST}:{self.server_port}/"

    @property
    def names(self) -> frozenset[str]:
        """The hosts that a request may be meant for: a foreign name that leads here is a page that spies."""
        return frozenset(f"{name}:{self.server_port}" for name in (HOST, "localhost"))


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "orchestrator", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        status, kind, body = self._found()
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _found(self) -> tuple[int, str, bytes]:
        if self.headers.get("Host", "") not in self.server.names:
            return 421, "text/plain", f"this server answers {self.server.address} alone\n".encode()
        path = self.path.partition("?")[0]
        try:
            if path == "/":
                return 200, "text/html", self.server.report.page()
            if path == "/version":
                return 200, "application/json", self.server.report.state()
        except OrchestratorError as error:
            return 503, "text/plain", f"{error}\n".encode()
        return 404, "text/plain", b"there is / and /version\n"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the parent's
        """Say nothing: the terminal is the user's."""
