"""The 1,797 handwritten 8x8 digits that scikit-learn carries (Alpaydin and Kaynak, UCI, 1998); no file, no download."""

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from trainables.data.splits import Split
from trainables.errors import DataError

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # values 0..16, then labels, one byte each
TEST_PER_CLASS = 36


def read(root: Path) -> tuple[Split, Split]:
    """(pool, test): 1,437 and 360 images, (N, 1, 8, 8), the values 0..16 spread over 0..255; `root` is not used.

    Raises:
        DataError: scikit-learn carries other images than those that the test split was made of.

    """
    table = _table()
    values, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    digest = hashlib.sha256(values.tobytes() + labels.tobytes()).hexdigest()
    if digest != SHA256:
        msg = (
            f"scikit-learn's digits are not the expected ones (SHA-256 {digest}, not {SHA256}); reinstall scikit-learn"
        )
        raise DataError(msg)
    images = torch.from_numpy(np.round(values * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = Split(images, torch.from_numpy(labels.astype(np.int64)))
    test = fixed_test(everything.labels)
    rest = torch.ones(len(everything), dtype=torch.bool)
    rest[test] = False
    return everything.subset(rest.nonzero().flatten()), everything.subset(test)


def _table() -> np.ndarray:
    """Rows of 64 values and a label, uint8 (1797, 65).

    scikit-learn's own file is read where it stands, as importing scikit-learn takes 2 to 6 s in each process.
    """
    package = find_spec("sklearn")
    folders = list(package.submodule_search_locations or []) if package else []
    for file in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if file.is_file():
            return np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), np.uint8, delimiter=",")
    from sklearn.datasets import load_digits  # the release keeps its file elsewhere

    flat, target = load_digits(return_X_y=True)
    return np.column_stack([np.asarray(flat, np.uint8), np.asarray(target, np.uint8)])


def fixed_test(labels: torch.Tensor) -> torch.Tensor:
    """The fixed test split "digits/test": of each class the 36 images with the smallest SHA-256 of "digits/test/i".

    It depends on no seed and on no library's generator. Sorted int64 (360,).
    """
    order = sorted(range(len(labels)), key=lambda index: hashlib.sha256(f"digits/test/{index}".encode()).digest())
    taken = {label: [i for i in order if labels[i] == label][:TEST_PER_CLASS] for label in range(10)}
    return torch.tensor(sorted(index for indices in taken.values() for index in indices))
