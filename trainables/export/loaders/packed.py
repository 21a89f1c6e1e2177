"""Classify images with model.packed: python predict.py IMAGE... (needs sweep-orchestrator, without its extras)."""

import sys
from pathlib import Path

from trainables.data.pictures import Wanted, read_pictures
from trainables.errors import TrialError
from trainables.runtimes.deployed import classify, open_model

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """One line an image: path, class, name, probability."""
    try:
        model = open_model(FOLDER)
        pictures = read_pictures([Path(path) for path in sys.argv[1:]], Wanted(model.channels, model.image_size))
    except TrialError as error:
        raise SystemExit(str(error)) from error
    for one in classify(model, pictures):
        sys.stdout.write(f"{one.path},{one.label},{one.name},{one.probability:.4f}\n")


if __name__ == "__main__":
    main()
