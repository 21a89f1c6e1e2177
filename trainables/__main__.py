"""`python -m trainables CONFIG.json`: one trial without Ray and without a results folder.

CONFIG.json holds a trial's config (`-` reads it from standard input); printed is one JSON object of numbers.
"""

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from trainables.config import Device, TrialConfig, resolve
from trainables.data.identify import Folders
from trainables.errors import InfeasibleError, TrialError
from trainables.model_names import is_code
from trainables.sources import importable, sources_sha256


def main(arguments: list[str] | None = None) -> int:
    """Run one path of stages, or the precision probe; exit code 2 for a user's mistake, 1 for a failed trial."""
    options = _parser().parse_args(arguments)
    try:
        text = sys.stdin.read() if options.config == "-" else Path(options.config).read_text()
        config = TrialConfig.model_validate_json(text)
        _check_writable(options.out)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", 2)
    except UnicodeDecodeError:
        return _complain(f"{options.config}: not text, so no trial's config", 2)
    except ValidationError as error:
        lines = (f"  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return _complain("\n".join((f"{options.config}: not a trial's config", *lines)), 2)
    if fault := _own_code_fault(config, options.allow_code):
        return _complain(f"{options.config}: {fault}", 2)
    try:
        with importable(Path.cwd() if options.allow_code else None):
            named = Folders(options.data_root).identified(_with_sources(config))
            found = _probe(named) if options.probe else _run(named, options)
    except TrialError as error:
        return _complain(str(error), 1)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainables", description="Run one trial.")
    parser.add_argument("config", help="JSON file with the trial's config; - for standard input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the packed network here")
    parser.add_argument(
        "--allow-code", action="store_true", help="import and run a model of your own, package.module:function"
    )
    parser.add_argument("--probe", action="store_true", help="only find out which precision `auto` stands for")
    return parser


def _own_code_fault(config: TrialConfig, allow_code: bool) -> str:
    if config.model.code_sha256 is not None:
        return "model.code_sha256 is found out from the sources; remove it"
    if is_code(config.model.name) and not allow_code:
        return f"model.name {config.model.name} is code of your own; with --allow-code it is imported and run"
    return ""


def _with_sources(config: TrialConfig) -> TrialConfig:
    if not is_code(config.model.name):
        return config
    model = config.model.model_copy(update={"code_sha256": sources_sha256(config.model.name)})
    return config.model_copy(update={"model": model})


def _check_writable(out: Path | None) -> None:
    """Fail before the training rather than after it."""
    if out is not None:
        out.touch()


def _probe(config: TrialConfig) -> dict[str, object]:
    from trainables.training.probe import GAIN_NEEDED, measure

    asked = resolve(config, "fp32")
    try:
        _refuse_images(asked)
    except InfeasibleError:  # the trial itself will say so
        return {"precision": "fp32", "bf16_over_fp32": None}
    ratio = measure(asked)
    return {"precision": "bf16" if ratio >= GAIN_NEEDED else "fp32", "bf16_over_fp32": round(ratio, 3)}


def _refuse_images(config: TrialConfig) -> None:
    from trainables.models.foreign import refuse_images

    facts = config.data.facts()
    if not config.model.ours:
        refuse_images(config.model, facts.channels, facts.classes, config.data.image_size or facts.image_size)


def _resolved(config: TrialConfig, device: Device) -> TrialConfig:
    if config.train.precision != "auto":
        return resolve(config, config.train.precision)
    return resolve(config, "bf16" if device == "cuda" or _probe(config)["precision"] == "bf16" else "fp32")


def _run(config: TrialConfig, options: argparse.Namespace) -> dict[str, object]:
    from trainables.keys import PathFinder
    from trainables.stages import run_stage
    from trainables.stages.datasets import Datasets
    from trainables.training.state import reset_state

    reset_state(options.threads)
    resolved = _resolved(config, options.device)
    datasets, found = Datasets(options.data_root), dict[str, object](precision=resolved.train.precision)
    artifact: bytes | None = None
    for stage in PathFinder(options.device).path(resolved, options.seed):
        outcome = run_stage(stage, datasets.of(stage.config.data, stage.seed), artifact)
        artifact = outcome.artifact
        found |= outcome.metrics
    if options.out and artifact:
        options.out.write_bytes(artifact)
    return found


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
