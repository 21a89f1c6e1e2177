"""Whatever is read from files of others is refused with a clear error or taken; nothing else happens.

`uv run python tests/fuzz.py --minutes 10` goes on where this stops.
"""

import pytest
from fuzz_targets import Target, targets

EXAMPLES = {
    "study": 80, "override": 60, "expression": 200, "ledger": 60, "labels": 150, "small files": 80, "table": 60,
    "packed": 50, "exported": 12, "checkpoint": 20, "artifact": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_hostile_files_are_refused_in_words(made: dict[str, Target], name: str) -> None:
    made[name].run(EXAMPLES[name])


def test_every_target_is_run(made: dict[str, Target]) -> None:
    assert made.keys() == EXAMPLES.keys()


def test_a_crash_is_seen(made: dict[str, Target]) -> None:
    def crash(given: object) -> None:
        raise KeyError(given)

    broken = Target("broken", made["expression"].inputs, crash, made["expression"].clear)
    with pytest.raises(KeyError):
        broken.run(3)
