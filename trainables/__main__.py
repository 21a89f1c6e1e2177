"""`python -m trainables CONFIG.json`: one trial without Ray and without a results folder.

CONFIG.json holds a trial's config (`-` reads it from standard input); printed is one JSON object of numbers.
"""

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from trainables.config import Device, TrialConfig, resolve
from trainables.errors import TrialError


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
    try:
        found = _probe(config) if options.probe else _run(config, options)
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
    parser.add_argument("--probe", action="store_true", help="only find out which precision `auto` stands for")
    return parser


def _check_writable(out: Path | None) -> None:
    """Fail before the training rather than after it."""
    if out is not None:
        out.touch()


def _probe(config: TrialConfig) -> dict[str, object]:
    from trainables.training.probe import GAIN_NEEDED, measure

    ratio = measure(resolve(config, "fp32"))
    return {"precision": "bf16" if ratio >= GAIN_NEEDED else "fp32", "bf16_over_fp32": round(ratio, 3)}


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
