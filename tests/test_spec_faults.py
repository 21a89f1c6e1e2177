from pathlib import Path

import pytest
from study_files import HEAD, faults, load

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_spec
from orchestrator.spec.yaml_nodes import MAX_BYTES

SETS = "digits, mnist, fashion_mnist, cifar10, cifar100, imagefolder"
MODELS = (
    "resnet8, resnet14, resnet20, resnet32, resnet56, resnet18, vgg_small, a classification model of torchvision "
    "(`orchestrator schema` lists them), or package.module:function"
)

# Each: what is added to HEAD (or a whole file), and every fault in order.
WRONG: dict[str, tuple[str, list[str]]] = {
    "unknown key": (
        "axis: {}\n",
        ["line 6, column 1: axis: unknown key; did you mean 'axes'?"],
    ),
    "wrong values of an axis, all of them": (
        "axes:\n  compress.pfr: [0.1, abc, 1.0, -0.1, true, null]\n",
        [
            "line 7, column 23: axes.compress.pfr[1]: 'abc' is text; a number in [0, 1) is wanted",
            "line 7, column 28: axes.compress.pfr[2]: 1.0 is not a number in [0, 1)",
            "line 7, column 33: axes.compress.pfr[3]: -0.1 is not a number in [0, 1)",
            "line 7, column 39: axes.compress.pfr[4]: true is a truth value; a number in [0, 1) is wanted",
            "line 7, column 45: axes.compress.pfr[5]: null is no value here; a number in [0, 1) is wanted",
        ],
    ),
    "a range that is not finite": (
        "axes: {compress.pfr: {range: [0, .nan, 0.1]}, train.lr: {range: [0.1, .inf, 0.1]}}\n",
        [
            "line 6, column 34: axes.compress.pfr.range[1]: .nan is no finite number",
            "line 6, column 71: axes.train.lr.range[1]: .inf is no finite number",
        ],
    ),
    "whole numbers": (
        "axes: {train.epochs: [1.5, 0, 3.0]}\n",
        [
            "line 6, column 23: axes.train.epochs[0]: 1.5 is not a whole number of at least 1",
            "line 6, column 28: axes.train.epochs[1]: 0 is not a whole number of at least 1",
            "line 6, column 31: axes.train.epochs[2]: 3.0 is not a whole number of at least 1",
        ],
    ),
    "items of a list": (
        "axes: {compress.full_precision: [[first], [fist]]}\n",
        [
            "line 6, column 43: axes.compress.full_precision[1]: 'fist' is not known; did you mean 'first'? "
            "Valid: first, last, downsample"
        ],
    ),
    "a section at the top": (
        "latency: {runtimes: [openvino]}\n",
        ["line 6, column 1: latency: belongs under base, as base.latency"],
    ),
    "a latency that nobody measures": (
        "objectives: {accuracy: max, latency_ms: min}\n",
        [
            "line 6, column 29: objectives.latency_ms: is only measured where base.latency is set, "
            "as in base: {latency: {runtimes: [openvino]}}"
        ],
    ),
    "activations that the blocks cannot read": (
        "axes: {compress.activations: [float, int8, sign], model.block: [standard, bn_first]}\n",
        [
            "line 6, column 8: axes.compress.activations: impossible combination: compress.activations sign needs "
            "model.block bn_first, or vgg_small; resnet8 is standard "
            "(with compress.activations: 'sign', model.block: 'standard')"
        ],
    ),
    "no truth value": (
        "axes: {compress: [{method: ptq_group, joint: 3}]}\n",
        ["line 6, column 46: axes.compress[0].joint: 3 is a number; true or false is wanted"],
    ),
    "empty axis": (
        "axes:\n  compress.pfr: []\n",
        ["line 7, column 17: axes.compress.pfr: an empty axis; give it at least one value or remove it"],
    ),
    "no list": (
        "axes:\n  compress.pfr: 0.4\n",
        [
            "line 7, column 17: axes.compress.pfr: 0.4 is no list of values; an axis is [a, b, c], "
            "{range: [first, last, step]}, or {uniform | loguniform | int_uniform: [low, high]}"
        ],
    ),
    "duplicate values": (
        "axes: {compress.pfr: [0.1, 0.10], train.lr: [1, 1.0]}\n",
        [
            "line 6, column 28: axes.compress.pfr[1]: 0.1 is there twice (as 0.1 before)",
            "line 6, column 49: axes.train.lr[1]: 1.0 is there twice (as 1 before)",
        ],
    ),
    "unknown axis": (
        "axes: {compress.pft: [0]}\n",
        ["line 6, column 8: axes.compress.pft: unknown leaf; did you mean 'compress.pfr'?"],
    ),
    "unknown model of an axis": (
        "axes: {model.name: [resnet8, resnet9]}\n",
        [f"line 6, column 30: axes.model.name[1]: 'resnet9' is not known; did you mean 'resnet8'? Valid: {MODELS}"],
    ),
    "near names of torchvision's models, and what is no code": (
        "axes: {model.name: [mobilnet_v2, zzz, 'my-models:make']}\n",
        [
            "line 6, column 21: axes.model.name[0]: 'mobilnet_v2' is not known; did you mean 'mobilenet_v2'? "
            f"Valid: {MODELS}",
            f"line 6, column 34: axes.model.name[1]: 'zzz' is not known. Valid: {MODELS}",
            "line 6, column 39: axes.model.name[2]: 'my-models:make' is no package.module:function; "
            "a model of your own is named so",
        ],
    ),
    "a shape that another's network does not have": (
        "axes: {model.name: [resnet8, mobilenet_v2], model.width: [8, 16]}\n",
        [
            "line 6, column 45: axes.model.width: model.width has no effect on mobilenet_v2; only our own networks "
            "have it: remove it (with model.name: 'mobilenet_v2', model.width: 8; and in 1 more combinations)"
        ],
    ),
    "unknown objective and direction": (
        "objectives: {acuracy: max, compression: mx}\n",
        [
            "line 6, column 14: objectives.acuracy: unknown column; did you mean 'accuracy'?",
            "line 6, column 28: objectives.compression: unknown direction 'mx'; valid are max and min",
        ],
    ),
    "objectives on leaves": (
        "objectives: {accuracy: max, compress.pffr: max, compress.score: min, latency.threads: min}\n",
        [
            "line 6, column 29: objectives.compress.pffr: is no config leaf; did you mean 'compress.pfr'?",
            "line 6, column 49: objectives.compress.score: holds no number but one of zero_share, mean_abs, "
            "binarization_error; it cannot be compared",
            "line 6, column 70: objectives.latency.threads: is the same in every trial; it cannot be compared",
        ],
    ),
    "no objectives": (
        "objectives: {}\n",
        ["line 6, column 13: objectives: names no column; write for example {accuracy: max, compression: max}"],
    ),
    "nan and infinity": (
        "axes: {compress.pfr: [.nan, .inf], train.lr: [1e999]}\n",
        [
            "line 6, column 23: axes.compress.pfr[0]: .nan is no finite number",
            "line 6, column 29: axes.compress.pfr[1]: .inf is no finite number",
            "line 6, column 47: axes.train.lr[0]: 1e999 is no finite number",
        ],
    ),
    "impossible combination": (
        "axes:\n  model.name: [resnet8, vgg_small]\n  model.block: [standard, bn_first]\n",
        [
            "line 8, column 3: axes.model.block: impossible combination: model.block bn_first needs residual blocks; "
            "vgg_small has none (with model.name: 'vgg_small', model.block: 'bn_first')"
        ],
    ),
    "impossible within a section": (
        "axes:\n  compress.ramp_share: [0.4, 0.8]\n  compress.freeze_share: [0.1, 0.3]\n",
        [
            "line 7, column 3: axes.compress.ramp_share: ramp_share 0.8 + freeze_share 0.3 is above 1: "
            "the ramp must end "
            "first (with compress.ramp_share: 0.8, compress.freeze_share: 0.3)"
        ],
    ),
    "more images than there are": (
        "axes: {data.train_size: [1000, 5000]}\n",
        [
            "line 6, column 8: axes.data.train_size: impossible combination: data.train_size 5000 is "
            "more than the 1437 "
            "of digits (with data.train_size: 5000)"
        ],
    ),
    "a leaf of another method": (
        "axes: {compress.method: [binary], compress.pfr: [0, 0.4]}\n",
        [
            "line 6, column 35: axes.compress.pfr: belongs to method stq and l1_prune, not to binary (with "
            "compress.method: 'binary', compress.pfr: 0.0; and in 1 more combinations); vary it only where it applies, "
            'as in when: {compress.pfr: "compress.method == ..."}'
        ],
    ),
    "zip of unequal lists": (
        "zip: {compress.pfr: [0, 0.1], train.lr: [0.1]}\n",
        ["line 6, column 6: zip: the lists must be equally long: compress.pfr has 2, train.lr has 1"],
    ),
    "varied twice": (
        "axes: {train.lr: [0.1]}\nzip: {compress.pfr: [0, 0.1], train.lr: [0.1, 0.2]}\n",
        ["line 7, column 31: zip.train.lr: is varied twice (also in axes); keep one"],
    ),
    "sections and leaves": (
        "axes: {compress: [{method: stq, pfr: 0.2}, {metod: stq}], compress.pfr: [0, 0.1]}\n",
        [
            "line 6, column 44: axes.compress[1].method: is required: one of stq, binary, dabn, hybrid, l1_prune, "
            "group_sparsity, decompose, low_rank, expand, xnet, lkam, ptq_group, finetune, combine",
            "line 6, column 59: axes.compress.pfr: is varied, and set in the axis compress as well; keep one",
        ],
    ),
    "expressions": (
        "axes: {compress.pfr: [0, 0.4]}\n"
        "when: {compress.pfr: compres.pfr > 1, train.lr: 'true'}\n"
        "exclude: [compress.method == 'sqt', compress.pfr / 0 > 1, 3]\n",
        [
            "line 7, column 22: when.compress.pfr: unknown name 'compres.pfr'; did you mean 'compress.pfr'?",
            "line 7, column 39: when.train.lr: is no axis of this study; valid: compress.pfr",
            "line 8, column 11: exclude[0]: compress.method is never 'sqt'; did you mean 'stq'?",
            'line 8, column 59: exclude[2]: 3 is no expression; write text such as "compress.pfr > 0.4"',
        ],
    ),
    "expressions without a value": (
        "axes: {compress.pfr: [0, 0.4]}\nexclude: [1 / compress.pfr > 9, compress.pfr > 'a', compress.pfr]\n",
        [
            "line 7, column 11: exclude[0]: 1 / compress.pfr divides by zero (with compress.pfr: 0.0)",
            "line 7, column 33: exclude[1]: `compress.pfr > 'a'`: a number > text has no answer "
            "(with compress.pfr: 0.0; and in 1 more combinations)",
            "line 7, column 53: exclude[2]: `compress.pfr` is a number, not true or false; compare it with something "
            "(with compress.pfr: 0.0; and in 1 more combinations)",
        ],
    ),
    "when in a circle": (
        "axes: {compress.pfr: [0, 0.4]}\nwhen: {compress.pfr: compress.pfr > 0}\n",
        [
            "line 7, column 8: when.compress.pfr: the axes of `when` depend on each other (or on "
            "themselves) in a circle; "
            "break it"
        ],
    ),
    "seeds": (
        "seeds: [0, 0, -1, a]\n",
        [
            "line 6, column 12: seeds[1]: 0 is there twice",
            "line 6, column 15: seeds[2]: -1 must be a whole number of 0 to 4294967295",
            "line 6, column 19: seeds[3]: 'a' must be a whole number of 0 to 4294967295",
        ],
    ),
    "no seeds": (
        "seeds: 0\n",
        ["line 6, column 8: seeds: 0 must be a count of 1 to 1,000,000, or a list such as [0, 1, 2]"],
    ),
    "too many cells": (
        "axes:\n  train.lr: {range: [0.001, 1, 0.0001]}\nseeds: 1000\n",
        [
            "line 6, column 1: axes: 9,991,000 cells, seeds included and before when and exclude; at "
            "most 1,000,000 are "
            "planned"
        ],
    ),
    "a distribution in a grid": (
        "axes: {train.lr: {loguniform: [0.01, 0.1]}}\n",
        [
            "line 6, column 31: axes.train.lr.loguniform: a distribution needs a search that draws, as in "
            "search: {name: random, trials: N}; a grid takes a list or a range"
        ],
    ),
    "a range that ends nowhere": (
        "axes: {train.lr: {range: [0.1, 0.5, -0.1]}}\n",
        ["line 6, column 26: axes.train.lr.range: no step of -0.1 leads from 0.1 to 0.5"],
    ),
    "search and resources": (
        "search: {name: gird, trials: 0, sed: 1}\nresources: {cpus: 0, gpus: -1}\n",
        [
            "line 6, column 16: search.name: 'gird' is not known; did you mean 'grid'?",
            "line 6, column 30: search.trials: 0 must be a whole number of 1 to 1,000,000",
            "line 6, column 33: search.sed: unknown key; did you mean 'seed'?",
            "line 7, column 19: resources.cpus: 0 must be a whole number of 1 to 4,096",
            "line 7, column 28: resources.gpus: -1 must be a number of 0 to 1024, per worker",
        ],
    ),
    "more trials than configs": (
        "axes: {compress.pfr: [0, 0.1]}\nsearch: {name: random, trials: 5}\n",
        ["line 7, column 24: search.trials: 5 asked, but only 2 different configs can be drawn; ask for that many"],
    ),
    "a key twice": (
        "study: t\n",
        ["line 6, column 1: study: this key stands twice in the mapping (first on line 1); keep one"],
    ),
}

WRONG_FILES: dict[str, tuple[str, list[str]]] = {
    "base": (
        "study: s\nbase:\n  data: {name: digts}\n  model: {name: resnet8, widht: 3}\n  trian: {}\n"
        "  compress: {method: l1}\n",
        [
            f"line 3, column 16: base.data.name: 'digts' is not known; did you mean 'digits'? Valid: {SETS}",
            "line 4, column 26: base.model.widht: unknown key; did you mean 'width'?",
            "line 5, column 3: base.trian: unknown key; did you mean 'train'?",
            "line 6, column 22: base.compress.method: 'l1' is not known; valid: binary, combine, dabn, decompose, "
            "expand, finetune, group_sparsity, hybrid, l1_prune, lkam, low_rank, ptq_group, stq, xnet",
        ],
    ),
    "missing": (
        "study: s\nbase: {model: {}}\n",
        [
            f"line 2, column 1: base.data.name: is required: one of {SETS}",
            f"line 2, column 8: base.model.name: is required: one of {MODELS}",
        ],
    ),
    "a tab": (
        "study: s\nbase:\n\tdata: {name: digits}\n",
        ["line 3, column 1: a tab in the indentation; YAML is indented with spaces"],
    ),
    "a tab elsewhere": ("study:\t[\n", ["line 1, column 7: YAML syntax: a tab where YAML wants spaces"]),
    "syntax": (
        "study: [a\nbase: }\n",
        ["line 2, column 5: YAML syntax: while parsing a flow sequence expected ',' or ']', but got ':'"],
    ),
    "deep flow": ("study: " + "[" * 5000, ["line 1, column 20: study" + "[0]" * 12 + ": nested deeper than 12 levels"]),
    "deep blocks": (
        "".join(f"{' ' * depth}a:\n" for depth in range(300)),
        ["line 14, column 14: " + ".".join("a" * 13) + ": nested deeper than 12 levels"],
    ),
    "empty": ("", ["the file is empty; a study needs at least study: and base: (see the shipped ones)"]),
    "comments alone": ("# a\n", ["the file is empty; a study needs at least study: and base: (see the shipped ones)"]),
    "a list": (
        "- 1\n",
        [
            "line 1, column 1: [1] is no study; a study is a mapping with the keys study, base, axes, "
            "zip, when, exclude, "
            "seeds, objectives, search, resources, retry, artifacts"
        ],
    ),
    "a leaf that the plan fills in": (
        f"study: s\nbase:\n  data: {{name: digits}}\n  model: {{name: 'own:make', code_sha256: '{'a' * 64}'}}\n"
        "axes: {model: [{name: resnet8, code_sha256: null}]}\n",
        [
            "line 4, column 42: base.model.code_sha256: is filled in by the plan; remove it",
            "line 5, column 45: axes.model[0].code_sha256: is filled in by the plan; remove it",
        ],
    ),
    "two documents": (f"{HEAD}---\n{HEAD}", ["line 6, column 1: a second document; a study is one document"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_fault_is_told_with_its_place(case: str, tmp_path: Path) -> None:
    added, told = WRONG[case]
    assert faults(tmp_path, HEAD + added) == told


@pytest.mark.parametrize("case", WRONG_FILES)
def test_each_wrong_file_is_told(case: str, tmp_path: Path) -> None:
    text, told = WRONG_FILES[case]
    assert faults(tmp_path, text) == told


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "-x", ".x", "_x", "x" * 65, "ü", "''", "1.5", "null", "a b", "'a\n'"]
)
def test_a_study_name_that_escapes_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    (told,) = faults(tmp_path, HEAD.replace("study: s", f"study: {name}"))
    assert told.startswith("line 1, column 8: study: ")
    assert "must be text: a letter or digit, then at most 63" in told


def test_the_name_of_the_committed_tables_is_taken(tmp_path: Path) -> None:
    (told,) = faults(tmp_path, HEAD.replace("study: s", "study: reference"))
    assert told == "line 1, column 8: study: 'reference' is taken by the committed tables; choose another name"


def test_aliases_cannot_explode_or_loop(tmp_path: Path) -> None:
    bomb = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    told = faults(tmp_path, bomb)
    assert "line 2, column 8: b[0]: the alias *a is not supported; write the value out" in told
    assert "a: the alias *x is not supported" in " ".join(faults(tmp_path, "study: &x\n  a: *x\n"))


def test_a_python_tag_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    told = faults(tmp_path, HEAD + f"seeds: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]\n")
    tag = "tag:yaml.org,2002:python/object/apply:pathlib.Path.touch"
    assert told[0] == f"line 6, column 8: seeds: the tag '{tag}' is not supported; remove it"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n\x00", "study: s".encode("utf-16"), b"a: \xff"])
def test_a_binary_file_is_no_study(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError, match="is this a binary file"):
        load_spec(str(path))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as stream:
        stream.truncate(10**9)
    with pytest.raises(SpecError, match=rf"has 1,000,000,000 bytes; a study has at most {MAX_BYTES:,}"):
        load_spec(str(path))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a regular file"):
        load_spec(str(tmp_path))
    with pytest.raises(SpecError, match=r"did you mean 'pfr_grid\.yaml'"):
        load_spec("pfr_gird")
    for name in ("", "a\0b", "x" * 5000):
        with pytest.raises(SpecError, match=r"no such study|no usable file name"):
            load_spec(name)


@pytest.mark.parametrize(
    ("latency", "fault"),
    [
        ("{runtimes: [tensorrt]}", "runtimes: 'tensorrt' is not known; valid: onnxruntime, openvino, packed, skipping"),
        ("{runtimes: []}", "runtimes: is empty; a list of openvino, onnxruntime, packed, skipping is wanted"),
        ("{runtimes: [packed, packed]}", "runtimes: 'packed' is there twice; keep one"),
        ("{batch: [8, 0]}", "batch: element 2: 0 is not a whole number in [1, 4096]"),
        ("{batch: [a]}", "batch: element 1: 'a' is text; a whole number in [1, 4096] is wanted"),
        ("{batches: [1]}", "batches: unknown key; did you mean 'batch'?"),
    ],
)
def test_a_section_from_the_command_line_has_one_fault_and_no_place_in_the_file(
    tmp_path: Path, latency: str, fault: str
) -> None:
    assert faults(tmp_path, HEAD, f"latency={latency}") == [f"base.latency.{fault} (from --set latency={latency})"]


@pytest.mark.parametrize(
    "text",
    [
        "axes: {compress.activations: [float, sign], model.name: [vgg_small, squeezenet1_0]}\n",
        "axes: {compress.activations: [float, sign], model.block: [standard, bn_first]}\n"
        "exclude: [\"compress.activations == 'sign' and model.block == 'standard'\"]\n",
        "objectives: {accuracy: max, latency_ms: min}\n",
    ],
)
def test_what_can_run_or_be_measured_is_no_fault(tmp_path: Path, text: str) -> None:
    load(tmp_path, HEAD + text, *(["latency={}"] if "latency" in text else []))


def test_code_of_ones_own_is_refused_at_its_place_unless_it_is_allowed(tmp_path: Path) -> None:
    text = (
        HEAD.replace("resnet8", "'own.nets:small'") + "zip: {model.name: [resnet8, 'own:net'], train.lr: [0.1, 0.2]}\n"
    )
    load(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_spec(str(tmp_path / "study.yaml"), allow_code=False)
    first, second = map(str, caught.value.faults)
    assert first.startswith("line 4, column 17: base.model.name: 'own.nets:small' is code of your own. With --allow-c")
    assert second.startswith("line 6, column 29: zip.model.name[1]: 'own:net' is code of your own. With --allow-code")
    with pytest.raises(SpecError, match=r"axes.model\[1\].name: 'own:net' is code .* \(from --set axes"):
        load_spec(str(tmp_path / "study.yaml"), ["zip=null", "axes={model: [{name: resnet8}, {name: own:net}]}"],
                  allow_code=False)  # fmt: skip
