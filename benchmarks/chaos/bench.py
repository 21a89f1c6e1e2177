"""What all faults share: forked processes, references by study, a folder, one stream of chance."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.points import PointFault
from benchmarks.chaos.reference import Reference
from benchmarks.chaos.scene import LONGEST_S, Scene, reference
from benchmarks.chaos.studies import Study
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.warm import Orders, Warm


class Bench:
    """Makes scenes."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.warm = Warm(folder / "runs")
        self._references: dict[Study, tuple[Reference, Path]] = {}
        self._moments: dict[Study, list[str]] = {}
        self._scenes = itertools.count(1)

    def reference(self, study: Study) -> Reference:
        """What the study gives when nobody touches it; made once."""
        if study not in self._references:
            folder = self.folder / f"reference-{len(self._references)}"
            self._references[study] = reference(self.warm, folder, study), folder
        return self._references[study][0]

    def untouched(self, study: Study) -> Path:
        """The folder in which nobody touched the study."""
        self.reference(study)
        return self._references[study][1]

    def scene(self, study: Study, tally: Tally) -> Scene:
        """A fresh results root."""
        return Scene(self.folder / f"scene-{next(self._scenes)}", study, self.reference(study), self.warm, tally)

    def beside(self, scene: Scene, study: Study) -> Scene:
        """Another study on the same root."""
        scene.alone = scene.counts = False
        return Scene(scene.folder, study, self.reference(study), self.warm, scene.tally, alone=False, counts=False)

    def moments(self, study: Study) -> list[str]:
        """Every moment at which an untouched sweep of a study changes a file, in order.

        Raises:
            RuntimeError: the study cannot be swept.

        """
        if study not in self._moments:
            scene = self.scene(study, Tally("none"))
            run = scene.sweep(Orders(eager_checkpoints=True, point=PointFault("count", 0, str(scene.root))))
            if run.wait(LONGEST_S) != 0:
                run.kill()
                raise RuntimeError(f"{study.name} cannot be swept: {run.output}")
            self._moments[study] = run.noted("point")
            scene.remove()
        return self._moments[study]

    def some(self, moments: Sequence[str], most: int) -> list[str]:
        """All of them, or so many of them by chance, in their order."""
        if most >= len(moments):
            return list(moments)
        return [moments[index] for index in sorted(self.random.sample(range(len(moments)), most))]
