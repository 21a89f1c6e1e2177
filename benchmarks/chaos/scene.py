"""A results root on which a study is swept, struck and swept again, and what must hold after each time."""

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.cold import ColdRun
from benchmarks.chaos.reader import Reader
from benchmarks.chaos.reference import Reference, finished
from benchmarks.chaos.studies import Study
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.warm import Orders, Run, Warm

LONGEST_S = 300.0
"""No run of these studies takes so long; one that does hangs."""


@dataclass
class Scene:
    """One root; every run on it is judged against the stages that were finished before it began.

    Where the sweeps of this study `alone` fill the root, one at a time, each stage is committed once. Where its plan is
    known beforehand too, the screen `counts` as cached what is finished.
    """

    folder: Path
    study: Study
    reference: Reference
    warm: Warm
    tally: Tally
    alone: bool = True
    counts: bool = True
    _before: dict[Run | ColdRun, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_study(self.folder, self.study)

    @property
    def root(self) -> Path:
        """The results root."""
        return self.folder / "results"

    def sweep(self, orders: Orders | None = None, *words: str) -> Run:
        """Begin a sweep in a forked process."""
        before = stages(self.root)
        run = self.warm.start(sweep_words(self.study, *words), self.folder, orders)
        self._before[run] = before
        return run

    def sweep_cold(
        self, *words: str, environment: Mapping[str, str] | None = None, within: Path | None = None
    ) -> ColdRun:
        """Begin a sweep as a user does; `within` is the control group it is put into."""
        before = stages(self.root)
        words = ("sweep", f"{self.study.name}.yaml", *words)
        run = ColdRun(words, self.folder, self.folder / f"output-{len(self._before)}", environment or {}, within)
        self._before[run] = before
        return run

    def struck(self, run: Run | ColdRun, *, in_stage: bool = False) -> None:
        """Judge a run that was killed, and count where it was hit."""
        self.tally.struck += 1
        under_way = in_stage or len(run.noted("began")) > len(run.noted("ended"))
        writing = any(path.stat().st_mtime >= run.began_at for path in half_written(self.root))
        self.tally.in_write += writing
        self.tally.in_stage += under_way and not writing
        self.judge(run)

    def judge(self, run: Run | ColdRun) -> None:
        """What holds of every run, however it ended."""
        output, before = run.output, self._before[run]
        if "Traceback" in output:
            self.tally.lose("tracebacks", output[-2000:])
        again = sorted(set(run.noted("began")) & set(before))
        if again:
            self.tally.lose("redone", f"{len(again)} finished stages were begun again: {again}", len(again))
        for cached in re.findall(r"(\d+) cached", output):
            if self.counts and int(cached) != len(before):
                self.tally.lose("wrong", f"{len(before)} stages were finished, the screen says: {output[:300]}")
        now = stages(self.root)
        gone = {key for key, sha256 in before.items() if now.get(key) != sha256}
        if gone:
            self.tally.lose("lost", f"finished stages are gone from the ledger: {sorted(gone)}", len(gone))

    def finish(self, *words: str, expect: int = 0) -> None:
        """Sweep to the end, untouched, and compare with the run that nobody ever touched."""
        run = self.sweep(None, *words)
        code = run.wait(LONGEST_S)
        if code != expect:
            run.kill()
            self.tally.lose("wrong", f"exit code {code}, not {expect}: {run.output[-2000:]}")
        self.judge(run)
        self.compare()

    def compare(self) -> None:
        """The tables against the reference's; a ledger must name each stage once."""
        for difference in self.reference.differing(self.root, self.study.name):
            self.tally.lose("differing", difference)
        if self.alone:
            for key in self.committed_twice():
                self.tally.lose("redone", f"stage {key} was committed more than once")

    def committed_twice(self) -> list[str]:
        """Stages that stand in the ledgers as complete more than once."""
        return [key for key, times in commits(self.root).items() if times > 1]

    def watched(self) -> Reader:
        """A reader of all that is visible, for a `with` statement; what it saw wrong is counted when it ends."""
        return Reader(self.root, self.study.name, self.reference, self.tally)

    def remove(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep_words(study: Study, *words: str) -> list[str]:
    """`sweep STUDY` in this process, results beside the study."""
    return ["sweep", f"{study.name}.yaml", "--runner", "serial", *study.words, *words]


def write_study(folder: Path, study: Study) -> None:
    """Put the study file where `sweep_words` names it, with what belongs beside it."""
    (folder / f"{study.name}.yaml").write_text(study.text)
    for path in study.files:
        shutil.copy(path, folder)


def reference(warm: Warm, folder: Path, study: Study) -> Reference:
    """Sweep a study that nobody touches.

    Raises:
        RuntimeError: it did not end well, so that nothing can be compared with it.

    """
    folder.mkdir(parents=True)
    write_study(folder, study)
    run = warm.start(sweep_words(study), folder)
    started = time.monotonic()
    if run.wait(LONGEST_S) != 0:
        run.kill()
        raise RuntimeError(f"{study.name} cannot be swept: {run.output}")
    return Reference.of(folder / "results", study.name, time.monotonic() - started)


def stages(root: Path) -> Mapping[str, str]:
    """The finished stages of a root and the SHA-256 of their outputs."""
    return {key: record.artifact_sha256 or "" for key, record in finished(root).items()}


def commits(root: Path) -> Mapping[str, int]:
    """How often each stage stands in the ledgers as complete."""
    found: dict[str, int] = {}
    for path in root.glob(".store/ledger/*.jsonl"):
        text = path.read_text(errors="replace")
        for key in re.findall(
            r'^[0-9a-f]{8} \{"stage":\{"key":"(\w+)".*"status":"complete".*\}\}$', text, re.MULTILINE
        ):
            found[key] = found.get(key, 0) + 1
    return found


def half_written(root: Path) -> list[Path]:
    """Files under names that no reader looks at: a killed process was writing them."""
    return [path for path in root.rglob(".*.*") if re.search(r"\.[0-9a-f]{16}$", path.name)]
