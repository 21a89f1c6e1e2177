"""A proposal as one HTML page that needs no network: thumbnails, a class for each, and a button that saves a CSV."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from PIL import Image, ImageOps

from trainables.data.pictures import FORMATS
from trainables.errors import DataError

LARGEST = 224
"""Pixels of a thumbnail's longer side."""

PLAIN_UP_TO = 64
"""Pixels a side up to which a thumbnail is a PNG of the image as it is, and is shown enlarged."""

_FAULTS = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

MARK = '<meta name="generator" content="orchestrator label">'
"""Tells a page of ours from a file that must not be written over."""

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 0; background: Canvas; color: CanvasText; }
header { padding: .6rem 1rem 0; }
h1 { font-size: 1.1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .2rem 0; }
nav { position: sticky; top: 0; z-index: 1; display: flex; gap: .5rem 1rem; align-items: center; padding: .5rem 1rem;
  min-height: 3rem; background: Canvas; border-bottom: 1px solid GrayText; }
output { overflow-wrap: anywhere; min-width: 0; }
button { font: inherit; padding: .3rem .9rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: .8rem;
  padding: 1rem; }
fieldset { min-width: 0; margin: 0; border: 1px solid GrayText; border-radius: .4rem; scroll-margin: 6rem 0 1rem; }
fieldset:focus-within { outline: 3px solid light-dark(#1a5fd0, #8ab4ff); }
fieldset:has(input:checked) { border-color: CanvasText; border-style: double; border-width: 3px; }
legend { overflow-wrap: anywhere; font-size: .85rem; }
img { display: block; width: 100%; height: 14rem; object-fit: contain;
  background: color-mix(in srgb, CanvasText 8%, Canvas); }
img.small { image-rendering: pixelated; }
.classes { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin-top: .4rem; }
label { overflow-wrap: anywhere; padding: .15rem 0; }
kbd { font-size: .75rem; border: 1px solid GrayText; border-radius: .2rem; padding: 0 .25rem; }
""".strip()

_SCRIPT = """
"use strict";
const cards = [...document.querySelectorAll("fieldset")];
const state = document.querySelector("output");
const save = document.querySelector("button");
const chosen = card => card.querySelector("input:checked");
const answered = [];
let saved = true;
function tell() {
  const done = cards.filter(chosen).length;
  const where = saved && done ? `, saved as ${save.dataset.name}` : "";
  state.textContent = `${done} of ${cards.length} labelled${where}`;
}
function changed(isSaved) { saved = isSaved; tell(); }
function enter(card) {
  if (!card) return save.focus();
  (chosen(card) || card.querySelector("input")).focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}
function cell(text) { return /[",\\r\\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; }
function byKey(card, key) {
  const inputs = [...card.querySelectorAll("input")].filter(one => one.dataset.key);
  const alike = inputs.filter(one => one.dataset.key.toLowerCase() === key.toLowerCase());
  return inputs.find(one => one.dataset.key === key) || (alike.length === 1 ? alike[0] : undefined);
}
function choose(card, input) {
  input.checked = true;
  answered.push(card);
  enter(cards.slice(cards.indexOf(card) + 1).find(one => !chosen(one)));
}
function takeBack(card) {
  chosen(card).checked = false;
  enter(card);
}
document.addEventListener("change", event => {
  answered.push(event.target.closest("fieldset"));
  changed(false);
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const here = event.target.closest("fieldset");
  const card = here || cards.find(one => !chosen(one));
  const input = card && byKey(card, event.key);
  const last = here && chosen(here) ? here : answered.findLast(chosen);
  if (input) {
    choose(card, input);
  } else if (event.key === "Backspace" && last) {
    takeBack(last);
  } else {
    return;
  }
  event.preventDefault();
  changed(false);
});
save.addEventListener("click", () => {
  const rows = cards.map(card => `${cell(card.dataset.file)},${cell(chosen(card) ? chosen(card).value : "")}\\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["file,label\\n", ...rows], { type: "text/csv" }));
  link.download = save.dataset.name;
  link.click();
  changed(true);
});
addEventListener("beforeunload", event => { if (!saved) event.preventDefault(); });
cards[0]?.querySelector("input").focus({ preventScroll: true });
tell();
""".strip()

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>The key of a class chooses it and moves on, after the last image to the button. Backspace takes the last choice back,
Tab passes an image over. What is left open can be answered later.</p>
<noscript><p>This page needs JavaScript; the CSV can be filled in by hand as well.</p></noscript>
</header>
<nav><button type="button" data-name="{name}">Save answers</button> <output aria-live="polite"></output></nav>
<main>
{cards}
</main>
<script>
{script}
</script>
</body>
</html>
"""


def page(title: str, answers_name: str, folder: Path, files: Sequence[str], classes: Sequence[str]) -> str:
    """The page; every image is in it.

    Args:
        title: shown at its top.
        answers_name: of the CSV file that its button saves.
        folder: of the images.
        files: to be labelled, relative to the folder.
        classes: the choices.

    Raises:
        DataError: images cannot be read; all of them are told at once.

    """
    cards: list[str] = []
    faults: list[str] = []
    for number, file in enumerate(files):
        try:
            cards.append(_card(number, file, *_thumbnail(folder / file), classes))
        except _FAULTS as error:
            faults.append(f"{folder / file}: cannot be read as an image: {error}")
    if faults:
        raise DataError("\n".join(faults))
    shown = {"title": escape(title), "name": escape(answers_name), "cards": "\n".join(cards)}
    return _PAGE.format(mark=MARK, style=_STYLE, script=_SCRIPT, **shown)


def _card(number: int, file: str, source: str, small: bool, classes: Sequence[str]) -> str:
    name = escape(file)
    kind = ' class="small"' if small else ""
    choices = "\n".join(_choices(number, classes))
    return (
        f'<fieldset data-file="{name}">\n<legend>{number + 1}. {name}</legend>\n'
        f'<img{kind} alt="{name}" src="{source}">\n<div class="classes">\n{choices}\n</div>\n</fieldset>'
    )


def _choices(number: int, classes: Sequence[str]) -> Iterator[str]:
    for name, key in zip_longest(classes, keys(classes)):
        shown = escape(name)
        typed = f' data-key="{key}"' if key else ""
        told = f"<kbd>{key}</kbd>" if key == name else f"<kbd>{key}</kbd> {shown}" if key else shown
        yield f'<label><input type="radio" name="image-{number}" value="{shown}"{typed}> {told}</label>'


def keys(classes: Sequence[str]) -> str:
    """The key that stands for each class: the class itself where all are one letter or digit, else 1 to 9 and 0."""
    if all(len(name) == 1 and name.isascii() and name.isalnum() for name in classes):
        return "".join(classes)
    return "1234567890"[: len(classes)]


def _thumbnail(path: Path) -> tuple[str, bool]:
    """The image as a data URI, upright and in its aspect, and whether it is a small one as it is."""
    with Image.open(path, formats=FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        shown = upright.convert("RGBA" if "transparency" in upright.info else "RGB").convert("RGB")
    small = max(shown.size) <= PLAIN_UP_TO
    if not small:
        shown.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    shown.save(file, "PNG" if small else "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", small
