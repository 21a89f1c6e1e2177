"""Failures that are one and the same, however often they come."""

from collections import Counter

from orchestrator.ledger import StageRecord
from orchestrator.words import brief, signature


class SameErrors:
    """Counts failed stages by the signature of their error; `most` of one are too many, None never are."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._counts: Counter[tuple[str, str]] = Counter()

    def seen(self, record: StageRecord) -> str | None:
        """Take a failed stage into account; why the sweep is to end, if it is."""
        if self._most is None:
            return None
        same = str(record.failure), signature(record.error or "")
        self._counts[same] += 1
        if self._counts[same] < self._most:
            return None
        text = brief(record.error or "no reason was kept")
        return f"{self._counts[same]} stages failed alike ({record.failure}): {text}"
