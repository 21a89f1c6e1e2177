"""Classify images with model.packed: python predict.py IMAGE... (needs sweep-orchestrator, without its extras)."""

import argparse
import sys
from pathlib import Path

from trainables.data.pictures import Wanted, read_pictures
from trainables.errors import TrialError
from trainables.runtimes.deployed import classify, open_model
from trainables.sources import importable

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """One line an image: path, class, name, probability."""
    parser = argparse.ArgumentParser(description="Classify images with model.packed.")
    parser.add_argument("images", type=Path, nargs="+", help="image files, folders of them, .npy of uint8 (N,H,W[,C])")
    parser.add_argument("--resize", action="store_true", help="scale images of other sizes; the aspect is not kept")
    parser.add_argument("--allow-code", action="store_true", help="let a network of your own code be imported and run")
    given = parser.parse_args()
    try:
        with importable(Path.cwd() if given.allow_code else None):
            model = open_model(FOLDER, allow_code=given.allow_code)
            pictures = read_pictures(given.images, Wanted(model.channels, model.image_size, given.resize))
            found = classify(model, pictures)
    except TrialError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
    for one in found:
        sys.stdout.write(f"{one.path},{one.label},{one.name},{one.probability:.4f}\n")


if __name__ == "__main__":
    main()
