"""The labelling loop with a person: against a simulated study, and everything that a person may do."""

import base64
import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_folders import grey
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from orchestrator import precision
from orchestrator.cli import main
from orchestrator.label_files import Rounds, proposal, with_answers
from orchestrator.label_page import LARGEST, keys, page
from orchestrator.layout import Layout
from orchestrator.locks import study_lock
from trainables.active import labelling, trajectory
from trainables.active.rounds import advance, start
from trainables.config import DataConfig, ModelConfig, SelectConfig, TrainConfig, TrialConfig, resolve
from trainables.data.folder import facts
from trainables.data.identify import Folders
from trainables.data.imagefolder import read_folder
from trainables.data.labels import read_labels
from trainables.data.load import Dataset, Split, statistics
from trainables.errors import DivergedError

DOCUMENT = Path(__file__).parent.parent / "docs" / "labelling.md"
CLASSES = [str(digit) for digit in range(10)]
SELECT = {
    "strategy": "margin", "budget": 45, "initial": 20, "query_sizes": [10, 5], "replay_ratio": 1, "epochs": 3,
    "schedule": "fast",
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Sixty digits as image files, and what they are."""
    folder = tmp_path_factory.mktemp("digits")
    digits: Any = load_digits()
    truth: dict[str, str] = {}
    for number in range(60):
        name = f"{number:02d}.png"
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(folder / name)
        truth[name] = str(digits.target[number])
    return folder, truth


@dataclass
class Person:
    """Someone who labels; `truth` is what the images are."""

    folder: Path
    truth: dict[str, str]
    capsys: pytest.CaptureFixture[str]
    said: str = ""
    wrong: str = ""

    @property
    def images(self) -> Path:
        return self.folder / "data" / "digits"

    @property
    def state(self) -> Path:
        return self.folder / "results" / "digits60" / "_labelling"

    def study(self, select: Mapping[str, object] | None = None, **sections: object) -> None:
        data = {"name": "imagefolder", "folder": "digits", "labels": "labels.csv", "classes": CLASSES, "channels": 1}
        base = {
            "data": {**data, "image_size": 8, "augment": "none"},
            "select": {**SELECT, **(select or {})},
            "model": {"name": "resnet8", "width": 4},
            **sections,
        }
        (self.folder / "digits60.yaml").write_text(json.dumps({"study": "digits60", "base": base}))

    def does(self, *words: str, expect: int = 0) -> str:
        done = main(["label", words[0], "digits60.yaml", *words[1:]])
        self.said, self.wrong = self.capsys.readouterr()
        assert done == expect, self.wrong
        return self.wrong if expect else self.said

    def next(self, *words: str) -> list[str]:
        """The files that are proposed."""
        self.does("next", *words)
        return [row["file"] for row in csv.DictReader(io.StringIO(self.said))] if self.said[:5] == "file," else []

    def answers(self, rows: Mapping[str, str] | Sequence[tuple[str, str]]) -> Path:
        path = self.folder / "answers.csv"
        pairs = rows.items() if isinstance(rows, Mapping) else rows
        path.write_text("file,label\n" + "".join(f"{file},{label}\n" for file, label in pairs))
        return path

    def answer(self, files: Sequence[str], *words: str) -> str:
        return self.does("answer", str(self.answers({file: self.truth[file] for file in files})), *words)

    def labels(self) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO((self.images / "labels.csv").read_text()))
        return {row["file"]: row["label"] for row in rows if row["label"]}

    def refused(self, *words: str) -> list[str]:
        return self.does(*words, expect=2).splitlines()


@pytest.fixture
def person(
    tmp_path: Path,
    exported: tuple[Path, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Person:
    torch.set_num_threads(1)
    shutil.copytree(exported[0], tmp_path / "data" / "digits")
    monkeypatch.chdir(tmp_path)
    found = Person(tmp_path, dict(exported[1]), capsys)
    found.study()
    return found


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        monkeypatch.setattr(labelling, "advance", None)

    return forbid


def simulated(person: Person, root: Path, select: Mapping[str, object], rounds: int) -> list[list[str]]:
    """What a simulated study asks for round by round, of a copy of the folder in which every image has its label."""
    shutil.copytree(person.images, root / "digits")
    rows = "".join(f"{file},{label}\n" for file, label in person.truth.items())
    (root / "digits" / "labels.csv").write_text(f"file,label\n{rows}")
    data = DataConfig(
        name="imagefolder", folder="digits", labels="labels.csv", classes=tuple(CLASSES), channels=1, image_size=8,
        augment="none",
    )  # fmt: skip
    model = ModelConfig(name="resnet8", width=4)
    trial = Folders(root).identified(TrialConfig(data=data, model=model, train=TrainConfig(batch_size=8)))
    images = read_folder(trial.data, root)
    everything = Split(images.images, images.labels)
    pool = Dataset(everything, everything, everything, 10, *statistics(images.images))
    config = resolve(trial, "fp32").model_copy(update={"train": TrainConfig(precision="fp32")})
    sizes = SelectConfig.model_validate({**SELECT, **select}).query_sizes
    found: list[list[str]] = []
    before = None
    for number in range(rounds):
        asked = sizes[: max(1, number)] if number <= len(sizes) else (*sizes, *sizes[-1:] * (number - len(sizes)))
        part = SelectConfig.model_validate({**SELECT, **select, "query_sizes": asked})
        here = config.model_copy(update={"select": part})
        before = start(here, 0, pool).after if before is None else advance(here, 0, pool, "cpu", before).after
        found.append([images.paths[place] for place in before.newest.tolist()])
    return found


# --- the trajectory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"strategy": "random"},
        {"strategy": "badge", "replay_ratio": None, "proxy": "resnet8", "proxy_width": 4, "query_sizes": [6]},
        {"strategy": "forgetting", "pool_cap": 20},
        {"strategy": "bald", "passes": 3},
    ],
    ids=lambda select: select.get("strategy", "margin"),
)
def test_an_oracle_labels_what_the_simulated_study_chooses(
    person: Person, tmp_path: Path, select: dict[str, object]
) -> None:
    person.study(select)
    expected = simulated(person, tmp_path / "simulated", select, 4)
    for number, files in enumerate(expected):
        asked = person.next()
        assert asked == files[: len(asked)], number
        person.answer(asked)
    assert list(person.labels()) == [file for files in expected for file in files][:45]


def test_asking_again_proposes_the_same_and_trains_nothing(person: Person, no_training: Callable[[], None]) -> None:
    first = person.next()
    assert person.next() == first
    person.answer(first)
    second = person.next()
    no_training()
    assert person.next() == second
    person.answer(second[:4])
    assert person.next() == second[4:]
    assert "6 of 10 open; 24 of 45 labels, 60 images" in person.wrong


class PulledPlugError(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("writes", [0, 1])
def test_a_round_cut_off_before_it_was_whole_is_proposed_alike(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    from orchestrator import label_files
    from orchestrator.durable import publish

    expected = simulated(person, tmp_path / "simulated", {}, 3)
    person.answer(person.next())
    left = [writes]

    def cut_off(path: Path, data: bytes) -> None:
        if not left[0]:
            raise PulledPlugError
        left[0] -= 1
        publish(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(label_files, "publish", cut_off)
        with pytest.raises(PulledPlugError):
            person.next()
    for files in expected[1:]:
        assert person.next() == files[: len(files)]
        person.answer(files)


def test_a_budget_inside_a_round_takes_its_prefix_and_a_larger_one_the_rest(
    person: Person, tmp_path: Path, no_training: Callable[[], None]
) -> None:
    initial, asked, after = simulated(person, tmp_path / "simulated", {}, 3)
    person.answer(person.next())
    prefix = person.next("--set", "select.budget=24")
    assert prefix == asked[:4]
    person.answer(prefix, "--set", "select.budget=24")
    assert "the budget is reached" in person.said
    person.does("next", "--set", "select.budget=24")
    assert "24 of 24 labels" in person.said
    assert "nothing to label: the budget is reached" in person.said
    assert person.next() == asked[4:]
    person.answer(asked[4:])
    assert person.next() == after
    no_training()
    assert list(person.labels()) == [*initial, *asked]


def test_it_ends_when_every_image_is_labelled(person: Person) -> None:
    person.study({"budget": 500, "query_sizes": [35]})
    first = person.next()
    person.answer(first)
    second = person.next()
    assert person.wrong.count("select.budget 500 is more than there are images (60)") == 1
    person.answer(second)
    last = person.next()
    assert len(last) == 5
    person.answer(last)
    assert person.next() == []
    assert "nothing to label: every image is labelled" in person.said
    assert "is more than" not in person.said
    assert person.labels() == person.truth


def test_time_ends_it_before_the_next_round(person: Person) -> None:
    person.answer(person.next("--stop-after-s", "0.000001"))
    person.answer(person.next("--stop-after-s", "0.000001"))
    assert person.next("--stop-after-s", "0.000001") == []
    assert "nothing to label: the time for selecting is used up" in person.said
    assert len(person.next("--stop-after-s", "1000")) == 5


# --- labels and images that a person brings --------------------------------------------------------------------------


def write_labels(person: Person, files: Sequence[str]) -> None:
    rows = "".join(f"{file},{person.truth[file]}\n" for file in files)
    (person.images / "labels.csv").write_text(f"file,label\n{rows}")


def test_labels_from_before_are_the_initial_set_and_are_topped_up(person: Person) -> None:
    before = ["40.png", "07.png", "22.png"]
    write_labels(person, before)
    drawn = person.next()
    assert len(drawn) == 17
    assert not set(drawn) & set(before)
    (stored,) = (person.state / "round-0.json",)
    assert [file for file, _ in json.loads(stored.read_text())["images"]] == [*before, *drawn]


def test_where_the_initial_set_is_there_the_first_round_follows_at_once(person: Person) -> None:
    before = sorted(person.truth)[:23]
    write_labels(person, before)
    assert len(person.next()) == 10
    after = trajectory.load((person.state / "round-1.safetensors").read_bytes())
    assert after.sizes == (23, 10)


def test_a_label_that_was_not_asked_for_joins_the_round_and_a_removed_one_is_open(person: Person) -> None:
    first = person.next()
    person.answer(first)
    other = next(file for file in sorted(person.truth) if file not in first)
    write_labels(person, [*first[1:], other])
    assert person.next() == first[:1]
    assert "labels that were not asked for: 1;" in person.wrong
    person.answer(first[:1])
    person.next()
    after = trajectory.load((person.state / "round-1.safetensors").read_bytes())
    assert after.sizes == (21, 10)
    assert other not in person.next()


def test_images_may_come_and_go(person: Person) -> None:
    first = person.next()
    person.answer(first[:-1])
    (person.images / first[-1]).unlink()
    for number in range(30):
        grey(number).save(person.images / f"{number:02d}-new.png")
    asked = person.next()
    assert "images of the trajectory that are gone from data/digits: 1" in person.wrong
    assert person.next() == asked
    assert "89 images" in person.wrong
    images = json.loads((person.state / "round-1.json").read_text())["images"]
    assert first[-1] not in [file for file, _ in images]
    assert [file for file, _ in images[:19]] == first[:-1]
    assert trajectory.load((person.state / "round-1.safetensors").read_bytes()).sizes == (19, 10)


def test_a_trajectory_finds_its_images_where_they_are_now() -> None:
    before = trajectory.Trajectory(torch.tensor([5, 3, 8, 1]), (3, 1))
    after = labelling.taken_up(before, [6, None, 9, 2], [0, 4])
    assert after.labelled.tolist() == [6, 9, 2, 0, 4]
    assert after.sizes == (2, 3)
    assert after.newest.tolist() == [2, 0, 4]


def test_a_small_folder_of_larger_images_is_probed_all_the_same(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(config: TrialConfig) -> str:
        assert TrialConfig.model_validate_json(config.model_dump_json()).data.image_size == 16
        return "bf16"

    monkeypatch.setattr(precision, "_probe", answers)
    assert len(person.next("--set", "data.image_size=16")) == 20
    assert json.loads((person.state / "round-0.json").read_text())["settings"]["train.precision"] == "bf16"


def test_images_for_testing_are_not_proposed(person: Person) -> None:
    for side, numbers in (("train", range(40)), ("test", range(40, 60))):
        (person.images / side).mkdir()
        for number in numbers:
            (person.images / f"{number:02d}.png").rename(person.images / side / f"{number:02d}.png")
    write_labels(person, [])
    asked = person.next()
    assert len(asked) == 20
    assert all(file.startswith("train/") for file in asked)
    assert "40 images" in person.wrong


# --- the labels file -------------------------------------------------------------------------------------------------


def test_other_rows_and_columns_stay_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    begin = '\ufeffwho,"label",file,note\r\n"A, B",cat,x.png,"two\r\nlines"\r\n'
    path.write_bytes(f'{begin}C,,./y.png,"q""q"\r\n\r\nD, , z.png ,end'.encode())
    written = with_answers(path, {"y.png": "dog", 'new,"1".png': "a b"}).decode()
    assert written == f'{begin}C,dog,./y.png,"q""q"\r\n\r\nD, , z.png ,end\r\n,a b,"new,""1"".png",\r\n'


NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="/."), min_size=1),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip


@given(NAMES, st.data())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    listed = data.draw(st.lists(st.sampled_from(names), unique=True))
    rows = {name: data.draw(st.sampled_from(["", "a", "b, c"])) for name in listed}
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("file", "label"), *rows.items()])
    path.write_bytes(text.getvalue().encode())
    open_ = [name for name in names if not rows.get(name)]
    answers = {name: data.draw(st.sampled_from(["a", 'b"', "c\nd"])) for name in open_}
    path.write_bytes(with_answers(path, answers))
    found = read_labels(path, names)
    assert found.faults == []
    expected = {name: label for name, label in rows.items() if label} | answers
    assert {name: row.label for name, row in found.rows.items()} == expected


def test_every_fault_of_the_answers_is_told_and_none_is_taken(person: Person) -> None:
    first = person.next()
    person.answer(first[:2])
    before = (person.images / "labels.csv").read_bytes()
    other = next(file for file in sorted(person.truth) if file not in first)
    wrong = str((int(person.truth[first[0]]) + 1) % 10)
    rows = [
        ("nobody.png", "1"), (other, "1"), (first[2], "cat"), (first[3], "1"), (first[3], "2"),
        (first[0], wrong), (first[4], "3"),
    ]  # fmt: skip
    told = person.refused("answer", str(person.answers(rows)))
    assert [line.partition(": ")[2] for line in told if "answers.csv: line" in line] == (
        [
            "line 2: there is no image nobody.png in the folder",
            f"line 3: {other} was not proposed in round 0",
            f"line 4: label 'cat' is none of the classes {', '.join(CLASSES)} (data.classes)",
            f"line 6: {first[3]} is there twice (also on line 5); keep one",
            f"line 7: {first[0]} is labelled {person.truth[first[0]]} already, not {wrong}; "
            "correct it in data/digits/labels.csv",
        ]
    )
    assert told[-1] == "nothing was taken; mend the answers and give them again"
    assert (person.images / "labels.csv").read_bytes() == before
    assert person.next() == first[2:]


def test_copies_of_an_image_are_one_image(person: Person) -> None:
    first = person.next()
    shutil.copy(person.images / first[0], person.images / first[1])
    told = person.refused("next")
    assert f"  {first[1]} is another image than it was" in told
    person.next("--restart")
    both = {first[0]: "1", first[1]: "2"}
    (person.images / "labels.csv").write_text("file,label\n")
    person.study({"initial": 60, "budget": 60})
    person.next("--restart")
    told = person.refused("answer", str(person.answers(both)))
    assert f"{first[1]} and {first[0]} are one image, labelled 2 and 1" in told[0]
    assert person.labels() == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the header must have the columns file,label once each; file, label not in: nothing"),
        ('file,label\n"x', "unexpected end of data"),
        (None, "missing"),
    ],
)
def test_answers_that_are_no_such_file(person: Person, text: str | None, told: str) -> None:
    person.next()
    if text is not None:
        Path("answers.csv").write_text(text)
    assert person.refused("answer", "answers.csv")[0] == f"answers.csv: {told}"


def test_the_same_answers_may_be_given_again_and_empty_ones_stay_open(person: Person) -> None:
    first = person.next()
    rows = {file: person.truth[file] if number < 5 else "" for number, file in enumerate(first)}
    assert "5 new labels" in person.does("answer", str(person.answers(rows)))
    assert "0 new labels" in person.does("answer", str(person.answers(rows)))
    assert "15 of 20 open; 5 of 45 labels" in person.said


# --- files for the person --------------------------------------------------------------------------------------------


class Structure(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    names = ["<script>alert(1)<", 'a"b&amp;.png', "plain.png"]
    for number, name in enumerate(names[:2]):
        grey(number).save(tmp_path / name, "PNG")
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8))
    colours.save(tmp_path / names[2])
    classes = ["cat & dog", '"b"', "<i>"]
    text = page("pets, <round> 1", "pets.csv", tmp_path, names, classes)
    found = Structure(text)
    assert [card["data-file"] for card in found.of("fieldset")] == names
    radios = [(radio["type"], radio["name"], radio["value"]) for radio in found.of("input")]
    assert [radio["data-key"] for radio in found.of("input")] == ["1", "2", "3"] * 3
    assert radios == [("radio", f"image-{number}", name) for number in range(3) for name in classes]
    assert [word for word in found.words if "<round>" in word] == ["pets, <round> 1"] * 2
    assert len(found.of("script")) == 1
    assert "http://" not in text
    assert "https://" not in text
    assert not [tag for tag, attributes in found.tags if "href" in attributes or tag == "link"]
    pictures = [image["src"] or "" for image in found.of("img")]
    shown = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in pictures]
    assert [image.size for image in shown] == [(8, 8), (8, 8), (LARGEST * 3 // 4, LARGEST)]
    assert np.array_equal(np.asarray(shown[0].convert("L")), np.asarray(grey(0)))
    assert "default-src 'none'" in text


def test_keys_stand_for_classes() -> None:
    assert keys(["cat", "dog"]) == "12"
    assert keys(CLASSES) == "0123456789"
    assert keys(["a", "B", "ä"]) == "123"
    assert keys([f"kind {number}" for number in range(12)]) == "1234567890"


def test_files_that_the_person_wrote_are_not_written_over(person: Person) -> None:
    first = person.next("--out", "next.csv", "--page", "next.html")
    assert first == []
    assert person.said.splitlines()[1:3] == ["written: next.csv", "written: next.html"]
    asked = [line.removesuffix(",") for line in Path("next.csv").read_text().splitlines()[1:]]
    assert [card["data-file"] for card in Structure(Path("next.html").read_text()).of("fieldset")] == asked
    assert Path("next.csv").read_text() == proposal(asked)
    Path("next.csv").write_text(f"file,label\n{asked[0]},{person.truth[asked[0]]}\n")
    assert person.refused("next", "--out", "next.csv")[0].startswith(
        "next.csv: answers in it that data/digits/labels.csv has not: 1;"
    )
    person.does("answer", "next.csv")
    person.does("next", "--out", "next.csv", "--page", "next.html")
    assert "labels.csv: is there and is no proposal" in person.refused("next", "--out", "data/digits/labels.csv")[0]
    assert "is there and is no page" in person.refused("next", "--page", "next.csv")[0]
    assert "cannot be written" in person.refused("next", "--out", "nowhere/next.csv")[0]
    assert person.refused("next", "--out", "one.csv", "--page", "./one.csv") == [
        "one.csv: --out and --page name one file; name two"
    ]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_changed_settings_are_told_and_restart_keeps_the_labels(person: Person) -> None:
    first = person.next()
    person.answer(first)
    person.next()
    person.study({"strategy": "entropy", "query_sizes": [7]}, train={"batch_size": 16})
    assert person.refused("next") == [
        "digits60.yaml: changed since round 1 was proposed:",
        "  select.query_sizes is [7], was [10]",
        "  select.strategy is entropy, was margin",
        "  train.batch_size is 16, was 128",
        "put it back, or --restart keeps the labels and begins a new trajectory from them",
    ]
    assert len(person.next("--restart")) == 7
    assert "the former trajectory is kept in" in person.wrong
    assert list(person.labels()) == first
    after = trajectory.load((person.state / "round-1.safetensors").read_bytes())
    assert after.sizes == (20, 7)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "seeds=2"], "labelling needs a study of one cell and one seed, and this one has 2"),
        (["--set", "select.budget=10"], "select.budget 10 is less than the initial draw, select.initial 20"),
        (["--set", "select.patience=2"], "select.patience is for simulated labels"),
        (["--set", "data.train_size=30"], "data.train_size is for simulated labels"),
        (["--set", "data.classes=[a]"], "labelling needs data: {name: imagefolder"),
        (["--set", "data.folder=nowhere"], "data/nowhere: missing"),
        (["--set", "model={name: mine.nets:net}"], "'mine.nets:net' is code of your own. With --allow-code"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_a_study_that_cannot_be_labelled(person: Person, words: list[str], told: str) -> None:
    assert told in person.does("next", *words, expect=2)


def test_a_study_without_selection_or_images_of_ones_own(person: Person) -> None:
    base = {"data": {"name": "digits"}, "model": {"name": "resnet8"}}
    Path("digits60.yaml").write_text(json.dumps({"study": "digits60", "base": base}))
    assert [line.partition(": ")[2].split(" ")[:3] for line in person.refused("next")] == [
        ["labelling", "needs", "data:"],
        ["labelling", "needs", "a"],
    ]


def test_nothing_to_answer_and_damaged_state(person: Person) -> None:
    assert "nothing has been proposed yet" in person.refused("answer", "answers.csv")[0]
    person.answer(person.next())
    stored = person.state / "round-0.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1])
    assert "round-0.safetensors: is not what was written; --restart" in person.refused("next")[0]
    (person.state / "round-0.json").write_text("{")
    assert "round-0.json: cannot be read" in person.refused("next")[0]
    assert len(person.next("--restart")) == 10


def test_a_damaged_image_is_told_before_anybody_labels(person: Person) -> None:
    (person.images / "13.png").write_bytes(b"no image")
    assert any("13.png: cannot be read as an image" in line for line in person.refused("next"))
    assert Rounds(person.state).newest() is None


NETWORKS = """\
from torch import nn

def without_linear_layer(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def of_larger_images(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
"""


def test_a_network_that_cannot_choose_is_told_before_anybody_labels(person: Person) -> None:
    Path("labelled_nets.py").write_text(NETWORKS)
    person.study({"strategy": "badge"})

    def of(name: str) -> list[str]:
        return ["--allow-code", "--set", f"model={{name: 'labelled_nets:{name}'}}"]

    told = person.refused("next", *of("without_linear_layer"))
    assert told[0].startswith("digits60.yaml: Sequential has no linear layer at its end whose inputs are features")
    told = person.refused("next", *of("of_larger_images"))
    assert told[0].startswith("digits60.yaml: labelled_nets:of_larger_images does not take images of 8x8 pixels")
    assert Rounds(person.state).newest() is None
    assert len(person.next(*of("of_larger_images"), "--set", "select.proxy=resnet8")) == 20


def test_only_one_process_is_at_the_labels_of_a_study(person: Person) -> None:
    lock = Layout(person.folder / "results").lock("_labelling-digits60")
    with study_lock(lock, "") as other:
        assert other is None
        assert re.match(r"digits60: process \d+ on .* is at its labels", person.refused("next")[0])
        assert "is at its labels" in person.refused("answer", "answers.csv")[0]


def test_training_that_failed_is_no_mistake_of_the_user(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*_: object) -> None:
        raise DivergedError("the loss became nan")

    person.answer(person.next())
    monkeypatch.setattr(labelling, "advance", diverges)
    assert person.does("next", expect=1) == "the loss became nan\n"


# --- the document ----------------------------------------------------------------------------------------------------


def test_the_walk_in_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, str(DOCUMENT), "exec"), {})
        elif language == "yaml":
            assert YAML(typ="safe", pure=True).load(block)["study"] == "digits60"
            Path("digits60.yaml").write_text(block)
        else:
            for line in block.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line
    said = capsys.readouterr().out
    assert "digits60 round 0: 20 of 20 open; 0 of 40 labels, 60 images" in said
    assert "digits60 round 1: 10 of 10 open; 20 of 40 labels, 60 images" in said
    found = facts(tmp_path / "data" / "labelled")
    truth = json.loads(Path("truth.json").read_text())
    assert len(found.images) == 20
    pairs = zip(found.images, found.labels, strict=True)
    assert all(found.classes[label] == truth[image.path.partition("/")[2]] for image, label in pairs)
