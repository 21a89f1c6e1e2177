"""Data sets that a worker has loaded, kept between stages."""

from pathlib import Path

from trainables.config import DataConfig
from trainables.data.load import Dataset, load


class Datasets:
    """Loads a data set once per config and seed; keeps the last few, which are never changed in place."""

    def __init__(self, root: Path, keep: int = 4) -> None:
        self._root = root
        self._keep = keep
        self._loaded: dict[tuple[DataConfig, int], Dataset] = {}

    def of(self, config: DataConfig, seed: int) -> Dataset:
        """The images of `config`, split by `seed`.

        Raises:
            DataError: the images are absent or corrupted.

        """
        key = (config, seed)
        if key not in self._loaded:
            while len(self._loaded) >= self._keep:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = load(config, seed, self._root)
        return self._loaded[key]
