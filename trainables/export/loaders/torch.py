"""Classify images with model.pt2: python predict.py IMAGE... (needs torch, numpy and pillow).

torch.export.load can run code that a file holds: load only a file whose SHA-256 is the one in README.md.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parent


def pixels(path: str, channels: int, size: int) -> np.ndarray:
    """An image file as numbers from 0 to 255, shape (channels, size, size)."""
    image = Image.open(path).convert({1: "L", 3: "RGB"}[channels])
    if image.size != (size, size):
        raise SystemExit(f"{path}: {image.size[0]} x {image.size[1]} pixels; the network takes {size} x {size}")
    return np.asarray(image, np.float32).reshape(size, size, channels).transpose(2, 0, 1)


@torch.no_grad()
def main() -> None:
    """One line an image: path, class, name, probability."""
    facts = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    wanted = facts["input"]
    mean, std = (np.array(wanted[name], np.float32)[:, None, None] for name in ("mean", "std"))
    network = torch.export.load(FOLDER / facts["file"]).module()
    for path in sys.argv[1:]:
        image = (pixels(path, wanted["channels"], wanted["image_size"]) / 255 - mean) / std
        shares = network(torch.from_numpy(image)[None]).softmax(1)[0]
        best = int(shares.argmax())
        name = (facts["class_names"] or range(facts["classes"]))[best]
        sys.stdout.write(f"{path},{best},{name},{shares[best]:.4f}\n")


if __name__ == "__main__":
    main()
