"""Searches that learn: what they ask, what they are told, and that a kill changes nothing."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from formula_runner import FormulaSweep, Metrics, smooth
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.analysis import pareto
from orchestrator.errors import RunError, SpecError
from orchestrator.journal import check_journal
from orchestrator.ledger import Ask, Tell
from orchestrator.spec.load import load_spec
from orchestrator.spec.model import StudySpec
from trainables.keys import Stage

SPACE = """\
# Which ratio, at which learning rate?
study: {study}
base:
  data: {{name: digits}}
  model: {{name: resnet8, width: 4}}
  train: {{epochs: 1}}
  compress: {{method: stq, epochs: 1}}
axes:
  compress.pfr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
  compress.lr: {{loguniform: [0.001, 0.1]}}
seeds: 2
objectives: {{accuracy: max, compression: max}}
search: {search}
"""
TPE = "{name: tpe, trials: 12}"


def study(search: str = TPE, name: str = "s") -> str:
    return SPACE.format(study=name, search=search)


@pytest.fixture
def swept(tmp_path: Path) -> FormulaSweep:
    return FormulaSweep(tmp_path)


def asks(swept: FormulaSweep) -> list[Ask]:
    return [event for event in swept.events() if isinstance(event, Ask)]


def tells(swept: FormulaSweep) -> list[Tell]:
    return [event for event in swept.events() if isinstance(event, Tell)]


def points(swept: FormulaSweep, name: str = "s") -> list[tuple[float, ...]]:
    df = swept.trials(name)
    return [tuple(row) for row in df[["compress.pfr", "compress.lr", "seed"]].to_numpy()]


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3", "qmc"])
def test_so_many_configs_are_asked_for_under_every_seed(swept: FormulaSweep, name: str) -> None:
    swept(study(f"{{name: {name}, trials: 12}}"), smooth)
    df = swept.trials("s")
    assert len(df) == 24
    assert (df.groupby("trial_id").size() == 1).all()
    assert (df.groupby(["compress.pfr", "compress.lr"])["seed"].nunique() == 2).all()
    assert (df["status"] == "complete").all()
    assert df["compress.lr"].between(0.001, 0.1).all()
    assert [ask.number for ask in asks(swept)] == list(range(len(asks(swept))))


@pytest.mark.parametrize("name", ["tpe", "nsga2", "qmc"])
def test_killed_anywhere_it_asks_what_it_would_have_asked(swept: FormulaSweep, tmp_path: Path, name: str) -> None:
    whole = FormulaSweep(tmp_path / "whole")
    whole.folder.mkdir()
    text = study(f"{{name: {name}, trials: 12}}")
    _, stages = whole(text, smooth)
    ran: list[str] = []
    for most in (1, 4, 7, 9, 10**9):
        summary, part = swept(text, smooth, most)
        ran += [stage.key for stage in part]
    assert summary is not None
    assert points(swept) == points(whole)
    assert sorted(ran) == sorted(stage.key for stage in stages), "no stage is run twice"


def test_more_trials_continue_the_same_search(swept: FormulaSweep, tmp_path: Path) -> None:
    swept(study("{name: tpe, trials: 5}"), smooth)
    swept(study("{name: tpe, trials: 12}"), smooth)
    whole = FormulaSweep(tmp_path / "whole")
    whole.folder.mkdir()
    whole(study(), smooth)
    assert points(swept) == points(whole)


def test_choices_rest_on_validation_and_never_on_test_accuracy(swept: FormulaSweep, tmp_path: Path) -> None:
    def other_test(stage: Stage) -> Metrics:
        return {**smooth(stage), "accuracy": 0.1 + 0.001 * stage.seed}

    other = FormulaSweep(tmp_path / "other")
    other.folder.mkdir()
    swept(study(), smooth)
    other(study(), other_test)
    assert points(swept) == points(other)
    told = tells(swept)[0]
    pfr, lr, _ = points(swept)[0]
    accuracy = 0.95 - 0.3 * pfr**2 - 0.02 * np.log(lr / 0.02) ** 2
    assert told.losses == pytest.approx([-accuracy, -10 / (1 - pfr)])


@pytest.mark.parametrize("objective", ["accuracy_drop: min", "dense_accuracy: max"])
def test_an_objective_on_test_images_cannot_guide(swept: FormulaSweep, objective: str) -> None:
    text = study().replace("{accuracy: max, compression: max}", f"{{{objective}, compression: max}}")
    with pytest.raises(SpecError, match="rests on test images"):
        swept(text, smooth)


def test_the_first_grid_comes_first_and_counts(swept: FormulaSweep) -> None:
    swept(study("{name: tpe, trials: 9, first: {compress.lr: [0.01], compress.pfr: [0.1, 0.6]}}"), smooth)
    assert [ask.source for ask in asks(swept)[:3]] == ["first", "first", "sampler"]
    assert [point[:2] for point in points(swept)[:4]] == [(0.1, 0.01)] * 2 + [(0.6, 0.01)] * 2
    assert len(points(swept)) == 18


def test_a_first_grid_must_name_values_of_distributions(swept: FormulaSweep) -> None:
    with pytest.raises(SpecError, match=r"search.first: must give values for compress.lr, which is a distribution"):
        swept(study("{name: tpe, trials: 9, first: grid}"), smooth)


def test_what_the_store_holds_of_the_space_is_told_at_the_start(swept: FormulaSweep) -> None:
    grid = study("{name: grid}", "grid").replace("{loguniform: [0.001, 0.1]}", "[0.5, 0.02]")
    swept(grid, smooth)
    swept(study("{name: tpe, trials: 3}"), smooth)
    warm = [ask for ask in asks(swept) if ask.source == "store"]
    assert sorted(ask.params["compress.pfr"] for ask in warm) == [0, 1, 2, 3, 4, 5], (
        "a learning rate of 0.5 lies outside"
    )
    assert {ask.params["compress.lr"] for ask in warm} == {0.02}
    assert len(swept.trials("s")) == 6, "they are no rows of the study, and do not count"
    told = {tell.number: tell.losses for tell in tells(swept)}
    best = next(ask for ask in warm if ask.params["compress.pfr"] == 0)
    assert told[best.number] == pytest.approx([-(0.95 - 0.3 * 0.01), -10 / 0.9])


@pytest.mark.parametrize("sampled", ["{loguniform: [0.001, 0.1]}", "[0.02, 0.05]"])
def test_a_trial_whose_sampled_leaf_is_at_its_default_is_told_too(swept: FormulaSweep, sampled: str) -> None:
    """A key leaves such a leaf out: the learning rate of a compression is 0.05 where nothing sets it."""
    grid = study("{name: grid}", "grid").replace("{loguniform: [0.001, 0.1]}", "[0.05, 0.02]")
    swept(grid, smooth)
    swept(study("{name: tpe, trials: 1}").replace("{loguniform: [0.001, 0.1]}", sampled), smooth)
    warm = [ask for ask in asks(swept) if ask.source == "store"]
    assert len(warm) == 12
    assert len({tuple(ask.params.items()) for ask in warm}) == 12


def test_steps_of_a_pipeline_are_told_by_their_leaves_too(swept: FormulaSweep) -> None:
    """The penalty of `group_sparsity` is 0.1 where nothing sets it."""
    steps = "{1_first: {method: group_sparsity, epochs: 1}, 2_stq: {method: stq, epochs: 1}}"
    base = study("{name: grid}", "grid").replace("method: stq, epochs: 1", f"method: combine, steps: {steps}")
    base = base.replace("compress.pfr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", "compress.steps.2_stq.pfr: [0.1, 0.2]")
    swept(
        base.replace("compress.lr: {loguniform: [0.001, 0.1]}", "compress.steps.1_first.penalty: [0.1, 0.02]"), smooth
    )
    search = base.replace(
        "compress.lr: {loguniform: [0.001, 0.1]}", "compress.steps.1_first.penalty: {uniform: [0.05, 1]}"
    )
    search = search.replace("2_stq.pfr: [0.1, 0.2]", "2_stq.pfr: {uniform: [0, 0.15]}")
    swept(search.replace("study: grid", "study: s").replace("{name: grid}", "{name: tpe, trials: 1}"), smooth)
    warm = [ask.params for ask in asks(swept) if ask.source == "store"]
    assert [tuple(one.values()) for one in warm] == [(0.1, 0.1)]


def test_a_default_is_that_of_the_method(swept: FormulaSweep) -> None:
    """The penalty is 0.1 for one method and 0.05 for the other where nothing sets it."""
    two = study("{name: grid}", "grid").replace("method: stq, epochs: 1", "epochs: 10")
    two = two.replace("compress.pfr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", "compress.method: [group_sparsity, low_rank]")
    swept(two.replace("compress.lr: {loguniform: [0.001, 0.1]}", "compress.penalty: [0.1, 0.05]"), smooth)
    search = two.replace("compress.lr: {loguniform: [0.001, 0.1]}", "compress.penalty: {uniform: [0.01, 0.2]}")
    swept(search.replace("study: grid", "study: s").replace("{name: grid}", "{name: tpe, trials: 1}"), smooth)
    warm = [ask.params for ask in asks(swept) if ask.source == "store"]
    assert sorted((one["compress.method"], one["compress.penalty"]) for one in warm) == [
        ("group_sparsity", 0.05), ("group_sparsity", 0.1), ("low_rank", 0.05), ("low_rank", 0.1),
    ]  # fmt: skip


def test_a_failed_trial_is_told_as_failed_and_the_search_goes_on(swept: FormulaSweep) -> None:
    def diverging(stage: Stage) -> Metrics | None:
        return None if stage.config.compress and stage.config.compress.lr > 0.02 else smooth(stage)

    summary, _ = swept(study(), diverging)
    assert summary is not None
    assert not summary.interrupted
    failed = swept.trials("s").query("status == 'failed'")
    assert len(failed) > 0
    assert (
        sum(tell.losses is None for tell in tells(swept))
        == failed[["compress.pfr", "compress.lr"]].drop_duplicates().shape[0]
    )
    assert len(tells(swept)) == len(asks(swept))


def test_a_missing_objective_is_told_as_failed(swept: FormulaSweep) -> None:
    swept(study(), lambda stage: {name: value for name, value in smooth(stage).items() if name != "val_accuracy"})
    assert all(tell.losses is None for tell in tells(swept))
    assert len(tells(swept)) == len(asks(swept))


def test_a_bound_draws_the_search_to_what_keeps_it(swept: FormulaSweep, tmp_path: Path) -> None:
    text = "{name: tpe, trials: 60%s}"
    bounded = FormulaSweep(tmp_path / "bounded")
    bounded.folder.mkdir()
    swept(study(text % "").replace("seeds: 2", "seeds: 1"), smooth)
    bounded(study(text % ', where: "accuracy >= 0.9"').replace("seeds: 2", "seeds: 1"), smooth)
    kept = [float((one.trials("s")["val_accuracy"] >= 0.9).mean()) for one in (swept, bounded)]
    assert kept[1] > kept[0] + 0.1
    told = [tell for tell in tells(bounded) if tell.losses is not None]
    assert all(tell.violations[0] == pytest.approx(0.9 + tell.losses[0]) for tell in told if tell.losses)


def test_a_space_that_is_used_up_ends_in_chance_and_then_ends(swept: FormulaSweep) -> None:
    small = study("{name: tpe, trials: 6}").replace("  compress.lr: {loguniform: [0.001, 0.1]}\n", "")
    swept(small, smooth)
    assert sorted(swept.trials("s")["compress.pfr"].unique()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_excluded_points_and_switched_off_axes_are_never_run(swept: FormulaSweep) -> None:
    text = study("{name: tpe, trials: 20}").replace(
        "  compress.pfr:", "  compress.method: [stq, binary]\n  compress.pfr:"
    )
    text += """when: {compress.pfr: "compress.method == 'stq'"}
exclude: ["compress.method == 'stq' and compress.pfr > 0.4"]
"""
    swept(text, smooth)
    df = swept.trials("s")
    assert len(df) == 40
    assert not (df["compress.pfr"] > 0.4).any()
    assert df.loc[df["compress.method"] == "binary", "compress.pfr"].isna().all()


def test_the_journal_holds_the_study_s_own_names_values_and_directions(swept: FormulaSweep, tmp_path: Path) -> None:
    file = tmp_path / "journal.log"
    for _ in range(2):
        swept(study(), smooth, journal=file)
        check_journal(file)
    found = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(file))))
    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MAXIMIZE"]
    assert found.metric_names == ["val_accuracy", "compression"]
    df = swept.trials("s").groupby(["compress.pfr", "compress.lr"])["val_accuracy"].mean()
    assert len(found.trials) == 12
    for trial in found.trials:
        assert trial.values[0] == pytest.approx(df[trial.params["compress.pfr"], trial.params["compress.lr"]])


def test_listed_values_stand_in_the_journal_as_in_the_study(swept: FormulaSweep, tmp_path: Path) -> None:
    two = study("{name: tpe, trials: 6}").replace("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", "[0.5, 0.2]")
    two = two.replace("  compress.lr:", "  compress.scale: [layer, filter]\n  compress.lr:")
    swept(two + "zip: [{data.train_size: [300, 400], train.epochs: [1, 2]}]\n", smooth, journal=tmp_path / "j")
    found = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(tmp_path / "j"))))
    assert {trial.params["compress.pfr"] for trial in found.trials} == {0.5, 0.2}
    assert {trial.params["compress.scale"] for trial in found.trials} == {"layer", "filter"}
    assert {trial.params["data.train_size + train.epochs"] for trial in found.trials} == {"300 1", "400 2"}


def test_a_file_of_another_kind_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is no Optuna journal"):
        check_journal(tmp_path / "notes.txt")
    with pytest.raises(RunError, match="there is no folder"):
        check_journal(tmp_path / "absent" / "j")


def test_a_journal_that_cannot_be_written_is_told_before_the_search() -> None:
    with pytest.raises(RunError, match=r"--optuna-journal /proc/j: cannot be written"):
        check_journal(Path("/proc/j"))  # a folder in which not even root makes files


def test_a_journal_that_cannot_be_written_any_more_takes_no_summary_away(swept: FormulaSweep, tmp_path: Path) -> None:
    summary, _ = swept(study("{name: tpe, trials: 2}"), smooth, journal=tmp_path / "gone" / "j")
    assert summary is not None
    assert not summary.interrupted


def test_how_many_told_configs_are_on_the_front(swept: FormulaSweep) -> None:
    grid = study("{name: grid}", "grid").replace("{loguniform: [0.001, 0.1]}", "[0.02, 0.09]")
    first, _ = swept(grid, smooth)
    assert first is not None
    assert first.warm == (0, 0)
    for _ in range(2):
        summary, _ = swept(study("{name: tpe, trials: 2}"), smooth)
        assert summary is not None
        # At the best learning rate no other can dominate; at the other one all are dominated.
        assert summary.warm == (12, 6)


FAULTS = {
    "{name: tpe}": "search.trials: is required for tpe",
    "{name: tpee, trials: 3}": "'tpee' is not known; did you mean 'tpe'?",
    "{name: grid, where: 'accuracy > 1'}": "is no bound; write a column, >= or <=, and a number",
    "{name: random, trials: 3, where: 'accuracy >= 0.5'}": "has no effect on random",
    "{name: tpe, trials: 3, where: 'acuracy >= 0.5'}": "did you mean 'accuracy'?",
    "{name: tpe, trials: 3, where: 'accuracy >= high'}": "'high' is no number",
    "{name: tpe, trials: 3, where: 'latency_ms <= 3'}": "too late to guide a search",
    "{name: tpe, trials: 3, where: 'compress.pffr <= 3'}": "is no config leaf; did you mean 'compress.pfr'?",
    "{name: tpe, trials: 3, where: 'accuracy >= 90'}": "is a fraction, at most 1, and never '90'; did you mean 0.9?",
    "{name: tpe, trials: 2, first: {compress.lr: [0.01, 0.02], compress.pfr: [0.1, 0.6]}}": (
        "search.first: has 4 configs, and search.trials asks for 2 in all"
    ),
    "{name: qmc, trials: 3, where: 'accuracy >= 0.5'}": "has no effect on qmc",
    "{name: tpe, trials: 3, repeats: adaptive}": "tpe runs every config under all seeds",
    "{name: tpe, trials: 3, first: {compress.ptr: [1]}}": "compress.ptr",
    "{name: tpe, trials: 3, first: {compress.lr: [0.5]}}": "0.5 lies outside the axis, which reaches from 0.001 to 0.1",
    "{name: tpe, trials: 3, first: {compress.pfr: [0.15], compress.lr: [0.01]}}": "0.15 is no value of the axis",
}


@pytest.mark.parametrize("search", FAULTS)
def test_each_fault_of_a_search_is_told(tmp_path: Path, search: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(study(search))
    with pytest.raises(SpecError) as caught:
        load_spec(str(path))
    assert FAULTS[search] in str(caught.value)


def test_adaptive_repeats_spend_seeds_on_what_is_undecided(swept: FormulaSweep) -> None:
    """Two configs that are better in turn, seed by seed, and ten that are beaten by far."""

    def noisy(stage: Stage) -> Metrics:
        pfr = getattr(stage.config.compress, "pfr", 0.0)
        noise = 0.01 * (-1) ** (stage.seed + round(10 * pfr))
        contender = pfr in (0.1, 0.2)
        found = {"val_accuracy": (0.9 if contender else 0.5) + noise, "compression": 20.0 if contender else 9.0}
        return {**smooth(stage), **found}

    ratios = [round(0.05 * n, 2) for n in range(1, 13)]
    text = study("{repeats: adaptive}").replace("{loguniform: [0.001, 0.1]}", "[0.01]").replace("seeds: 2", "seeds: 8")
    text = text.replace("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", str(ratios))
    swept(text, noisy)
    seeds = swept.trials("s").groupby("compress.pfr")["seed"].nunique()
    assert seeds[[0.1, 0.2]].min() > seeds.drop([0.1, 0.2]).max()
    assert seeds.max() <= 8
    again, ran = swept(text, noisy)
    assert again is not None
    assert not ran, "taken up again, it decides the same"
    assert not again.interrupted


def test_a_ledger_keeps_asks_and_tells_in_order(swept: FormulaSweep) -> None:
    swept(study("{name: nsga2, trials: 4}"), smooth)
    kinds = [type(event).__name__ for event in swept.events()]
    assert kinds == ["Ask", "Tell"] * 4
    assert all(dataclasses.is_dataclass(event) for event in swept.events())


def test_with_all_seeds_the_front_of_repeats_is_the_front_of_the_means(swept: FormulaSweep) -> None:
    def noisy(stage: Stage) -> Metrics:
        noise = 0.05 * float(np.random.default_rng([stage.seed, int(stage.key[:6], 16)]).standard_normal())
        return {**smooth(stage), "accuracy": smooth(stage)["accuracy"] + noise}

    text = (
        study("{name: grid}")
        .replace("{loguniform: [0.001, 0.1]}", "[0.01, 0.02, 0.05]")
        .replace("seeds: 2", "seeds: 3")
    )
    swept(text, noisy)
    df = swept.trials("s")
    spec = swept.planner(text).spec
    expected = pareto.front(df, spec.objectives, over="seed")
    found = pareto.front(df, spec.objectives, over="expected", seeds=spec.seeds)
    assert found.attrs["left_out_because"]["gap"] == 0
    leaves = ["compress.pfr", "compress.lr"]
    assert set(map(tuple, found[leaves].to_numpy())) == set(map(tuple, expected[leaves].to_numpy()))


REPEATS = (
    study("{name: grid, repeats: adaptive}")
    .replace("compress.pfr: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]", "compress.pfr: [0.1, 0.2, 0.3]")
    .replace("{loguniform: [0.001, 0.1]}", "[0.01]")
    .replace("seeds: 2", "seeds: [2, 0, 1]")
)


def table_of_repeats(losses: dict[float, dict[int, float | None]]) -> pd.DataFrame:
    """Trials by ratio and seed, seeds ascending; None is a failure."""
    rows = [
        {
            "study": "s", "role": "cell", "baseline": None, "compress.pfr": pfr, "seed": seed, "compression": 1.0,
            "status": "failed" if accuracy is None else "complete", "accuracy": accuracy,
        }
        for pfr, seeds in losses.items()
        for seed, accuracy in sorted(seeds.items())
    ]  # fmt: skip
    return pd.DataFrame(rows)


def of_repeats(losses: dict[float, dict[int, float | None]], spec: StudySpec) -> pd.DataFrame:
    return pareto.front(table_of_repeats(losses), spec.objectives, over="expected", seeds=spec.seeds)


@pytest.mark.parametrize(
    ("last", "front"),
    [
        ({2: 0.70}, 0.3),  # the best under the seed that is unkind to all
        ({2: 0.70, 0: None, 1: 0.1}, 0.3),
        ({2: 0.70, 0: math.inf, 1: 0.1}, 0.3),
        ({2: None, 0: 0.99, 1: 0.99}, 0.2),
        ({2: math.nan, 0: 0.99}, 0.2),
        ({2: 0.61, 0: 0.99}, 0.3),
    ],
)
def test_the_front_of_repeats_takes_seeds_in_the_order_of_the_study(
    swept: FormulaSweep, last: dict[int, float | None], front: float
) -> None:
    spec = swept.planner(REPEATS).spec
    others: dict[float, dict[int, float | None]] = {0.1: {2: 0.60, 0: 0.80, 1: 0.85}, 0.2: {2: 0.65, 0: 0.85, 1: 0.90}}
    found = of_repeats({**others, 0.3: last}, spec)
    assert found["compress.pfr"].tolist() == [front]


def test_the_front_of_repeats_may_have_no_member_and_losses_of_zero(swept: FormulaSweep) -> None:
    spec = swept.planner(REPEATS.replace("accuracy: max", "accuracy: {max: 5%}")).spec
    nobody = of_repeats({0.1: {2: None, 0: 0.5}, 0.2: {0: 0.5}}, spec)
    assert nobody.empty
    assert nobody.attrs["over"] == "expected"
    assert nobody.attrs["left_out_because"] == {"status": 1, "mixed_hosts": 0, "missing": 0, "gap": 2}
    assert of_repeats({0.1: {2: None}}, spec).empty
    found = of_repeats({0.1: {2: 0.0, 0: 0.1}, 0.2: {2: 0.5}, 0.3: {2: 0.3, 0: 0.6}}, spec)
    assert found["compress.pfr"].tolist() == [0.2]


def test_adaptive_repeats_go_on_where_an_objective_is_zero(swept: FormulaSweep) -> None:
    def collapsed(stage: Stage) -> Metrics:
        found = smooth(stage)
        pfr = getattr(stage.config.compress, "pfr", 0.0)
        return {**found, "val_accuracy": 0.0 if pfr == 0.3 else found["val_accuracy"] + 0.001 * stage.seed * pfr}

    summary, _ = swept(REPEATS.replace("accuracy: max", "accuracy: {max: 5%}"), collapsed)
    assert summary is not None
    assert swept.trials("s").groupby("compress.pfr")["seed"].nunique().min() >= 2


def test_adaptive_repeats_end_at_a_seed_that_is_excluded(swept: FormulaSweep) -> None:
    """Under [2, 0, 1] a config may lack its second seed or its first; neither is given a seed out of turn."""

    def noisy(stage: Stage) -> Metrics:
        noise = 0.2 * float(np.random.default_rng([stage.seed, int(stage.key[:6], 16)]).standard_normal())
        return {**smooth(stage), "val_accuracy": 0.5 + noise, "compression": 10.0}

    excluded = 'exclude: ["compress.pfr == 0.1 and seed == 0", "compress.pfr == 0.2 and seed == 2"]\n'
    text = REPEATS.replace("[0.1, 0.2, 0.3]", "[0.1, 0.2, 0.3, 0.4, 0.5]") + excluded
    swept(text, noisy)
    seeds = swept.trials("s").groupby("compress.pfr")["seed"].agg(list)
    assert seeds[0.1] == [2]
    assert seeds[0.2] == [0]
    for pfr in (0.3, 0.4, 0.5):
        assert seeds[pfr] == [2, 0, 1][: len(seeds[pfr])]
        assert len(seeds[pfr]) > 1


def test_baselines_are_run_for_the_front_alone(swept: FormulaSweep) -> None:
    """Each learning rate would have baselines of its own; twelve configs have two each under two seeds."""
    swept(study(), smooth)
    df = pd.read_parquet(swept.folder / "results" / "s")
    cells, baselines = df[df["role"] == "cell"], df[df["role"] == "baseline"]
    front = pareto.front(cells, {"val_accuracy": "max", "compression": "max"}, over="seed")
    assert 0 < len(front) < 12
    assert set(baselines["compress.lr"].dropna()) == set(front["compress.lr"])
    assert cells["accuracy_drop"].notna().sum() == 2 * len(front)
    again, ran = swept(study(), smooth)
    assert again is not None
    assert not ran


def test_bounds_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    for bound in ("nan", "1e999", "-inf"):
        path = tmp_path / "s.yaml"
        path.write_text(study(f"{{name: tpe, trials: 3, where: 'accuracy >= {bound}'}}"))
        with pytest.raises(SpecError, match=r"search.where\[0\]: .* is no number"):
            load_spec(str(path))
