"""What stands in a study's keys of a user's own folders of images."""

from orchestrator.data_root import bring, local_root
from orchestrator.errors import PlanError
from orchestrator.storage.places import AnyPath
from trainables.config import TrialConfig
from trainables.data.identify import Folders
from trainables.errors import DataError


class ImagesOf:
    """Answers a trial's config with its images identified; folders are looked for under the data root."""

    def __init__(self, study: str, root: AnyPath) -> None:
        self._study = study
        self._folders = Folders(local_root(root))
        self._root = root

    def __call__(self, config: TrialConfig) -> TrialConfig:
        """The config with the classes, counts and fingerprint of its folder; of a known data set, as it stands.

        Raises:
            PlanError: the images are absent, or cannot be used for this trial.

        """
        try:
            if not config.data.identified:
                bring(self._root, config.data)
            return self._folders.identified(config)
        except DataError as error:
            raise PlanError(f"{self._study}: {error}") from error
