"""What is sent to a cluster: a study that was read and checked here, and what its sweep is told there."""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass

from orchestrator.cluster.places import is_uri


@dataclass(frozen=True, slots=True)
class Request:
    """One study on its way to a cluster.

    `text` is the study as it runs, overrides included. `results` and `data_root` are absolute paths or URIs. `cpus`,
    `gpus` and `memory` (bytes; None: nobody said) are what one worker holds at most. `flags` go to the sweep as they
    stand. `models` are the names of own models.
    """

    study: str
    text: str
    results: str
    data_root: str
    cpus: int = 1
    gpus: float = 0.0
    memory: int | None = None
    flags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names what would be run: two requests of equal digest do the same work."""
        parts = [self.text, self.results, self.data_root, self.flags]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def name(self, longest: int = 80) -> str:
        """Names this study in this results root, whatever it asks: lower-case letters, digits and `-`, a letter first.

        A job of this name that runs is followed rather than started twice.
        """
        unique = hashlib.sha256(json.dumps([self.study, self.results]).encode()).hexdigest()[:8]
        readable = re.sub(r"[^a-z0-9]+", "-", self.study.lower())
        readable = readable if readable[:1].isalpha() else f"s-{readable}"
        return f"{readable[: longest - len(unique) - 1].strip('-')}-{unique}"

    def sweep(self, python: str, *more: str) -> tuple[str, ...]:
        """The words of the sweep but for the study itself, which comes last."""
        places = ("--results", self.results, "--data-root", self.data_root)
        return (python, "-m", "orchestrator.cli", "sweep", *places, *more, *self.flags)

    @property
    def results_folder(self) -> str | None:
        """The results root where it is a folder; None where it is a URI."""
        return None if is_uri(self.results) else self.results


def shell(words: tuple[str, ...]) -> str:
    """Words as one line that a shell takes apart into the same words."""
    return shlex.join(words)
