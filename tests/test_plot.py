"""Pictures: what they show is what the tables say, and their words cover nothing."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.analysis.bins import SMALLEST, bin_edges, places
from orchestrator.analysis.busy import busy_seconds
from orchestrator.analysis.load import load
from orchestrator.analysis.objectives import Objective, objective_of
from orchestrator.analysis.picture_front import front_picture, staircase
from orchestrator.analysis.picture_front_parts import FrontRequest
from orchestrator.analysis.picture_heatmap import heatmap_picture
from orchestrator.analysis.picture_history import history_picture
from orchestrator.analysis.picture_labels import spread_apart
from orchestrator.analysis.picture_style import scale_of
from orchestrator.analysis.picture_time import time_picture
from orchestrator.analysis.settings import varied_leaves
from orchestrator.cli import main
from orchestrator.errors import TableError

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
PFR, LABELS = REFERENCE / "fashion_mnist_pfr.parquet", REFERENCE / "al_budget.parquet"


@pytest.fixture(scope="module")
def pfr() -> pd.DataFrame:
    return load(PFR)


def front_of(df: pd.DataFrame, x: str = "compression", y: str = "accuracy", **wishes: Any) -> Any:
    return front_picture(df, FrontRequest(objective_of(x), objective_of(y), **wishes))


def words(figure: Any) -> list[Any]:
    """What stands in a picture beside points and lines, and its box in pixels."""
    figure.draw_without_rendering()
    return [text for axes in figure.axes for text in axes.texts if text.get_gid() == "label"]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in words(figure)]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]


def cut_off(figure: Any) -> list[str]:
    """What reaches beyond the picture."""
    outside = [text.get_text() for text in words(figure) if not within(text.get_window_extent(), figure.bbox)]
    tight, size = figure.get_tightbbox(), figure.get_size_inches()
    whole = min(tight.x0, tight.y0) >= -0.01 and tight.x1 <= size[0] + 0.01 and tight.y1 <= size[1] + 0.01
    return outside if whole else [*outside, "axes"]


def within(box: Any, whole: Any) -> bool:
    return whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


# The front


def test_with_means_every_setting_is_a_point_with_its_words() -> None:
    df = load(REFERENCE / "methods.parquet")
    figure = front_of(df, means=True, label=["compress.method"], width_mm=180)
    (axes,) = figure.axes
    points = [len(drawn.get_offsets()) for drawn in axes.collections]
    assert points.count(2) == 1  # the front
    assert points.count(26) == 1
    told = {text.get_text() for text in words(figure)}
    assert {"lkam", "low rank", "ptq group", "hybrid"} <= told
    assert overlapping(figure) == []
    assert "beside it, mean" in {text.get_text() for text in figure.legends[0].get_texts()}
    assert "lkam" not in {text.get_text() for text in words(front_of(df, label=["compress.method"], width_mm=180))}


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True),
    st.sampled_from(["min", "max"]), st.sampled_from(["min", "max"]), st.integers(-5, 35),
)  # fmt: skip
def test_a_staircase_is_the_best_that_somebody_reaches(xs: list[int], x_way: Any, y_way: Any, at: int) -> None:
    xs = sorted(xs)
    trend = 1 if (x_way == "min") == (y_way == "max") else -1  # a better x goes with a worse y
    ys = [trend * value for value in xs]
    line_x, line_y = staircase(np.array(xs, float), np.array(ys, float), Objective("a", x_way))
    sign = 1 if y_way == "max" else -1
    reached = [y for x, y in zip(xs, ys, strict=True) if (x <= at + 0.5 if x_way == "min" else x >= at + 0.5)]
    drawn = [
        y
        for (x0, y), x1 in zip(list(zip(line_x, line_y, strict=True))[:-1], line_x[1:], strict=True)
        if x0 < at + 0.5 < x1
    ]
    for height in drawn:
        assert height == sign * max(sign * y for y in reached)
    assert len(drawn) == (xs[0] < at + 0.5 < xs[-1])


@pytest.mark.parametrize(("x", "factor"), [("compression", 1), ("packed_bytes", 1e-3), ("wall_time_s", 1 / 60)])
def test_the_line_goes_through_the_members_of_the_front(pfr: pd.DataFrame, x: str, factor: float) -> None:
    figure = front_of(pfr, x)
    wanted = pfr.pareto.front([objective_of("accuracy"), objective_of(x)], over="seed").sort_values(x)
    (line,) = (line for line in figure.axes[0].lines if line.get_linewidth() == 0.9)
    xs, ys = np.asarray(line.get_xdata())[::2], np.asarray(line.get_ydata())[::2]
    assert xs == pytest.approx(factor * wanted[x].to_numpy())
    assert ys == pytest.approx(100 * wanted["accuracy"].to_numpy())
    (_, bars) = (
        collection.get_segments() for collection in figure.axes[0].collections if hasattr(collection, "get_segments")
    )
    lengths = sorted(float(segment[1][1] - segment[0][1]) for segment in bars)
    assert lengths == pytest.approx(sorted(200 * wanted["accuracy_std"]))


def test_means_of_a_single_seed_are_marked_where_others_have_several(pfr: pd.DataFrame) -> None:
    assert "of one seed" not in [text.get_text() for text in front_of(pfr).legends[0].get_texts()]
    best = pfr.pareto.front(["accuracy", "compression"], over="seed").iloc[0]
    alone = (pfr["compress.pfr"] == best["compress.pfr"]) & (pfr["role"] == "cell")
    for name in ("model.name", "model.width"):
        alone &= pfr[name] == best[name]
    thinned = pfr.loc[~alone | (pfr["seed"] == 0)]
    assert len(thinned) == len(pfr) - 2
    figure = front_of(thinned)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"front, mean ± s.d. of 1\N{EN DASH}3 seeds", "of one seed"} <= set(told)
    (dots,) = (one for one in figure.axes[0].collections if one.get_zorder() == 5.5)
    expected = thinned.pareto.front(["accuracy", "compression"], over="seed").query("n_seeds == 1")
    assert np.asarray(dots.get_offsets()) == pytest.approx(
        np.column_stack([expected["compression"], 100 * expected["accuracy"]])
    )


@pytest.mark.parametrize("table", sorted(REFERENCE.glob("*.parquet")), ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [85.0, 180.0])
def test_words_of_a_front_cover_nothing_and_are_not_cut_off(table: Path, width: float) -> None:
    df = load(table)
    x = "labels" if "select.strategy" in df.columns else "compression"
    figure = front_of(df, x, width_mm=width)
    assert words(figure)
    assert overlapping(figure) == []
    assert cut_off(figure) == []
    axes = figure.axes[0]
    marks = [drawn.get_offsets() for drawn in axes.collections if getattr(drawn, "get_sizes", list)() == [18]]
    points = axes.transData.transform(np.vstack(marks))
    for text in words(figure):
        box = text.get_window_extent()
        assert not any(box.contains(*point) for point in points), text.get_text()


def test_the_checks_of_words_can_fail(pfr: pd.DataFrame) -> None:
    figure = front_of(pfr)
    one, other = words(figure)[:2]
    other.set_position(one.get_position())
    assert overlapping(figure)
    one.set_position((100, 90))
    assert cut_off(figure)


def test_baselines_are_marked(pfr: pd.DataFrame) -> None:
    told = [text.get_text() for text in words(front_of(pfr))]
    finetuned = pfr[pfr["baseline"] == "dense_finetuned"].groupby(["model.name", "model.width"])["accuracy"].mean()
    values = ", ".join(f"{100 * value:.1f} %" for value in finetuned.sort_values(ascending=False))
    assert f"dense, trained on, {values}" in told
    wide = [text.get_text() for text in words(front_of(pfr, width_mm=180))]
    assert any(f"dense, trained on (resnet20 / 16), {100 * finetuned.max():.1f} %" in text for text in wide)
    assert "one bit, unpruned" in told
    assert "all labels, 98.4 %" in [text.get_text() for text in words(front_of(load(LABELS), "labels"))]


def test_marks_colours_and_labels(pfr: pd.DataFrame) -> None:
    wishes: dict[str, Any] = {"mark": ("model.name", "model.width"), "colour": "latency_ms", "label": ("compress.pfr",)}
    figure = front_of(pfr, "packed_bytes", width_mm=180, **wishes)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-3:] == ["resnet20 / 16", "resnet8 / 16", "resnet8 / 32"]
    assert figure.axes[1].get_ylabel() == "latency (ms)"
    assert {text.get_text() for text in words(figure)} >= {"0", "0.1", "0.19", "0.3", "0.4", "0.5", "0.6"}
    assert overlapping(figure) == []
    assert cut_off(figure) == []


def test_many_trials_are_pixels_in_a_vector_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    df = pd.DataFrame({
        "study": "s", "trial_id": [f"{i}" for i in range(n)], "role": "cell", "baseline": None, "seed": 0,
        "status": "complete", "error": None, "compress.pfr": rng.random(n), "accuracy": rng.random(n),
        "compression": rng.random(n) + 1,
    })  # fmt: skip
    path = tmp_path / "many.svg"
    front_picture(df, FrontRequest(objective_of("compression"), objective_of("accuracy")), path)
    assert b"<image" in path.read_bytes()
    assert path.stat().st_size < 1_000_000


# Placing


@settings(max_examples=200)
@given(st.lists(st.floats(-5, 105), max_size=12), st.floats(0, 20))
def test_heights_spread_apart_keep_their_order_and_their_distance(heights: list[float], gap: float) -> None:
    found = spread_apart(heights, gap, 0, 100)
    room = min(gap, 100 / max(len(heights) - 1, 1))
    ordered = sorted(zip(heights, found, strict=True))
    assert all(-1e-9 <= height <= 100 + 1e-9 for height in found)
    assert all(b - a >= room - 1e-6 for (_, a), (_, b) in itertools.pairwise(ordered))
    inside = [min(max(height, 0), 100) for height in heights]
    if all(b - a >= room for a, b in itertools.pairwise(sorted(inside))):
        assert found == pytest.approx(inside)


def test_neighbours_part_by_as_much_each() -> None:
    assert spread_apart([50, 51], 5, 0, 100) == pytest.approx([48, 53])
    assert spread_apart([0, 1], 5, 0, 100) == pytest.approx([0, 5])


# Axes, units


@pytest.mark.parametrize(
    ("column", "values", "label"),
    [
        ("accuracy", [0.9], "test accuracy (%)"), ("accuracy_drop", [0.01], "accuracy drop (points)"),
        ("packed_bytes", [999], "packed file (bytes)"), ("packed_bytes", [1000], "packed file (kB)"),
        ("wall_time_s", [599], "busy time (s)"), ("wall_time_s", [600, None], "busy time (min)"),
        ("latency_ms", [1], "latency (ms)"), ("macs", [2e6], "multiply-accumulates (millions)"),
        ("compression", [17], "compression (\N{MULTIPLICATION SIGN})"), ("labels", [9], "labelled images"),
        ("compress.pfr", [0.4], "prune factor ratio"), ("model.name", [], "model"),
        ("loss", [2], "training loss (nat)"),
        ("images_per_s", [2], "images (images/s)"),
    ],
)  # fmt: skip
def test_an_axis_has_the_unit_of_the_column_table(column: str, values: Sequence[float], label: str) -> None:
    assert scale_of(column, [np.nan if value is None else value for value in values]).label == label


# Heat map


def test_cells_of_a_heat_map_are_means_over_the_rest(pfr: pd.DataFrame) -> None:
    figure: Any = heatmap_picture(pfr, x="compress.pfr", y="model.name")
    cells = pfr[pfr["role"] == "cell"]
    means = 100 * cells.groupby(["model.name", "compress.pfr"])["accuracy"].mean()
    told = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in figure.axes[0].texts}
    rows = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    columns = [float(tick.get_text()) for tick in figure.axes[0].get_xticklabels()]
    assert len(told) == len(means) == 14
    for (row, column), text in told.items():
        assert text == f"{means[rows[int(row)], columns[int(column)]]:.1f}"
    assert cut_off(figure) == []
    (frame,) = figure.axes[0].patches
    assert (round(frame.get_y() + 0.45), round(frame.get_x() + 0.47)) == (rows.index("resnet20"), 0)


def test_a_setting_with_more_seeds_weighs_no_more_in_a_heat_map(pfr: pd.DataFrame) -> None:
    resnet8 = (pfr["model.name"] == "resnet8") & (pfr["compress.pfr"] == 0.4) & (pfr["role"] == "cell")
    narrow = resnet8 & (pfr["model.width"] == pfr.loc[resnet8, "model.width"].min())
    thinned = pfr[~(narrow & (pfr["seed"] > 0))]
    own = thinned[resnet8.loc[thinned.index]]
    expected = 100 * own.groupby("model.width")["accuracy"].mean().mean()
    assert len(own) == 4
    assert f"{expected:.1f}" != f"{100 * own['accuracy'].mean():.1f}"
    figure: Any = heatmap_picture(thinned, x="compress.pfr", y="model.name")
    row = [tick.get_text() for tick in figure.axes[0].get_yticklabels()].index("resnet8")
    column = [tick.get_text() for tick in figure.axes[0].get_xticklabels()].index("0.4")
    told = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert told[column, row] == f"{expected:.1f}"


def test_an_absent_pair_stays_empty_and_the_counts_are_told(pfr: pd.DataFrame) -> None:
    gone = pfr[~((pfr["compress.pfr"] == 0.6) & (pfr["model.name"] == "resnet20"))]
    figure: Any = heatmap_picture(gone, x="compress.pfr", y="model.name", value="wall_time_s", width_mm=180)
    assert sum(not text.get_text() for text in figure.axes[0].texts) == 1
    assert figure.axes[0].get_title(loc="left") == "busy time (s), means of 3 to 6 trials"


def sampled(values: Sequence[float]) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame({
        "study": "s", "trial_id": [f"{i:03}" for i in range(n)], "role": "cell", "status": "complete", "seed": 0,
        "compress.lr": values, "compress.pfr": [0.1, 0.4] * (n // 2), "accuracy": np.linspace(0.1, 0.9, n),
    })  # fmt: skip


def touching(figure: Any) -> list[tuple[str, str]]:
    """Labels of columns, or of rows, that overlap."""
    figure.draw_without_rendering()
    axes = figure.axes[0]
    pairs = [pair for ticks in (axes.get_xticklabels(), axes.get_yticklabels()) for pair in itertools.pairwise(ticks)]
    boxes = [(a.get_text(), a.get_window_extent(), b.get_text(), b.get_window_extent()) for a, b in pairs]
    return [(a, b) for a, one, b, other in boxes if one.overlaps(other)]


@pytest.mark.parametrize(("n", "width"), [(8, 85.0), (28, 85.0), (28, 180.0), (8, 180.0)])
def test_labels_of_a_sampled_axis_do_not_touch(n: int, width: float) -> None:
    df = sampled((10 ** np.random.default_rng(0).uniform(-5, -1, n)).tolist())
    figure: Any = heatmap_picture(df, x="compress.lr", y="compress.pfr", width_mm=width)
    assert touching(figure) == []
    assert cut_off(figure) == []
    turned: Any = heatmap_picture(df, x="compress.pfr", y="compress.lr", width_mm=width)
    assert touching(turned) == []
    assert cut_off(turned) == []
    figure.axes[0].set_xticks(range(8), ["0.006055123"] * 8, rotation=0, fontsize=20)
    assert touching(figure)


def test_bins_cover_all_rows_and_their_means_are_right() -> None:
    df = sampled(np.geomspace(0.003, 0.3, 28).tolist())
    figure: Any = heatmap_picture(df, x="compress.lr", y="compress.pfr")
    axes = figure.axes[0]
    assert axes.get_title(loc="left").replace("\n", " ") == "test accuracy (%), means of 1 to 2 trials; lr binned"
    ranges = [tuple(map(float, tick.get_text().split("\N{EN DASH}"))) for tick in axes.get_xticklabels()]
    assert len(ranges) == 8
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges))
    counted = 0
    for text in axes.texts:
        column, row = map(int, text.get_position())
        low, high = ranges[column]
        last = df["compress.lr"].eq(high) & (column == len(ranges) - 1)
        inside = (df["compress.lr"].ge(low) & df["compress.lr"].lt(high) | last) & df["compress.pfr"].eq(
            [0.1, 0.4][row]
        )
        counted += inside.sum()
        assert text.get_text() == f"{100 * df.loc[inside, 'accuracy'].mean():.1f}"
    assert counted == len(df)


@settings(max_examples=200)
@example([0.0, 5e-324])
@example([1.0, 5e-324])
@example([-8.0, 5e-324])
@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.6g}")), min_size=2, max_size=30, unique=True))
def test_edges_of_bins_enclose_every_value(values: list[float]) -> None:
    low, high = min(values), max(values)
    edges = bin_edges(low, high)
    assert 2 <= len(edges) <= 9
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= low
    assert high <= edges[-1]
    if low > SMALLEST and high > 20 * low:
        steps = np.diff(np.log(edges))
        assert steps == pytest.approx(np.full(8, np.log(high / low) / 8), abs=0.25)
    else:
        assert np.diff(edges) == pytest.approx(np.full(len(edges) - 1, edges[1] - edges[0]), rel=1e-4)


def test_only_too_many_numbers_are_binned() -> None:
    assert places(pd.Series([0.3, None, 0.1, 0.3]), 2).codes.tolist() == [1, -1, 0, 1]
    assert places(pd.Series([*"abc"]), 2).labels == ["a", "b", "c"]
    assert places(pd.Series([0.123456, 0.123457, 2.0]), 3).labels == ["0.123456", "0.123457", "2"]
    assert places(pd.Series([0.123456, 1234.5, 1000.0]), 3).labels == ["0.123", "1000", "1234.5"]
    binned = places(pd.Series([0.0, 0.1, 0.30000000000000004, 0.8, None]), 3)
    assert binned.labels == [f"{i / 10:g}\N{EN DASH}{(i + 1) / 10:g}" for i in range(8)]
    assert binned.codes.tolist() == [0, 1, 3, 7, -1]


# Where the time went


def forest() -> tuple[pd.DataFrame, pd.DataFrame]:
    """One dense network of 10 s, of which three are compressed in 2 s; each is evaluated in 1 s."""
    keys = {"train": ["t"] * 4, "compress": ["a", "b", "c", None], "evaluate": ["ea", "eb", None, "et"]}
    trials = pd.DataFrame(
        {f"stage_keys.{kind}": keys.get(kind, [None] * 4) for kind in ("select", "train", "compress", "evaluate")}
    )
    rows = [("t", "train", None, 10.0), *((key, "compress", "t", 2.0) for key in "abc")]
    rows += [("ea", "evaluate", "a", 1.0), ("eb", "evaluate", "b", 1.0), ("et", "evaluate", "t", 1.0)]
    return trials, pd.DataFrame(rows, columns=["key", "stage", "parent", "busy_s"])


def test_sharing_saves_what_trials_would_have_repeated() -> None:
    found = busy_seconds(*forest())
    assert {kind: (one.once, one.each) for kind, one in found.items()} == {
        "train": (10, 40), "compress": (6, 6), "evaluate": (3, 3),
    }  # fmt: skip


def test_the_trials_own_columns_say_the_same(pfr: pd.DataFrame) -> None:
    trials, stages = forest()
    known = stages.set_index("key")["busy_s"]
    for kind, column in (("train", "train_s"), ("compress", "compress_s"), ("evaluate", "measure_s")):
        trials[column] = trials[f"stage_keys.{kind}"].map(known)
    assert busy_seconds(trials) == busy_seconds(*forest())
    dense = pfr.drop_duplicates("stage_keys.train")
    assert busy_seconds(pfr)["train"].once == pytest.approx(dense["train_s"].sum())
    assert busy_seconds(pfr)["train"].each == pytest.approx(pfr["train_s"].sum())


def test_rounds_of_selection_are_followed_to_their_beginning() -> None:
    keys = {"select": ["r2", "r1"], "train": ["x", "y"], "compress": None, "evaluate": None}
    trials = pd.DataFrame({f"stage_keys.{kind}": own for kind, own in keys.items()})
    rows = [("r0", "select", None, 5.0), ("r1", "select", "r0", 3.0), ("r2", "select", "r1", 2.0)]
    rows += [("x", "train", "r2", 7.0), ("y", "train", "r1", 7.0)]
    found = busy_seconds(trials, pd.DataFrame(rows, columns=["key", "stage", "parent", "busy_s"]))
    assert (found["select"].once, found["select"].each) == (10, 18)
    with pytest.raises(TableError, match=r"only _stages\.parquet tells; give results/<study>"):
        busy_seconds(trials)


def test_bars_are_the_seconds_and_words_stand_inside() -> None:
    trials, stages = forest()
    figure: Any = time_picture(trials, stages=stages)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [40, 6, 3, 49, 10, 6, 3, 19]
    first = words(figure)[0].get_text().strip()
    assert first == "10.0 s, unshared 40.0 s (4.0\N{MULTIPLICATION SIGN})"
    assert figure.axes[0].get_xlim() == (0, 49)
    bars = [bar.get_window_extent() for bar in figure.axes[0].patches]
    assert not any(text.get_window_extent().overlaps(bar) for text in words(figure) for bar in bars)
    assert cut_off(figure) == []


# Training curves


def trained(settings_: int = 3, seeds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, epochs = list[dict[str, Any]](), list[dict[str, Any]]()
    for seed in range(seeds):
        epochs += [
            {"key": f"t{seed}", "stage": "train", "loss": 1.0 / e, "epoch": e, "val_accuracy": 0.1 * e + 0.01 * seed}
            for e in (1, 2, 3)
        ]
        for i in range(settings_):
            key = f"c{seed}-{i}"
            epochs += [
                {
                    "key": key,
                    "stage": "compress",
                    "loss": 1.0,
                    "epoch": e,
                    "val_accuracy": 0.5 + (i + 10 * e + 2 * seed) / 100,
                }
                for e in (1, 2)
            ]
            rows.append({"study": "s", "trial_id": key, "role": "cell", "status": "complete", "seed": seed,
                         "compress.pfr": i / 10, "stage_keys.train": f"t{seed}", "stage_keys.compress": key,
                         "accuracy": 0.9 - i / 100, "compression": 10.0 + i, "wall_time_s": 5.0 + i,
                         "mixed_hosts": False, "finished_at": pd.Timestamp(1, tz="UTC")})  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(epochs)


def test_histories_go_on_counting_through_compression() -> None:
    df, history = trained()
    objectives = [objective_of("accuracy"), objective_of("compression")]
    figure: Any = history_picture(df, history, objectives=objectives)
    lines = [line for line in figure.axes[0].lines if line.get_gid() != "tie" and line.get_linewidth() == 1.1]
    assert len(lines) == 3
    for i, line in enumerate(lines):
        assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
        mean = [0.105, 0.205, 0.305, 0.61 + 0.01 * i, 0.71 + 0.01 * i]
        assert list(line.get_ydata()) == pytest.approx([100 * value for value in mean])
    assert [text.get_text() for text in words(figure)] == ["compression", "0", "0.1", "0.2"]
    assert overlapping(figure) == []
    assert cut_off(figure) == []


def test_epochs_are_whole_and_a_share_stays_between_nothing_and_all() -> None:
    df, history = trained(seeds=3)
    history["val_accuracy"] = np.where(history["key"].str.endswith("0"), 1.0, 0.0)
    objectives = [objective_of("accuracy"), objective_of("compression")]
    axes: Any = history_picture(df, history, objectives=objectives).axes[0]
    heights = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in axes.collections])
    assert (heights.min(), heights.max()) == (0, 100)
    df["stage_keys.compress"] = None
    few: Any = history_picture(df, history, objectives=objectives)
    assert [tick for tick in few.axes[0].get_xticks() if 1 <= tick <= 3] == [1, 2, 3]
    one: Any = history_picture(df, history.query("epoch == 1"), objectives=objectives)
    assert one.axes[0].get_xlim() == (0.5, 1.5)


def test_of_many_settings_those_on_the_front_are_named() -> None:
    df, history = trained(settings_=20)
    df.loc[df["compress.pfr"] > 1, "accuracy"] = 0.1  # dominated by nothing but worthless: still on the front
    df.loc[df["compress.pfr"] == 0.5, "compression"] = 1.0  # dominated
    figure: Any = history_picture(df, history, objectives=[objective_of("accuracy"), objective_of("compression")])
    told = [text.get_text() for text in words(figure)]
    assert len(told) == 7
    assert "0.5" not in told
    assert {"0", "1.9"} <= set(told)
    assert "14 not on the front" in figure.axes[0].get_title(loc="left").replace("\n", " ")
    assert cut_off(figure) == []


# Files


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_equal_tables_give_equal_files_whatever_the_users_style(pfr: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    import matplotlib as mpl

    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    asked = FrontRequest(objective_of("compression"), objective_of("accuracy"))
    front_picture(pfr, asked, one)
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9, "pdf.fonttype": 3, "svg.hashsalt": None}):
        front_picture(pfr.sample(frac=1, random_state=1), asked, other)
        assert mpl.rcParams["font.size"] == 20
    assert one.read_bytes() == other.read_bytes()
    if suffix == "pdf":
        assert b"/FontFile2" in one.read_bytes()
        assert b"/Type3" not in one.read_bytes()
    if suffix == "svg":
        assert f'width="{85 / 25.4 * 72:.6f}'[:12] in one.read_text()


def test_no_global_state_of_pyplot_is_used(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.cli import main\n"
        f"assert main(['plot', {str(PFR)!r}, '--kind', 'front', '--out', {str(tmp_path / 'a.svg')!r}]) == 0\n"
        "print(*{'matplotlib.pyplot', 'torch', 'ray'} & set(sys.modules), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[1:] == [""]


# The command


@pytest.mark.parametrize("words_", [["front"], ["heatmap"], ["curves"], ["time", "--width", "180"]])
def test_every_kind_of_a_study_that_was_run(
    command_study: Path, tmp_path: Path, words_: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    assert main(["plot", str(command_study), "--kind", *words_, "--out", str(out)]) == 0
    assert out.stat().st_size > 5000
    assert capsys.readouterr().out.startswith(f"{out}: {words_[0]} of ")


@pytest.fixture(scope="module")
def command_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a sweep leaves it."""
    folder = tmp_path_factory.mktemp("plot") / "s"
    folder.mkdir()
    df, history = trained()
    stages = pd.DataFrame({"key": history["key"].unique(), "stage": "train", "parent": None, "busy_s": 1.0})
    stages = stages.assign(
        status="complete",
        run="r",
        host="h",
        pid=1,
        attempt=1,
        started_at=pd.Timestamp(0, tz="UTC"),
        finished_at=pd.Timestamp(1, tz="UTC"),
    )
    df = df.assign(
        baseline=None, error=None, **{"stage_keys.select": None, "stage_keys.evaluate": None, "compress.threshold": 0.5}
    )
    other = df.assign(**{"compress.threshold": 0.7}, trial_id=df["trial_id"] + "x")
    pd.concat([df, other]).to_parquet(folder / "trials.parquet")
    history.to_parquet(folder / "_history.parquet")
    stages.to_parquet(folder / "_stages.parquet")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "front", "--x", "acuracy"], "objective acuracy: unknown column; did you mean 'accuracy'?"),
        (["--kind", "front", "--x", "accuracy", "--y", "accuracy"], "plot: x and y are both accuracy; a front needs"),
        (["--kind", "front", "--x", "seed"], "objective seed: this column has no better direction"),
        (["--kind", "front", "--colour", "latency"], "no column 'latency'; did you mean 'latency_"),
        (["--kind", "front", "--mark", "compress.pfr"], "7 marks cannot be told apart, at most 6"),
        (["--kind", "heatmap", "--x", "compress.prf"], "no column 'compress.prf'; did you mean 'compress.pfr'?"),
        (["--kind", "heatmap", "--value", "compress.pfr"], "compress.pfr is a setting, which a heat map takes as x or"),
        (["--kind", "heatmap", "--value", "labels"], "plot: no complete cell has a labels yet; there is nothing"),
        (["--kind", "heatmap", "--mark", "seed"], "plot: --mark belongs to --kind front; leave it out of heatmap"),
        (["--kind", "time", "--x", "seed"], "plot: --x belongs to --kind front, curves, heatmap; leave it out of time"),
        (["--kind", "curves"], "curves of training need _history.parquet: a single file has none; give results/<"),
        (["--kind", "curves", "--x", "labels"], "the study selects no images, so its curves run along epoch alone"),
        (["--kind", "front", "--width", "8"], "plot: a width of 8 mm; valid are 40 to 1000 (a column has 85)"),
        (["--kind", "front", "--out", "a.jpeg"], "plot: a.jpeg: the suffix says the format; valid are .svg, .png,"),
        (["--kind", "front", "--out", "no/such/a.png"], "no/such/a.png: the figure cannot be written: No such file"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "a.png"]
    assert main(["plot", str(PFR), *arguments, *out]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_tables_that_are_none_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(PFR.read_bytes()[:5000])
    shutil.copy(PFR, tmp_path / "none.parquet")
    load(PFR).assign(status=None).to_parquet(tmp_path / "none.parquet")
    wishes = ["--kind", "front", "--x", "compression", "--y", "accuracy", "--out", str(tmp_path / "a.png")]
    told = {"cut": "is it truncated", "none": "no complete trial has both", "absent": "no such folder"}
    for name, message in told.items():
        assert main(["plot", str(tmp_path / f"{name}.parquet"), *wishes]) == 2
        assert message in capsys.readouterr().err


def test_leaves_that_tell_rows_apart(pfr: pd.DataFrame) -> None:
    cells = pfr[pfr["role"] == "cell"]
    assert varied_leaves(cells) == ["compress.pfr", "model.name", "model.width"]
    alike = pd.DataFrame({"a": [1, 2], "train.lr": [0.1, 0.1], "select.replay_ratio": [None, 1.0]})
    assert varied_leaves(alike) == ["select.replay_ratio"]
    effects = pd.DataFrame({"compress.pfr": [0.0, 0.4], "compress.ramp_share": [None, 0.5]})
    assert varied_leaves(effects) == ["compress.pfr"]


# The document


def test_the_commands_of_the_document_work(
    command_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is run, but for the loggers that tests/test_loggers.py runs."""
    root = REFERENCE.parent.parent
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(REFERENCE)
    shutil.copytree(command_study, tmp_path / "results" / "pfr_grid")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```console\n(.*?)^```", (root / "docs" / "plots.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    lines = [line.removeprefix("uv run orchestrator ") for block in blocks for line in block.splitlines()]
    assert len(lines) == 14
    for line in lines:
        if "mlflow" in line or "wandb" in line:
            continue
        assert main(shlex.split(line)) == 0, line
    assert len(list(tmp_path.glob("*.*"))) == 8
