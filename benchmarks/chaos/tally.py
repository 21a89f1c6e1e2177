"""What a fault did, counted over all its repetitions, and the table of all of them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LOSSES = ("lost", "redone", "differing", "partial", "tracebacks", "wrong")


@dataclass
class Tally:
    """Counts of one fault. Where all went well everything from `lost` on is 0.

    Attributes:
        fault: what was done.
        how: by which means.
        repetitions: how often.
        struck: how often it was seen to strike a process or a call that was under way.
        in_stage: of those, while a stage was under way.
        in_write: of those, in the middle of writing a file.
        lost: finished stages that were not there later.
        redone: finished stages that were begun again.
        differing: rows whose deterministic columns are not those of a run that nobody touched.
        partial: files that a reader saw in part, saw vanish, or saw with other content.
        tracebacks: runs that showed one.
        wrong: exit codes and messages other than the documented ones.
        details: each loss in words.

    """

    fault: str
    how: str = ""
    repetitions: int = 0
    struck: int = 0
    in_stage: int = 0
    in_write: int = 0
    reads: int = 0
    lost: int = 0
    redone: int = 0
    differing: int = 0
    partial: int = 0
    tracebacks: int = 0
    wrong: int = 0
    seconds: float = 0.0
    skipped: str = ""
    details: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def lose(self, kind: str, detail: str, count: int = 1) -> None:
        """Count a loss of one of the kinds in `LOSSES`."""
        if kind not in LOSSES:
            msg = f"{kind} is no kind of loss"
            raise ValueError(msg)
        setattr(self, kind, getattr(self, kind) + count)
        self.details.append(f"{kind}: {detail}")

    def add(self, other: "Tally") -> None:
        """Take in the counts of some repetitions."""
        for name in ("repetitions", "struck", "in_stage", "in_write", "reads", *LOSSES):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.details += other.details

    @property
    def losses(self) -> int:
        """All of them."""
        return sum(getattr(self, kind) for kind in LOSSES)

    def done(self) -> "Tally":
        """Stop the clock."""
        self.seconds = time.monotonic() - self._started
        return self


_HEAD: Mapping[str, str] = {
    "fault": "fault", "how": "done by", "repetitions": "times", "struck": "seen to strike", "redone": "stages redone",
    "differing": "rows that differ", "partial": "partial files", "tracebacks": "tracebacks", "losses": "losses",
    "seconds": "seconds",
}  # fmt: skip


def markdown(tallies: Iterable[Tally]) -> str:
    """The table, one row a fault."""
    rows: list[Sequence[str]] = [tuple(_HEAD.values()), tuple("---" for _ in _HEAD)]
    rows += [_row(tally) for tally in tallies]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(tally: Tally) -> Sequence[str]:
    if tally.skipped:
        return (tally.fault, f"not done here: {tally.skipped}", *("" for _ in range(len(_HEAD) - 2)))
    values = {name: getattr(tally, name) for name in _HEAD} | {"seconds": round(tally.seconds)}
    if tally.in_stage or tally.in_write:
        values["struck"] = f"{tally.struck} ({tally.in_stage} in a stage, {tally.in_write} in a write)"
    return [str(value) for value in values.values()]
