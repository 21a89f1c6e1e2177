"""Leave to import a user's own model: what a study that names one is told, and what stands in its keys."""

from pathlib import Path

from orchestrator.errors import PlanError
from trainables.errors import CodeError
from trainables.sources import importable, sources_sha256


class Sources:
    """Answers the SHA-256 of the sources of `package.module:function`, found from `folder` or installed.

    Nothing is imported.
    """

    def __init__(self, study: str, folder: Path) -> None:
        self._study = study
        self._folder = folder

    def __call__(self, name: str) -> str:
        """64 hexadecimal digits.

        Raises:
            PlanError: there are no such sources.

        """
        try:
            with importable(self._folder):
                return sources_sha256(name)
        except CodeError as error:
            raise PlanError(f"{self._study}: {error}; the working folder is {self._folder}") from error
