"""Classify images with model.onnx: python predict.py IMAGE... (needs numpy, pillow and onnxruntime)."""

import json
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent


def refuse(reason: str) -> NoReturn:
    """End with `reason` as the last line."""
    sys.stderr.write(f"{reason}\n")
    raise SystemExit(2)


def pixels(path: str, channels: int, size: int) -> np.ndarray:
    """An image file as numbers from 0 to 255, shape (channels, size, size)."""
    try:
        image = Image.open(path, formats=("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"))
        if image.size != (size, size):
            refuse(f"{path}: {image.size[0]} x {image.size[1]} pixels; the network takes {size} x {size}")
        if image.mode[0] in "IF":
            refuse(f"{path}: more than 8 bits a channel (mode {image.mode}); save it with 8 bits")
        coloured = image.convert({1: "L", 3: "RGB"}[channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        refuse(f"{path}: cannot be read as an image: {error}")
    return np.asarray(coloured, np.float32).reshape(size, size, channels).transpose(2, 0, 1)


def main() -> None:
    """One line an image: path, class, name, probability."""
    if len(sys.argv) < 2:
        refuse("usage: python predict.py IMAGE...")
    facts = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    wanted = facts["input"]
    mean, std = (np.array(wanted[name], np.float32)[:, None, None] for name in ("mean", "std"))
    images = [pixels(path, wanted["channels"], wanted["image_size"]) for path in sys.argv[1:]]
    session = onnxruntime.InferenceSession(FOLDER / facts["file"], providers=["CPUExecutionProvider"])
    for path, image in zip(sys.argv[1:], images, strict=True):
        logits = np.asarray(session.run(["logits"], {"images": ((image / 255 - mean) / std)[None]})[0])[0]
        shares = np.exp(logits - logits.max())
        best = int(logits.argmax())
        name = (facts["class_names"] or range(facts["classes"]))[best]
        sys.stdout.write(f"{path},{best},{name},{shares[best] / shares.sum():.4f}\n")


if __name__ == "__main__":
    main()
