"""Small studies on digits: seconds of work, and every kind of stage."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Study:
    """A study file, what lies beside it, and what a command that reads it must be given."""

    name: str
    text: str
    files: tuple[Path, ...] = ()
    words: tuple[str, ...] = ()


def pfr_study(name: str = "kills", *, epochs: int = 2, pfrs: str = "[0, 0.5]", seeds: int = 2) -> Study:
    """A grid over the prune factor ratio with its baselines: per seed 1 train, 3 compress and 4 evaluate stages."""
    return Study(
        name,
        f"""\
study: {name}
base:
  data: {{name: digits, train_size: 200}}
  model: {{name: resnet8, width: 4}}
  train: {{epochs: {epochs}, batch_size: 32}}
  compress: {{method: stq, epochs: {epochs}}}
axes:
  compress.pfr: {pfrs}
seeds: {seeds}
objectives: {{accuracy: max, compression: max}}
""",
    )


def one_cell(name: str = "points") -> Study:
    """The smallest study that still has a parent, baselines and checkpoints."""
    return pfr_study(name, pfrs="[0.5]", seeds=1)


def search_study(name: str = "search") -> Study:
    """A search that learns from each finished trial: its questions and answers lie in the ledger too."""
    text = pfr_study(name, epochs=1, seeds=1).text
    text = text.replace("[0, 0.5]", "{uniform: [0, 0.6]}").replace("epochs: 1, batch_size", "epochs: 2, batch_size")
    return Study(name, text + "search: {name: tpe, trials: 8, seed: 3}\n")


def labelling_study(name: str = "labels") -> Study:
    """Rounds of labelling, each of which continues the one before."""
    return Study(
        name,
        f"""\
study: {name}
base:
  data: {{name: digits, train_size: 300}}
  model: {{name: resnet8, width: 4}}
  train: {{epochs: 1, batch_size: 32}}
  select: {{strategy: margin, initial: 40, query_sizes: [40], proxy: resnet8, proxy_width: 4, epochs: 1}}
axes:
  select.budget: [80, 160]
seeds: 1
objectives: {{accuracy: max, labels: min}}
""",
    )
