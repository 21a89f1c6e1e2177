"""When tables are written."""

import subprocess
import sys

SCRIPT = """
import sys
from pathlib import Path
from orchestrator import table_writer
from orchestrator.layout import Layout

seen = []
now = iter([0.0, 10.0, 10.5])
table_writer.time.monotonic = lambda: (seen.append("pandas" in sys.modules), next(now))[1]
table_writer.write_tables = lambda *_: None
writer = table_writer.TableWriter(Layout(Path(sys.argv[1])), "s")
writer.write(None, {})
print(seen, writer._due)
"""


def test_what_is_loaded_once_does_not_count_as_time_of_writing() -> None:
    """Half a second of writing is followed by twenty times that, however long the libraries took to load."""
    told = subprocess.run([sys.executable, "-c", SCRIPT, "results"], capture_output=True, text=True, check=True)
    assert told.stdout.split("]") == ["[False, True, True", " 20.5\n"]
