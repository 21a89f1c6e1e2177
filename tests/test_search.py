import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.cells import Cell, Cells, cells
from orchestrator.spec.load import load_spec
from trainables.config import BinaryConfig, L1PruneConfig, StqConfig

HEAD = """\
study: s
base:
  data: {name: digits}
  model: {name: resnet8}
  compress: {method: stq, threshold: 0.6}
"""


def load(folder: Path, text: str) -> Cells:
    path = folder / "study.yaml"
    path.write_text(text)
    return cells(load_spec(str(path)))


def values(cell: Cell) -> dict[str, object]:
    return dict(cell.values)


def key(cell: Cell) -> str:
    return cell.config.model_dump_json()


def leaf(cell: Cell, path: str) -> object:
    section, name = path.split(".")
    return getattr(getattr(cell.config, section), name)


def test_the_grid_runs_in_the_order_of_the_file_with_seeds_innermost(tmp_path: Path) -> None:
    text = (
        "axes: {train.lr: [0.2, 0.1], compress.pfr: [0.4, 0]}\n"
        "zip: {train.epochs: [1, 2], compress.epochs: [3, 4]}\nseeds: [7, 5]\n"
    )
    found = load(tmp_path, HEAD + text)
    told = [(*values(cell).values(), cell.seed) for cell in found.cells]
    zipped = [(1, 3), (2, 4)]
    assert told == [(lr, pfr, *pair, seed) for lr, pfr, pair, seed in product((0.2, 0.1), (0.4, 0.0), zipped, (7, 5))]
    assert list(values(found.cells[0])) == ["train.lr", "compress.pfr", "train.epochs", "compress.epochs"]
    for cell in found.cells:
        assert all(leaf(cell, path) == value for path, value in cell.values)
        assert isinstance(cell.config.compress, StqConfig)
        assert cell.config.compress.threshold == 0.6


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_a_grid_has_the_product_of_its_lengths(tmp_path: Path, sizes: list[int], zipped: int, seeds: int) -> None:
    paths = ("compress.pfr", "train.lr", "train.weight_decay")
    axes = ", ".join(f"{path}: {[n / 10 + 0.1 for n in range(size)]}" for path, size in zip(paths, sizes, strict=True))
    pair = [n + 1 for n in range(zipped)]
    found = load(
        tmp_path, f"{HEAD}axes: {{{axes}}}\nzip: {{train.epochs: {pair}, compress.epochs: {pair}}}\nseeds: {seeds}\n"
    )
    assert len(found.cells) == math.prod(sizes) * zipped * seeds
    assert len({(key(cell), cell.seed) for cell in found.cells}) == len(found.cells)


def test_no_axes_is_one_cell_a_seed(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + "seeds: 3\n")
    assert [(cell.values, cell.seed) for cell in found.cells] == [((), 0), ((), 1), ((), 2)]


def test_where_when_is_false_the_base_stays_and_equal_cells_collapse(tmp_path: Path) -> None:
    text = (
        "axes: {compress.pfr: [0, 0.2, 0.4], compress.threshold: [0.5, 0.7]}\n"
        "when: {compress.threshold: compress.pfr > 0}\nseeds: 2\n"
    )
    found = load(tmp_path, HEAD + text)
    assert len(found.cells) == (1 + 2 * 2) * 2
    assert found.collapsed == 2
    assert values(found.cells[0]) == {"compress.pfr": 0.0}
    assert leaf(found.cells[0], "compress.threshold") == 0.6


def test_conditions_may_hang_on_each_other_in_any_order(tmp_path: Path) -> None:
    text = (
        "axes: {compress.threshold: [0.5, 0.7], compress.pfr: [0, 0.4], train.lr: [0.1, 0.2]}\n"
        "when: {compress.threshold: compress.pfr == 0.4, compress.pfr: train.lr == 0.2}\n"
    )
    base = HEAD.replace("threshold: 0.6", "threshold: 0.6, pfr: 0.3")
    found = load(tmp_path, base + text)
    told = {
        tuple(leaf(cell, path) for path in ("compress.threshold", "compress.pfr", "train.lr")) for cell in found.cells
    }
    assert told == {(0.6, 0.3, 0.1), (0.6, 0.0, 0.2), (0.5, 0.4, 0.2), (0.7, 0.4, 0.2)}


def test_methods_as_an_axis_keep_to_their_own_leaves(tmp_path: Path) -> None:
    base = HEAD.replace("method: stq, threshold: 0.6", "epochs: 5")
    text = (
        "axes: {compress.method: [stq, l1_prune, binary], compress.pfr: [0.2, 0.4], compress.threshold: [0.5, 0.7]}\n"
        "when:\n  compress.pfr: compress.method != 'binary'\n  compress.threshold: compress.method == 'stq'\n"
    )
    found = load(tmp_path, base + text)
    kinds = [type(cell.config.compress) for cell in found.cells]
    assert [kinds.count(kind) for kind in (StqConfig, L1PruneConfig, BinaryConfig)] == [4, 2, 1]
    assert {leaf(cell, "compress.epochs") for cell in found.cells} == {5}


def test_a_base_leaf_of_another_method_is_left_out_where_when_says_so(tmp_path: Path) -> None:
    text = (
        "axes: {compress.method: [stq, l1_prune], compress.threshold: [0.5, 0.7]}\n"
        "when: {compress.threshold: compress.method == 'stq'}\n"
    )
    assert len(load(tmp_path, HEAD + text).cells) == 3
    with pytest.raises(
        SpecError,
        match=r"compress\.threshold: belongs to method stq.*, not to l1_prune .* make it an axis with a `when`",
    ):
        load(tmp_path, HEAD + "axes: {compress.method: [stq, l1_prune]}\n")


def test_whole_sections_as_an_axis_replace_the_base(tmp_path: Path) -> None:
    text = "axes:\n  compress: [null, {method: stq, pfr: 0.2}, {method: binary, epochs: 3}]\n  train.lr: [0.1, 0.2]\n"
    found = load(tmp_path, HEAD + text)
    assert len(found.cells) == 6
    stq = found.cells[2].config.compress
    assert found.cells[0].config.compress is None
    assert isinstance(stq, StqConfig)
    assert (stq.pfr, stq.threshold) == (0.2, 0.7)
    assert values(found.cells[4]) == {"compress": {"method": "binary", "epochs": 3}, "train.lr": 0.1}


def test_excluded_cells_count_for_the_first_expression_that_holds(tmp_path: Path) -> None:
    text = (
        "axes: {compress.pfr: [0, 0.2, 0.4], train.lr: [0.1, 0.2]}\nseeds: 3\n"
        "exclude: [compress.pfr == 0, train.lr == 0.1, seed == 2 and compress.pfr == 0.4, compress.pfr > 0.9]\n"
    )
    found = load(tmp_path, HEAD + text)
    assert [item.count for item in found.excluded] == [6, 6, 1, 0]
    assert found.excluded[0].expression == "compress.pfr == 0"
    assert len(found.cells) == 18 - 13


def test_an_excluded_combination_may_be_impossible(tmp_path: Path) -> None:
    text = "axes: {model.name: [resnet8, vgg_small], model.block: [standard, bn_first]}\n"
    with pytest.raises(SpecError, match="needs residual blocks"):
        load(tmp_path, HEAD + text)
    rule = "exclude: [model.name == 'vgg_small' and model.block == 'bn_first']\n"
    assert len(load(tmp_path, HEAD + text + rule).cells) == 3


def test_expressions_see_defaults_and_absent_leaves(tmp_path: Path) -> None:
    text = (
        "axes: {compress: [null, {method: stq}, {method: binary}]}\n"
        "exclude: ['train.epochs == 30 and compress.pfr == 0.4']\n"
    )
    found = load(tmp_path, HEAD + text)
    assert [type(cell.config.compress) for cell in found.cells] == [type(None), BinaryConfig]


def test_a_default_that_hangs_on_the_method_is_read_per_method(tmp_path: Path) -> None:
    base = HEAD.replace("method: stq, threshold: 0.6", "epochs: 5")
    found = load(tmp_path, base + "axes: {compress.method: [stq, l1_prune]}\nexclude: [compress.threshold == 0.7]\n")
    assert [type(cell.config.compress) for cell in found.cells] == [L1PruneConfig]


def test_configs_that_differ_in_writing_alone_are_one_cell(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + "axes: {compress: [{method: stq}, {method: stq, threshold: 0.7}]}\n")
    assert len(found.cells) == found.collapsed == 1


def test_cells_share_their_sections(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + "axes: {compress.pfr: [0, 0.2, 0.4], train.lr: [0.1, 0.2]}\nseeds: 5\n").cells
    assert len({id(cell.config.compress) for cell in found}) == 3
    assert len({id(cell.config.train) for cell in found}) == 2
    assert len({id(cell.config) for cell in found}) == 6


RANDOM = (
    "axes:\n  train.lr: {loguniform: [1e-3, 1]}\n  compress.pfr: {uniform: [0, 0.9]}\n"
    "  train.epochs: {int_uniform: [1, 3]}\n"
    "  compress.score: [zero_share, mean_abs]\n"
)


def test_random_search_draws_within_its_bounds(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + RANDOM + "search: {name: random, trials: 400, seed: 1}\nseeds: 2\n").cells
    assert len(found) == 800
    assert len({key(cell) for cell in found}) == 400
    rates = [float(str(leaf(cell, "train.lr"))) for cell in found[::2]]
    assert all(1e-3 <= rate <= 1 for rate in rates)
    # Half of a logarithmic axis lies below its geometric mean; 400 draws stay within four standard deviations.
    assert abs(sum(rate < 10**-1.5 for rate in rates) - 200) < 40
    assert {leaf(cell, "train.epochs") for cell in found} == {1, 2, 3}
    assert {leaf(cell, "compress.score") for cell in found} == {"zero_share", "mean_abs"}


def test_more_trials_continue_the_same_draw(tmp_path: Path) -> None:
    for axes in (RANDOM, "axes: {compress.pfr: {range: [0, 0.9, 0.01]}, train.lr: [0.1, 0.2]}\n"):
        few, many = (load(tmp_path, f"{HEAD}{axes}search: {{name: random, trials: {n}}}\n").cells for n in (5, 60))
        assert many[:5] == few
    other = load(tmp_path, f"{HEAD}{RANDOM}search: {{name: random, trials: 5, seed: 1}}\n").cells
    assert not {key(cell) for cell in other} & {key(cell) for cell in many}


def test_random_search_over_lists_reaches_every_cell_once(tmp_path: Path) -> None:
    text = (
        "axes: {compress.pfr: [0, 0.2, 0.4], train.lr: [0.1, 0.2]}\n"
        "zip: {train.epochs: [1, 2], compress.epochs: [3, 4]}\n"
    )
    rules = "exclude: [compress.pfr == 0 and train.lr == 0.1]\n"
    grid = load(tmp_path, HEAD + text + rules)
    drawn = load(tmp_path, HEAD + text + rules + "search: {name: random, trials: 10}\n")
    assert {key(cell) for cell in drawn.cells} == {key(cell) for cell in grid.cells}
    assert drawn.cells != grid.cells
    assert {cell.values for cell in drawn.cells} == {cell.values for cell in grid.cells}
    with pytest.raises(SpecError, match="11 asked, but only 10 different configs can be drawn"):
        load(tmp_path, HEAD + text + rules + "search: {name: random, trials: 11}\n")


def test_random_search_is_the_same_in_another_process(tmp_path: Path) -> None:
    text = HEAD + RANDOM + "search: {name: random, trials: 20, seed: 3}\n"
    here = [cell.values for cell in load(tmp_path, text).cells]
    code = (
        "import json; from orchestrator.spec.load import load_spec; from orchestrator.spec.cells import cells;"
        f"print(json.dumps([c.values for c in cells(load_spec({str(tmp_path / 'study.yaml')!r})).cells]))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_ten_thousand_cells_take_well_under_a_second(tmp_path: Path) -> None:
    text = (
        "axes:\n  train.lr: {range: [0.01, 0.1, 0.01]}\n  compress.pfr: {range: [0, 0.9, 0.1]}\n"
        "  compress.threshold: {range: [0.1, 1, 0.1]}\nseeds: 10\n"
    )
    found = load(tmp_path, HEAD + text).cells
    assert len(found) == 10_000
