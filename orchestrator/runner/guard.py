"""Watches a worker from a process of its own: ends it where it cannot end itself, and tells how it died.

    python -I -S guard.py PID

The worker writes a line of JSON to its standard input when a stage begins: `note` (the file that tells of a death),
`memory` (bytes or null) and `timeout_s` (or null); `{"preempted": true}` when it was told to go; `{}` when the stage is
over. A worker that is stopped, or stuck in a library, listens to nobody else, and one whose raylet has died waits for
work for ever. Nothing but the standard library is loaded here, and nothing of ours.
"""

import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.2
GRACE_S = 5.0
"""What a worker is left beyond its limits to end the stage itself, which is kinder to the stages after it."""

STOPPED_S = 300.0
"""A process that stands still for so long will not go on by itself."""

COUNT_EVERY_S = 2.0

PAGE = os.sysconf("SC_PAGE_SIZE")


class Guard:
    """What is known of the worker `pid` and of the stage that it has begun."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.parent = parent(pid)
        self.order: dict[str, object] = {}
        self.preempted = False
        self.rss = 0
        self.kills = [oom_kills()] * 2
        self.counted_at = time.monotonic()
        self.began = self.over_since = self.stopped_since = 0.0

    def told(self, order: dict[str, object]) -> None:
        """The worker says what it does."""
        if order.get("preempted"):
            self.preempted = True
            return
        self.order = order
        self.began, self.over_since, self.stopped_since = time.monotonic(), 0.0, 0.0

    def look(self) -> None:
        """Note what the worker holds, and end it where it may not go on."""
        now = time.monotonic()
        self.stopped_since = (self.stopped_since or now) if state(self.pid) in "Tt" else 0.0
        if self.order:
            self.hold(now)
        if self.stopped_since and now - self.stopped_since > STOPPED_S:
            self.end("lost", f"its process stood still (stopped) for {STOPPED_S:g} s")
        elif self.parent and parent(self.pid) not in (self.parent, 0):
            self.end("lost", "the raylet that had started its process is gone")

    def hold(self, now: float) -> None:
        """The worker to the limits of its stage."""
        self.count()
        self.rss = resident(self.pid) or self.rss
        memory, timeout = self.order.get("memory"), self.order.get("timeout_s")
        over = isinstance(memory, int) and self.rss > memory
        self.over_since = (self.over_since or now) if over else 0.0
        if over and now - self.over_since > GRACE_S:
            self.end("oom", f"its process held {mib(self.rss)} of the {mib(memory)} that it was given")
        elif isinstance(timeout, int | float) and now - self.began > timeout + GRACE_S:
            self.end("timeout", f"it took longer than {timeout:g} s and could not be stopped otherwise")

    def count(self) -> None:
        """Remember how many the kernel had ended a while ago: a process that is ended takes a while to be gone."""
        if time.monotonic() - self.counted_at >= COUNT_EVERY_S:
            self.kills, self.counted_at = [self.kills[1], oom_kills()], time.monotonic()

    def end(self, failure: str, reason: str) -> None:
        """Say why, where a stage had begun, then kill the worker."""
        if self.order:
            self.write(failure, f"{reason}; the process was killed")
        self.order, self.stopped_since = {}, 0.0
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """The worker is gone: tell how, if it had begun a stage."""
        if not self.order:
            return
        held = f"it last held {mib(self.rss)}"
        if self.preempted:
            self.write("preempted", f"its process was told to end before the stage could; {held}")
        elif oom_kills() > self.kills[0]:
            self.write("oom", f"the kernel ended its process for want of memory; {held}")
        else:
            self.write("lost", f"its process was killed or crashed; {held}")

    def write(self, failure: str, reason: str) -> None:
        """Leave the note; whole or not at all."""
        note = Path(str(self.order["note"]))
        with contextlib.suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_name(f".{note.name}.{os.getpid()}")
            part.write_text(json.dumps({"failure": failure, "reason": reason, "at": time.time()}))
            part.replace(note)


def mib(count: object) -> str:
    """Bytes for a person."""
    return f"{int(str(count)) / 2**20:,.0f} MiB"


def resident(pid: int) -> int:
    """Bytes that a process holds in memory; 0 where that is not known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def state(pid: int) -> str:
    """The letter of a process's state; `?` where it is not known."""
    return stat(pid)[0]


def parent(pid: int) -> int:
    """The process that started it, or has taken it over; 0 where that is not known."""
    return int(stat(pid)[1])


def stat(pid: int) -> list[str]:
    """What the kernel says of a process from the letter of its state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["?", "0"]


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory, here and in the control group of this process."""
    total = 0
    for path in (Path("/proc/vmstat"), *groups()):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)", path.read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total


def groups() -> list[Path]:
    """Files that count the kills of this process's control groups, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:
            found.append(Path("/sys/fs/cgroup") / place.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(Path("/sys/fs/cgroup/memory") / place.lstrip("/") / "memory.oom_control")
    return found


def main(pid: int) -> None:
    """Until the worker is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # what is sent to all processes of a machine is for the worker
    guard, rest = Guard(pid), b""
    while True:
        if not select.select([0], [], [], LOOK_EVERY_S)[0]:
            guard.look()
            continue
        data = os.read(0, 65536)
        if not data:
            guard.bury()
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            guard.told(json.loads(line))


if __name__ == "__main__":
    main(int(sys.argv[1]))
