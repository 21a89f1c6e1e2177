"""What a config says of a folder of images, and what only a look at the folder tells. Needs no tensor library."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from trainables.config import DataConfig, TrialConfig
from trainables.data.folder import NO_LABEL, TEST_SHARE, FolderFacts, advice, facts
from trainables.data_config import FOLDER_CHANNELS
from trainables.errors import DataError

CACHE = Path(".cache", "imagefolder")
"""What is kept of folders, below the data root."""


class Folders:
    """Identifies the images of trials; each folder is looked at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[object, ...], FolderFacts] = {}

    def identified(self, config: TrialConfig) -> TrialConfig:
        """The trial with its images identified, and checked against them; of a data set that is known, as it stands.

        Raises:
            DataError: the images cannot be used as they lie, or not for this trial.

        """
        data = config.data
        if data.identified:
            return config
        looked_at = (data.folder, data.labels, data.classes, data.test_share)
        if looked_at not in self._known:
            self._known[looked_at] = facts_of(data, self._root)
        known = self._known[looked_at]
        refuse_untrainable(known, data)
        try:
            return TrialConfig.model_validate({**dict(config), "data": described(data, known)})
        except ValidationError as error:
            told = (str(item.get("ctx", {}).get("error", item["msg"])) for item in error.errors(include_url=False))
            raise DataError("; ".join(told)) from error


def place(data: DataConfig, root: Path) -> Path:
    """Where the images of a config lie."""
    return root / Path(data.folder or "")


def facts_of(data: DataConfig, root: Path) -> FolderFacts:
    """The facts of a config's folder; the sums of its files are kept under the data root, where that can be written to.

    Raises:
        DataError: the images cannot be used as they lie, or are others than those that were planned.

    """
    folder = place(data, root)
    name = hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
    labels = Path(data.labels) if data.labels else None
    given = data.classes if labels else ()
    found = facts(folder, labels, given, data.test_share, notes=root / CACHE / f"sums-{name}.json")
    if data.fingerprint not in (None, found.fingerprint):
        msg = (
            f"the images or labels of {folder} are no longer those that were planned (SHA-256 "
            f"{found.fingerprint[:12]}..., planned {data.fingerprint[:12]}...): put them back, or start anew"
        )
        raise DataError(msg)
    return found


def described(data: DataConfig, found: FolderFacts) -> DataConfig:
    """The config with the classes, counts and fingerprint of its folder."""
    return data.model_copy(
        update={
            "classes": found.classes,
            "channels": data.channels or FOLDER_CHANNELS,
            "test_share": None if found.test_folder else data.test_share or TEST_SHARE,
            "fingerprint": found.fingerprint,
            "train_images": sum(found.counts(for_test=False)),
            "test_images": sum(found.counts(for_test=True)),
        }
    )


def refuse_untrainable(found: FolderFacts, data: DataConfig) -> None:
    """Every image must be there once and have a label, and every class must have images to train on.

    Copies would fall on different sides of the splits for testing and validation, which would then be too easy. Files
    are copies where their bytes are equal; one that was saved anew is not noticed.

    Raises:
        DataError: it is not so.

    """
    faults: list[str] = []
    if found.unlabelled:
        first = next(image.path for image, label in zip(found.images, found.labels, strict=True) if label == NO_LABEL)
        faults.append(
            f"{found.unlabelled} of {len(found.images)} images have no label in {data.labels} ({first} and so on); "
            "training needs all of them: label them, or move them elsewhere"
        )
    faults += _copies(found, data)
    if len(found.classes) < 2:
        faults.append(f"one class only ({', '.join(found.classes) or 'none'}); a classifier needs two")
    training = found.counts(for_test=False)
    faults += [f"class {name}: no image to train on" for name, n in zip(found.classes, training, strict=True) if not n]
    if not sum(found.counts(for_test=True)):
        faults.append("no image is for testing; raise data.test_share, or make folders train and test")
    if faults:
        raise DataError(advice(found.folder, faults))


def _copies(found: FolderFacts, data: DataConfig) -> list[str]:
    first: dict[str, str] = {}
    pairs = [(first.setdefault(image.sha256, image.path), image.path) for image in found.images]
    advice = f"remove one, and its row in {data.labels}" if data.labels else "remove one"
    return [f"{one} and {two}: the same image, which training takes once; {advice}" for one, two in pairs if one != two]
