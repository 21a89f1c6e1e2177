"""Where things lie under a results root."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.artifacts import ArtifactStore
from orchestrator.checkpoints import CheckpointStore, checkpoints_beside
from orchestrator.storage.here import of_root
from orchestrator.storage.places import AnyPath


@dataclass(frozen=True, slots=True)
class Layout:
    """A results root, on this machine's disks or on another filesystem, and the names below it.

    A leading underscore or dot hides a name from readers of data sets.
    """

    root: AnyPath

    @property
    def ledger(self) -> AnyPath:
        """Folder of the ledgers, one file a run."""
        return self.root / ".store" / "ledger"

    @property
    def artifacts(self) -> ArtifactStore:
        """Stage outputs by key."""
        return ArtifactStore(self.root / ".store" / "artifacts")

    @property
    def checkpoints(self) -> CheckpointStore:
        """Where stages go on that were killed or stopped, by key; beside the artifacts, where a worker looks."""
        return checkpoints_beside(self.artifacts)

    @property
    def probes(self) -> AnyPath:
        """Answers of earlier precision probes: a store keeps to one answer, or its keys would drift."""
        return self.root / ".store" / "probes.json"

    def drain(self, run: str) -> AnyPath:
        """File that exists while a run is being drained."""
        return self.root / ".store" / "drains" / run

    def notes(self, run: str) -> Path:
        """Folder in which the guards of a run's workers tell how one died; they write to disks alone.

        Where the root is elsewhere it lies on each machine's own: of a worker on another machine than the driver's it
        is then only known that it was lost.
        """
        return of_root(self.root) / "notes" / run

    def lock(self, study: str) -> AnyPath:
        """File that a running sweep of the study holds locked."""
        return self.root / ".store" / "locks" / study

    def locks(self, study: str) -> list[str]:
        """Names of the locks that sweeps of the study have made, of the whole and of parts of it."""
        folder = self.root / ".store" / "locks"
        return sorted(path.name for path in (*folder.glob(study), *folder.glob(f"{study}@*of*")))

    def study(self, study: str) -> AnyPath:
        """Folder of a study's tables."""
        return self.root / study

    def studies(self) -> list[str]:
        """Studies that have a table here."""
        return sorted(path.parent.name for path in self.root.glob("*/trials.parquet"))
