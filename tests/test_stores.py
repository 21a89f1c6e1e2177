"""Stores of stage outputs and checkpoints: what lies in them, and what is taken out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts import ArtifactStore
from orchestrator.checkpoints import CheckpointStore
from orchestrator.layout import Layout

Store = ArtifactStore | CheckpointStore
STORES: tuple[Callable[[Layout], Store], ...] = (lambda layout: layout.artifacts, lambda layout: layout.checkpoints)


@pytest.mark.parametrize("of", STORES)
def test_what_was_written_is_listed_with_its_size_until_it_is_dropped(
    tmp_path: Path, of: Callable[[Layout], Store]
) -> None:
    store = of(Layout(tmp_path))
    assert list(store.keys()) == []
    sizes = {"a1": 3, "b2": 1, "c3": 100_000}
    for key, size in sizes.items():
        store.write(key, b"x" * size)
    assert {one.key: one.bytes for one in store.keys()} == sizes
    assert all(abs(one.modified_s - store.path(one.key).stat().st_mtime) < 1 for one in store.keys())
    store.drop("c3")
    store.drop("c3")
    assert {one.key for one in store.keys()} == {"a1", "b2"}


def test_a_file_that_is_being_written_is_no_output(tmp_path: Path) -> None:
    store = Layout(tmp_path).artifacts
    store.write("a1", b"whole")
    store.path(".a1.0123456789abcdef").write_bytes(b"part")
    (store.root / "folder").mkdir()
    assert [one.key for one in store.keys()] == ["a1"]
