"""Data sets of a worker whose data root may lie elsewhere."""

from orchestrator.data_root import bring, local_root
from orchestrator.storage.places import AnyPath
from trainables.config import DataConfig
from trainables.data.load import Dataset
from trainables.stages.datasets import Datasets


class NodeDatasets(Datasets):
    """Loads from this machine's disks what was brought there, by whichever of its workers needed it first."""

    def __init__(self, root: AnyPath) -> None:
        super().__init__(local_root(root))
        self._given = root
        self._here: set[tuple[str, str | None]] = set()

    def of(self, config: DataConfig, seed: int) -> Dataset:
        """The images of `config`, split by `seed`; errors as of `bring` and `Datasets`."""
        name = (config.name, config.folder)
        if name not in self._here:
            bring(self._given, config)
            self._here.add(name)
        return super().of(config, seed)
