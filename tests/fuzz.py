"""Fuzz for some minutes whatever reads files of others: `uv run python tests/fuzz.py --minutes 10`.

Each target runs in a process of its own, turn by turn: one that dies, or hangs, is a fault too. What was found is
repeated by `--target NAME --seed N`. The exit code is 1 where anything was found.
"""

import argparse
import faulthandler
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz_targets import NAMES, targets

TURN_S = 30.0
HANGS_S = 300
"""The slowest inputs of any target take seconds together."""

AT_ONCE = 50
"""Inputs of one seed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz whatever reads files of others.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument("--target", choices=NAMES, help="this one alone")
    parser.add_argument("--seed", type=int, help="the inputs of one seed")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on with the next seeds for so long")
    options = parser.parse_args()
    if options.seed is not None:
        return _turn(options.target or NAMES[0], options.seed, options.seconds)
    return _turns([options.target] if options.target else list(NAMES), options.minutes)


def _turn(name: str, seed: int, seconds: float) -> int:
    """One target, in this process; says which seed is at work, so that whoever finds it dead knows."""
    with tempfile.TemporaryDirectory() as folder:
        target = targets(Path(folder), only=name)[name]
        ends = time.monotonic() + seconds
        while True:
            sys.stdout.write(f"{seed}\n")
            sys.stdout.flush()
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
            target.run(AT_ONCE, seed)
            if time.monotonic() >= ends:
                return 0
            seed += 1


def _turns(names: list[str], minutes: float) -> int:
    """All targets in turn; what was found is told at once."""
    ends = time.monotonic() + 60 * minutes
    done, found = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    while time.monotonic() < ends:
        for name in names:
            words = ("--target", name, "--seed", str(secrets.randbelow(2**31)), "--seconds", str(TURN_S))
            child = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True, check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            seeds = [line for line in child.stdout.splitlines() if line.isdecimal()]
            done[name] += AT_ONCE * len(seeds)
            if child.returncode != 0:
                found[name] += 1
                last = seeds[-1] if seeds else words[3]
                sys.stdout.write(f"FOUND by --target '{name}' --seed {last}\n{child.stderr[-8000:]}\n")
            if time.monotonic() >= ends:
                break
    for name in names:
        sys.stdout.write(f"{name:12} {done[name]:9,} inputs  {found[name]} faults\n")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
