"""The exported folder: a model file, what it needs and does in `model.json` and `README.md`, and a small loader.

Imports no tensor library.
"""

import hashlib
import secrets
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from trainables.errors import BundleError
from trainables.export.card import card
from trainables.export.facts import MODEL_FILES, Check, Facts, Format

FACTS, CARD, LOADER = "model.json", "README.md", "predict.py"
WRITTEN = frozenset({FACTS, CARD, LOADER, *MODEL_FILES.values()})


def write_bundle(
    folder: Path, facts: Facts, model: bytes, check: Callable[[Path], tuple[Check, ...]], force: bool
) -> Facts:
    """Write an exported folder, after `check` has loaded it from where it was written first.

    `folder` appears whole or not at all; where it holds an earlier export, its files are replaced.

    Args:
        folder: where to.
        facts: of the model file, without `checks`.
        model: content of the model file.
        check: raises where the folder at a path does not predict what it should.
        force: whether files of another export, or of anything else, may be replaced; files of other names stay.

    Returns:
        `facts` with the checks.

    Raises:
        BundleError: the folder holds something else, or cannot be written.

    """
    if not force:
        refuse_other(folder, facts.identity)
    staged = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        staged.mkdir(parents=True)
        (staged / facts.file).write_bytes(model)
        (staged / FACTS).write_text(_json(facts), encoding="utf-8")
        checked = facts.model_copy(update={"checks": check(staged)})
        (staged / FACTS).write_text(_json(checked), encoding="utf-8")
        (staged / CARD).write_text(card(checked), encoding="utf-8")
        (staged / LOADER).write_text(_loader(facts.format), encoding="utf-8")
        _move(staged, folder)
    except OSError as error:
        msg = f"{folder}: cannot be written: {error.strerror}"
        raise BundleError(msg) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return checked


def refuse_other(folder: Path, identity: tuple[str, str, str]) -> None:
    """Refuse a folder that holds anything but an earlier export of the same network in the same format.

    `identity` as in `Facts`.

    Raises:
        BundleError: it does.

    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    try:
        there = read_facts(folder)
    except BundleError:
        there = None
    if there is None or there.identity != identity:
        what = f"an export of trial {there.trial_id} as {there.format}" if there else "something that is no export"
        msg = f"{folder} holds {what}; choose another --out, or replace its files with --force"
        raise BundleError(msg)


def _move(staged: Path, folder: Path) -> None:
    if not folder.exists():
        staged.rename(folder)
        return
    # Without model.json nobody takes the half-replaced folder for an export.
    for name in sorted(WRITTEN, key=lambda name: name != FACTS):
        (folder / name).unlink(missing_ok=True)
    for file in sorted(staged.iterdir(), key=lambda file: file.name == FACTS):
        file.replace(folder / file.name)


def read_facts(folder: Path) -> Facts:
    """What an exported folder says of itself.

    Raises:
        BundleError: it is none, or a later version's.

    """
    path = folder / FACTS
    try:
        facts = Facts.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = f"{folder} is no exported folder: {FACTS} cannot be read ({error.strerror})"
        msg = f"{reason}; orchestrator export TRIAL writes one"
        raise BundleError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its text"
        msg = f"{path}: {place}: {first['msg']}; it is damaged, or a later version wrote it"
        raise BundleError(msg) from error
    if facts.file != MODEL_FILES[facts.format]:
        msg = (
            f"{path}: format {facts.format!r} and file {facts.file!r} contradict each other: of that format the file "
            f"is {MODEL_FILES[facts.format]!r}; {FACTS} was changed, so export the trial again"
        )
        raise BundleError(msg)
    return facts


def read_model(folder: Path, facts: Facts) -> bytes:
    """The model file of an exported folder.

    Raises:
        BundleError: it is not there, or not the one that `facts` describe.

    """
    path = folder / facts.file
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise BundleError(msg) from error
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        msg = f"{path}: truncated or changed: its SHA-256 is not the one in {FACTS}; export the trial again"
        raise BundleError(msg)
    return data


def _json(facts: Facts) -> str:
    return facts.model_dump_json(indent=1) + "\n"


def _loader(form: Format) -> str:
    return files("trainables.export.loaders").joinpath(f"{form}.py").read_text(encoding="utf-8")
