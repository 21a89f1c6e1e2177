"""`orchestrator submit`: its arguments, and what is checked before anything is sent."""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.arguments import ArgumentGroup, Subparsers, add_study_file, command_parser, count
from orchestrator.errors import RunError

if TYPE_CHECKING:
    from orchestrator.cluster.base import Target
    from orchestrator.cluster.request import Request
    from orchestrator.spec.model import StudySpec

TARGETS = ("ray-job", "slurm", "kuberay")
_ONLY = {
    "address": ("ray-job",), "driver_cpus": ("ray-job",),
    "nodes": ("slurm", "kuberay"), "cpus": ("slurm", "kuberay"), "gpus": ("slurm", "kuberay"),
    "memory": ("slurm", "kuberay"), "time": ("slurm",), "partition": ("slurm",), "account": ("slurm",),
    "sbatch": ("slurm",), "python": ("ray-job", "slurm"), "image": ("kuberay",), "namespace": ("kuberay",),
    "env": ("kuberay",), "secret": ("kuberay",), "volume": ("kuberay",), "queue": ("kuberay",),
    "backoff_limit": ("kuberay",), "ttl": ("kuberay",),
}  # fmt: skip
"""Which target an option is for; the others are for all."""


def add_submit_command(commands: Subparsers) -> None:
    """The command `submit`."""
    submit = command_parser(commands, "submit", _submit, "send a study to a cluster: Ray Jobs, Slurm or Kubernetes")
    add_study_file(submit)
    submit.add_argument("--results", default="results", help="results root, a path or a URI (default: ./results)")
    submit.add_argument("--data-root", default="data", help="folder of data sets, a path or a URI (default: ./data)")
    submit.add_argument("--to", required=True, choices=TARGETS, help="what runs it")
    submit.add_argument(
        "--print", action="store_true", dest="preview", help="show what would be sent, and send nothing"
    )
    submit.add_argument("--no-follow", action="store_true", help="return once it is sent")
    submit.add_argument("--download", action="store_true", help="fetch missing data sets into --data-root there")
    submit.add_argument("--no-latency", action="store_true", help="do not measure what the section latency asks for")
    submit.add_argument("--python", help="interpreter there (ray-job: python; slurm: this one)")
    _add_ray_job(submit.add_argument_group("--to ray-job"))
    _add_machines(submit.add_argument_group("--to slurm and --to kuberay"))
    _add_slurm(submit.add_argument_group("--to slurm"))
    _add_kuberay(submit.add_argument_group("--to kuberay"))


def _add_ray_job(group: ArgumentGroup) -> None:
    group.add_argument("--address", metavar="URL", help="the head's dashboard (default: http://127.0.0.1:8265)")
    group.add_argument(
        "--driver-cpus", type=float, metavar="N", help="CPUs held by the sweep itself (default: 1; 0: on the head)"
    )


def _add_machines(group: ArgumentGroup) -> None:
    group.add_argument("--nodes", type=count, metavar="N", help="machines, or pods with workers (default: 1)")
    group.add_argument("--cpus", "--cpus-per-task", type=count, metavar="N", help="CPUs of each")
    group.add_argument("--gpus", type=int, metavar="N", help="GPUs of each (default: as many as one worker needs)")
    group.add_argument("--memory", metavar="SIZE", help="memory of each, as the target writes it (16G; 16Gi)")


def _add_slurm(group: ArgumentGroup) -> None:
    group.add_argument("--time", metavar="LIMIT", help="time limit, as sbatch takes it (30, 2:00:00, 1-12)")
    group.add_argument("--partition", metavar="NAME", help="partition")
    group.add_argument("--account", metavar="NAME", help="account that is charged")
    group.add_argument(
        "--sbatch", action="append", metavar="KEY[=VALUE]", help="any other option of sbatch; may be repeated"
    )


def _add_kuberay(group: ArgumentGroup) -> None:
    group.add_argument("--image", metavar="NAME", help="image with this project and its Ray (required)")
    group.add_argument("--namespace", metavar="NAME", help="namespace (default: that of the context)")
    group.add_argument("--env", action="append", metavar="NAME=VALUE", help="environment of the pods; no secrets")
    group.add_argument("--secret", action="append", metavar="NAME", help="secret whose keys become environment")
    group.add_argument("--volume", action="append", metavar="CLAIM:PATH", help="volume claim mounted at a path")
    group.add_argument("--queue", metavar="NAME", help="Kueue's local queue; the job waits until it is let in")
    group.add_argument("--backoff-limit", type=int, metavar="N", help="new clusters after a failure (default: 2)")
    group.add_argument("--ttl", type=int, metavar="SECONDS", help="that the cluster stays after the end (default: 60)")


def _submit(options: argparse.Namespace) -> int:
    _refuse_foreign(options)
    spec = _checked(options)
    target = _target(options, spec)
    if options.preview:
        sys.stdout.write(target.preview())
        return 0
    return target.submit(follow=not options.no_follow)


def _refuse_foreign(options: argparse.Namespace) -> None:
    for name, targets in _ONLY.items():
        if getattr(options, name) is not None and options.to not in targets:
            option = f"--{name.replace('_', '-')}"
            raise RunError(
                f"{option} is for --to {' and --to '.join(targets)}, not for --to {options.to}; leave it out"
            )


def _checked(options: argparse.Namespace) -> "StudySpec":
    """The study with every fault told here rather than on a cluster; a folder of images is looked at there."""
    from orchestrator.layout import Layout
    from orchestrator.planning import Site, planner_of
    from orchestrator.spec.cells import data_configs
    from orchestrator.spec.load import load_spec

    spec = load_spec(options.study, options.overrides, allow_code=options.allow_code, elsewhere=True)
    if decided := _decided_auto(options, spec):
        overrides = [*options.overrides, *decided]
        spec = load_spec(options.study, overrides, allow_code=options.allow_code, elsewhere=True)
    if all(data.name != "imagefolder" for data in data_configs(spec)):
        nowhere = Layout(Path("/dev/null"))
        site = Site(nowhere, Path(), Path.cwd() if options.allow_code else None)
        _ = planner_of(spec, site, _say, may_probe=False).plan
    return spec


def _decided_auto(options: argparse.Namespace, spec: "StudySpec") -> list[str]:
    """Overrides in place of `device: auto`, for KubeRay: the sweep runs on the head, whose pod never has a GPU."""
    from orchestrator.spec.demands import decided_auto, written_auto

    section = spec.tree.get("resources")
    if not (written := written_auto(section)):
        return []
    if options.to == "kuberay":
        _say(f"{' and '.join(written)}: auto is decided here, by the GPUs of a pod (--gpus {options.gpus or 0})")
        return decided_auto(section, cuda=bool(options.gpus))
    if options.to == "ray-job":
        _say(
            f"warning: {' and '.join(written)}: auto is decided on the machine that runs the sweep itself; where that "
            "has no GPU and others of the cluster have, write cuda"
        )
    return []


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _target(options: argparse.Namespace, spec: "StudySpec") -> "Target":
    makers = {"ray-job": _ray_job, "slurm": _slurm, "kuberay": _kuberay}
    return makers[options.to](options, spec)


def _request(options: argparse.Namespace, spec: "StudySpec", results: str, data_root: str) -> "Request":
    from orchestrator.cluster.request import Request

    flags = {"--download": options.download, "--no-latency": options.no_latency, "--allow-code": options.allow_code}
    demands = spec.resources.demands
    memory = max((demand.memory for demand in demands if demand.memory is not None), default=None)
    return Request(
        spec.study, spec.text(), results, data_root, max(demand.cpus for demand in demands), _gpus_needed(spec), memory,
        tuple(flag for flag, asked in flags.items() if asked), _own_models(spec),
    )  # fmt: skip


def _own_models(spec: "StudySpec") -> tuple[str, ...]:
    """Every `package.module:function` that a trial of the study may have."""
    from trainables.model_names import is_code

    sections = [spec.base.get("model")]
    names: list[object] = []
    for axis in spec.all_axes:
        values = axis.values if isinstance(axis.values, tuple) else ()
        sections += values if axis.path == "model" else ()
        names += values if axis.path == "model.name" else ()
    names += [section.get("name") for section in sections if isinstance(section, Mapping)]
    return tuple(sorted({name for name in names if isinstance(name, str) and is_code(name)}))


def _ray_job(options: argparse.Namespace, spec: "StudySpec") -> "Target":
    from orchestrator.cluster.places import absolute_here
    from orchestrator.cluster.ray_job import RayJob, RayJobOptions, dashboard_address, is_here

    address = dashboard_address(options.address)
    where = RayJobOptions(
        address, 1.0 if options.driver_cpus is None else options.driver_cpus, options.python or "python",
        Path.cwd() if options.allow_code else None,
    )  # fmt: skip
    if not math.isfinite(where.driver_cpus) or where.driver_cpus < 0:
        raise RunError(f"--driver-cpus {where.driver_cpus:g} must be a number of at least 0")
    results, data_root = options.results, options.data_root
    if is_here(address):
        request = _request(options, spec, absolute_here("--results", results), absolute_here("--data-root", data_root))
    else:
        why = f"the machines of {address} have folders of their own. Name an absolute path that all of them share, or"
        request = _request(options, spec, *_there(options, spec, f"{why} a URI such as s3://bucket/prefix"))
    return RayJob(request, where, _say, _show)


def _slurm(options: argparse.Namespace, spec: "StudySpec") -> "Target":
    from orchestrator.cluster.places import absolute_here
    from orchestrator.cluster.slurm import Slurm, SlurmOptions, sbatch_options

    # A job starts in the folder that it is sent from: Slurm itself takes for granted that machines share it.
    results, data_root = options.results, options.data_root
    request = _request(options, spec, absolute_here("--results", results), absolute_here("--data-root", data_root))
    named = {"time": options.time, "partition": options.partition, "account": options.account, "mem": options.memory}
    more = sbatch_options([*(f"{key}={value}" for key, value in named.items() if value), *(options.sbatch or ())])
    where = SlurmOptions(options.nodes or 1, options.cpus, _gpus(options, spec), options.python or sys.executable, more)
    return Slurm(request, where, _say, _show)


def _kuberay(options: argparse.Namespace, spec: "StudySpec") -> "Target":
    from importlib.metadata import version

    from orchestrator.cluster.kuberay import KubeRay
    from orchestrator.cluster.manifest import KubeRayOptions, environment, refuse_unmounted, volumes

    if options.image is None:
        raise RunError(
            "--to kuberay needs --image NAME: an image with this project and its Ray, as docs/clusters.md builds one"
        )
    mounted = volumes(options.volume or ())
    results, data_root = _there(
        options, spec, "pods have folders of their own. Name an absolute path on a volume, or a URI"
    )
    refuse_unmounted("--results", results, mounted)
    if _needs_files(spec):
        refuse_unmounted("--data-root", data_root, mounted)
    asked = {"backoff_limit": options.backoff_limit, "ttl_s": options.ttl}
    where = KubeRayOptions(
        options.image, version("ray"), options.nodes or 1, options.cpus, _gpus(options, spec), options.memory,
        options.namespace, environment(options.env or ()), tuple(options.secret or ()), mounted, options.queue,
        **{name: value for name, value in asked.items() if value is not None},
    )  # fmt: skip
    return KubeRay(_request(options, spec, results, data_root), where, _say)


def _there(options: argparse.Namespace, spec: "StudySpec", why: str) -> tuple[str, str]:
    """Results root and data root as other machines see them; what no trial reads may be called anything."""
    from orchestrator.cluster.places import absolute_there

    results, data_root = absolute_there("--results", options.results, why), options.data_root
    return results, absolute_there("--data-root", data_root, why) if _needs_files(spec) else data_root


def _needs_files(spec: "StudySpec") -> bool:
    """Whether a trial reads files below the data root: the digits are embedded."""
    from orchestrator.spec.cells import data_configs

    return any(data.name != "digits" for data in data_configs(spec))


def _gpus_needed(spec: "StudySpec") -> float:
    return max(demand.gpus for demand in spec.resources.demands)


def _gpus(options: argparse.Namespace, spec: "StudySpec") -> int:
    """GPUs of a machine: asked for, or enough for one worker.

    Raises:
        RunError: fewer than none, or too few for one worker.

    """
    needed = _gpus_needed(spec)
    if options.gpus is None:
        return math.ceil(needed)
    if options.gpus < needed or options.gpus < 0:
        raise RunError(f"--gpus {options.gpus}: one worker of this study holds {needed:g} (resources.gpus)")
    return options.gpus
