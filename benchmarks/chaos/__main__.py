"""Real faults done to real sweeps, and what was lost: a table.

uv run python -m benchmarks.chaos                        (all faults; 80 minutes on 2 cores)
uv run python -m benchmarks.chaos --only serial-random --scale 0.1
"""

import argparse
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos import clock_faults, object_faults, ray_faults, serial_faults, stage_faults, store_faults
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.tally import Tally, markdown
from orchestrator.arguments import cores

FAULTS: Mapping[str, tuple[Callable[[Bench, int], Tally], int]] = {
    **serial_faults.FAULTS,
    **store_faults.FAULTS,
    **object_faults.FAULTS,
    **clock_faults.FAULTS,
    **ray_faults.FAULTS,
    **stage_faults.FAULTS,
}
"""Each with how often it is done."""

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
SHOWN, SHOWN_CHARACTERS = 10, 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", default=[], choices=tuple(FAULTS), help="this fault; may be repeated"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the repetitions (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments that are drawn")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the table into this document, docs/reliability.md"
    )
    options = parser.parse_args()
    tallies: list[Tally] = []
    for name in options.only or FAULTS:
        fault, times = FAULTS[name]
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            tallies.append(fault(Bench(Path(folder), options.seed), max(1, round(times * options.scale))))
        print(markdown(tallies[-1:]).splitlines()[-1], flush=True)
        if options.write:
            write_table(options.write, tallies, options.scale)
        for detail in tallies[-1].details[:SHOWN]:
            print(textwrap.indent(detail[-SHOWN_CHARACTERS:], "    "), flush=True)
    print(markdown(tallies))
    return int(any(tally.losses for tally in tallies))


def write_table(document: Path, tallies: Sequence[Tally], scale: float) -> None:
    """Replace the table of a document, with what it was made by and on."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    share = "" if scale == 1 else f" --scale {scale:g}"
    load = "/".join(f"{value:.0f}" for value in os.getloadavg())
    minutes = sum(tally.seconds for tally in tallies) / 60
    when = (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores()} cores, {minutes:.0f} minutes, load of the machine at the end {load}"
    )
    made = f"`uv run python -m benchmarks.chaos{share}`, {when}:"
    document.write_text(f"{before}{BEGIN}\n{made}\n\n{markdown(tallies)}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
