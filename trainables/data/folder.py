"""A folder of a person's own images: which there are, of which classes, which are for testing, and their fingerprint.

There are two layouts. Either each class is a folder of images, `folder/<class>/...`; the classes are sorted by name.
Or the images lie anywhere in the folder and a labels file says what they are; those that it leaves out have no label
yet. In both, where the folder holds exactly the two folders `train` and `test`, these say which images are for testing
(and the class folders lie in both). Nothing here needs a tensor library.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainables.data.labels import read_labels
from trainables.data.listing import ImageFile, hashed, list_images, subfolders
from trainables.data.pictures import told_faults
from trainables.errors import DataError

READING = "imagefolder 1"
"""Raised when the same files would be read as other pixels or other labels; it is part of every fingerprint."""

TEST_SHARE = 0.2
NO_LABEL = -1
SIDES = ["test", "train"]


@dataclass(frozen=True)
class FolderFacts:
    """What a folder holds. `labels` and `for_test` go with `images`, which are sorted by path.

    A label is the number of its class, or `NO_LABEL`. `test_folder` says that the folder itself tells which images are
    for testing; if not they are drawn, by a rule that knows no seed.
    """

    folder: Path
    classes: tuple[str, ...]
    images: tuple[ImageFile, ...]
    labels: tuple[int, ...]
    for_test: tuple[bool, ...]
    test_folder: bool

    @cached_property
    def images_fingerprint(self) -> str:
        """SHA-256 of the sorted paths, sizes and sums of all images, whatever their labels are."""
        digest = hashlib.sha256(f"{READING}\n".encode(errors="surrogateescape"))
        for image in self.images:
            digest.update(f"{image.path}\0{image.size}\0{image.sha256}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and the name of each one's class; it does not depend on where the folder lies."""
        digest = hashlib.sha256(f"{self.images_fingerprint}\n".encode(errors="surrogateescape"))
        for image, label in zip(self.images, self.labels, strict=True):
            if label != NO_LABEL:
                digest.update(f"{image.path}\0{self.classes[label]}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def _tally(self) -> Counter[tuple[int, bool]]:
        return Counter(zip(self.labels, self.for_test, strict=True))

    @property
    def unlabelled(self) -> int:
        """How many images have no label yet."""
        return self._tally[NO_LABEL, False] + self._tally[NO_LABEL, True]

    def counts(self, *, for_test: bool) -> tuple[int, ...]:
        """How many labelled images of each class are for testing, or are not."""
        return tuple(self._tally[label, for_test] for label in range(len(self.classes)))


def fingerprint(folder: Path, labels: Path | None = None, *, notes: Path | None = None) -> str:
    """SHA-256 of all images of a folder and their labels; equal on every machine, wherever the folder lies.

    Args:
        folder: of the images.
        labels: the labels file, absolute or in `folder`; None: the images lie in class folders.
        notes: a file that keeps the sums of files between calls (`trainables.data.listing.hashed`).

    Raises:
        DataError: the images cannot be used as they lie; every fault is told at once.

    """
    return facts(folder, labels, notes=notes).fingerprint


def facts(
    folder: Path,
    labels: Path | None = None,
    classes: Sequence[str] = (),
    test_share: float | None = None,
    *,
    notes: Path | None = None,
) -> FolderFacts:
    """What there is to know of a folder of images before any of them is decoded.

    Args:
        folder: of the images.
        labels: the labels file, absolute or in `folder`; None: the images lie in class folders.
        classes: that a labels file may name, in the order of their numbers; empty: those that it names, sorted.
        test_share: of the images, where no folders `train` and `test` are; None: 0.2.
        notes: a file that keeps the sums of files between calls (`trainables.data.listing.hashed`).

    Raises:
        DataError: the images cannot be used as they lie; every fault is told at once.

    """
    try:
        listed = list_images(folder)
        sides = _has_sides(folder, test_share)
        names = _names(folder, listed, labels, classes, sides=sides)
        images = hashed(folder, listed, notes)
        _refuse_same_image(images, names, sides=sides)
    except DataError as error:
        raise DataError(advice(folder, str(error).splitlines())) from error
    found = tuple(classes) or tuple(sorted({name for name in names.values() if name is not None}))
    numbers = {name: number for number, name in enumerate(found)}
    of = [NO_LABEL if (name := names[image.path]) is None else numbers[name] for image in images]
    share = TEST_SHARE if test_share is None else test_share
    if sides:
        for_test = [image.path.startswith("test/") for image in images]
    else:
        for_test = [_falls_below(image, share) for image in images] if labels else _by_class(images, of, share)
    return FolderFacts(folder, found, tuple(images), tuple(of), tuple(for_test), sides)


def advice(folder: Path, faults: Sequence[str]) -> str:
    """The message for a folder with faults: each of them, and what the user can do."""
    lines = "\n".join(f"  {fault}" for fault in told_faults(faults))
    return (
        f"data set imagefolder is not usable under {folder}:\n{lines}\n"
        "mend the folder, or name another: data.folder is looked for in --data-root, or is absolute"
    )


def _has_sides(folder: Path, test_share: float | None) -> bool:
    sides = subfolders(folder) == SIDES
    if sides and test_share is not None:
        raise DataError(f"{folder}: its folders train and test say what is for testing; remove data.test_share")
    return sides


def _names(
    folder: Path, listed: Mapping[str, object], labels: Path | None, classes: Sequence[str], *, sides: bool
) -> dict[str, str | None]:
    """The class of each image; None where it has none yet."""
    if labels is None:
        return dict(_folder_labels(folder, listed, sides=sides))
    return _listed_labels(folder, labels, listed, classes, sides=sides)


def _listed_labels(
    folder: Path, labels: Path, listed: Mapping[str, object], classes: Sequence[str], *, sides: bool
) -> dict[str, str | None]:
    found = read_labels(folder / labels, listed.keys(), classes)
    faults = [*found.faults, *([] if listed else [f"{folder}: no image in this folder"])]
    faults += _beside(folder, listed, 1 if sides else 0)
    if faults:
        raise DataError("\n".join(faults))
    return {path: found.rows[path].label if path in found.rows else None for path in listed}


def _folder_labels(folder: Path, listed: Mapping[str, object], *, sides: bool) -> dict[str, str]:
    depth = 2 if sides else 1
    tops = [f"{side}/" for side in SIDES] if sides else [""]
    every = sorted({name for top in tops for name in subfolders(folder / top)})
    if not every:
        raise DataError(f"{folder}: no class folders; a folder of images alone needs data.labels, a CSV of file,label")
    faults = _beside(folder, listed, depth)
    held = {"/".join(path.split("/", depth)[:depth]) for path in listed}
    places = [top + name for top in tops for name in every]
    faults += [f"{folder / place}: an empty class, no image is in it" for place in places if place not in held]
    if len(every) == 1:
        faults.append(f"{folder}: one class only ({every[0]}); a classifier needs two")
    if faults:
        raise DataError("\n".join(faults))
    return {path: path.split("/")[depth - 1] for path in listed}


def _beside(folder: Path, listed: Iterable[str], depth: int) -> list[str]:
    """A fault where images lie less than `depth` folders deep."""
    found = [path for path in listed if path.count("/") < depth]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"{folder / found[0]}{more}: lies beside the folders of images; move it into one"] if found else []


def _refuse_same_image(images: Iterable[ImageFile], names: Mapping[str, str | None], *, sides: bool) -> None:
    """One image cannot be of two classes, nor be trained on and tested with.

    Other copies are refused where they would be trained on, by `trainables.data.identify.refuse_untrainable`: while a
    person labels the images they do no harm.
    """
    first: dict[str, str] = {}
    faults: list[str] = []
    for image in images:
        other = first.setdefault(image.sha256, image.path)
        one, two = names[other], names[image.path]
        if one is not None and two is not None and one != two:
            faults.append(f"{other} and {image.path}: the same image in two classes, {one} and {two}; remove one")
        elif sides and other.split("/")[0] != image.path.split("/")[0]:
            faults.append(f"{other} and {image.path}: the same image for testing and for training; remove one")
    if faults:
        raise DataError("\n".join(faults))


def _by_class(images: Sequence[ImageFile], labels: Sequence[int], share: float) -> list[bool]:
    """Of each class the images with the smallest sums: `share` of them, at least one, and never all.

    The sums are as good as drawn lots, and no seed or library changes them.
    """
    of: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(images)), key=lambda index: (images[index].sha256, images[index].path)):
        of[labels[index]].append(index)
    drawn = {index for indices in of.values() for index in indices[: _quota(len(indices), share)]}
    return [index in drawn for index in range(len(images))]


def _quota(count: int, share: float) -> int:
    return min(count - 1, max(1, round(count * share)))


def _falls_below(image: ImageFile, share: float) -> bool:
    """Whether an image is for testing by its own sum alone, so that it stays so while labels arrive."""
    return int(image.sha256[:16], 16) < share * 2**64
