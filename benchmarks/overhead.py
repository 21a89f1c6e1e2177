"""What the commands cost beside the work: help, a plan of 10,000 cells, a sweep of which all is cached.

    uv run python benchmarks/overhead.py             (about a minute)

Wall seconds of whole processes, median of five after one that is not counted.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """\
study: wide
base:
  data: {name: digits}
  model: {name: resnet8}
  compress: {method: stq}
axes:
  compress.pfr: {range: [0.01, 0.5, 0.01]}
  compress.threshold: {range: [0.05, 2, 0.05]}
seeds: 5
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "wide.yaml").write_text(STUDY)
        measure("orchestrator --help", folder, "--help")
        measure("plan of 10,000 cells", folder, "plan", "wide.yaml")
        run(folder, "sweep", "smoke.yaml")
        measure("sweep, all cached", folder, "sweep", "smoke.yaml")


def measure(name: str, folder: str, *words: str) -> None:
    seconds = [run(folder, *words) for _ in range(6)][1:]
    print(f"{name:24} {statistics.median(seconds):6.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})")


def run(folder: str, *words: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
