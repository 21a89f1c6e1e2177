"""When the tables of a study are written, and from what."""

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

from orchestrator.compaction import write_tables
from orchestrator.layout import Layout
from orchestrator.ledger import StageRecord, replay
from orchestrator.locks import study_lock
from orchestrator.observations import here
from orchestrator.plan import Plan

TABLES_EVERY_S = 3.0
LOCK_EVERY_S = 0.1

Records = Mapping[str, StageRecord]


class Tables(Protocol):
    """What keeps the tables of a study."""

    def refresh(self, plan: Plan, records: Records) -> None:
        """Write them, should it be time."""

    def write(self, plan: Plan, records: Records) -> None:
        """Write them now."""


class TableWriter:
    """Writes the tables at most every few seconds, and never for more than a small share of the time."""

    def __init__(self, layout: Layout, study: str) -> None:
        self._folder = layout.study(study)
        self._due = time.monotonic() + TABLES_EVERY_S

    def refresh(self, plan: Plan, records: Records) -> None:
        """Write them, should it be time."""
        if time.monotonic() >= self._due:
            self.write(plan, records)

    def write(self, plan: Plan, records: Records) -> None:
        """Write them now."""
        _load_libraries()
        started = time.monotonic()
        write_tables(self._folder, plan, records)
        now = time.monotonic()
        self._due = now + max(TABLES_EVERY_S, 20 * (now - started))


def _load_libraries() -> None:
    """Load what the first array loads, which takes longer than many small tables and happens once."""
    import_module("pandas")
    here()


class JointTables:
    """The tables of a study that runs in parts: at the end of each part, of all that any of them has finished.

    Whoever writes last has read what all others had committed before: they write one after the other.
    """

    def __init__(self, layout: Layout, whole: Plan) -> None:
        self._layout = layout
        self._whole = whole

    def refresh(self, plan: Plan, records: Records) -> None:
        """Nothing: another part may have written what is not known here."""

    def write(self, plan: Plan, records: Records) -> None:
        """Write the tables of the whole study."""
        study = self._whole.spec.study
        while True:
            with study_lock(self._layout.lock(f"{study}@tables"), self._whole.digest) as other:
                if other is None:
                    found = replay(self._layout.ledger).records
                    write_tables(self._layout.study(study), self._whole, {**records, **found})
                    return
            time.sleep(LOCK_EVERY_S)
