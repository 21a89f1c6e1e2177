"""Classify images with model.onnx: python predict.py IMAGE... (needs numpy, pillow and onnxruntime)."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent


def pixels(path: str, channels: int, size: int) -> np.ndarray:
    """An image file as numbers from 0 to 255, shape (channels, size, size)."""
    image = Image.open(path).convert({1: "L", 3: "RGB"}[channels])
    if image.size != (size, size):
        raise SystemExit(f"{path}: {image.size[0]} x {image.size[1]} pixels; the network takes {size} x {size}")
    return np.asarray(image, np.float32).reshape(size, size, channels).transpose(2, 0, 1)


def main() -> None:
    """One line an image: path, class, name, probability."""
    facts = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    wanted = facts["input"]
    mean, std = (np.array(wanted[name], np.float32)[:, None, None] for name in ("mean", "std"))
    session = onnxruntime.InferenceSession(FOLDER / facts["file"], providers=["CPUExecutionProvider"])
    for path in sys.argv[1:]:
        image = (pixels(path, wanted["channels"], wanted["image_size"]) / 255 - mean) / std
        logits = np.asarray(session.run(["logits"], {"images": image[None]})[0])[0]
        shares = np.exp(logits - logits.max())
        best = int(logits.argmax())
        name = (facts["class_names"] or range(facts["classes"]))[best]
        sys.stdout.write(f"{path},{best},{name},{shares[best] / shares.sum():.4f}\n")


if __name__ == "__main__":
    main()
