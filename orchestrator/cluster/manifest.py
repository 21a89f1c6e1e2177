"""The manifest of a RayJob: what KubeRay's operator makes a Ray cluster of, which ends with the sweep."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from orchestrator.cluster.places import is_uri
from orchestrator.cluster.request import Request, shell
from orchestrator.errors import RunError

STUDY_FOLDER = "/etc/orchestrator"
LONGEST_NAME = 47  # KubeRay makes longer names of it
MOST_BYTES = 900 * 1024  # of a ConfigMap
LABEL = "app.kubernetes.io/instance"
DIGEST = "sweep-orchestrator/digest"
WORKERS_A_POD = 4
WORKER_GIB = 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?([KMGT]i?)?")
_SECRET = re.compile(r"secret|token|password|passwd|credential|access_?key|api_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KubeRayOptions:
    """Pods and what they are given; `volumes` are claims by the path they are mounted at."""

    image: str
    ray_version: str
    nodes: int = 1
    cpus: int | None = None
    gpus: int = 0
    memory: str | None = None
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict[str, str])
    queue: str | None = None
    backoff_limit: int = 2
    ttl_s: int = 60

    def __post_init__(self) -> None:
        """Refuse what Kubernetes would refuse.

        Raises:
            RunError: the names, sizes and counts that it would.

        """
        named = [
            ("--namespace", self.namespace),
            ("--queue", self.queue),
            *(("--secret", name) for name in self.secrets),
        ]
        named += [("--volume", claim) for claim in self.volumes.values()]
        for option, name in named:
            if name is not None and not _OBJECT.fullmatch(name):
                raise RunError(
                    f"{option} {name!r}: names in Kubernetes are of a-z 0-9 - . and begin and end with a-z 0-9"
                )
        if self.memory is not None and not _QUANTITY.fullmatch(self.memory):
            raise RunError(f"--memory {self.memory}: is no quantity of Kubernetes such as 16Gi")
        if self.backoff_limit < 0 or self.ttl_s < 0:
            raise RunError("--backoff-limit and --ttl must be at least 0")
        if not self.image or re.search(r"\s", self.image):
            raise RunError(f"--image {self.image!r}: is no name of an image")


def environment(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` of the pods.

    Raises:
        RunError: one is none, or its name says that its value is a secret.

    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not _NAME.fullmatch(name):
            raise RunError(f"--env {name}: write NAME=VALUE")
        if _SECRET.search(name):
            raise RunError(
                f"--env {name}: a secret in a manifest can be read by others; make it a secret of Kubernetes (kubectl "
                "create secret generic NAME --from-literal=...) and name that with --secret NAME"
            )
        found[name] = value
    return found


def volumes(texts: Sequence[str]) -> dict[str, str]:
    """`CLAIM:PATH` as claims by path.

    Raises:
        RunError: one is none.

    """
    found: dict[str, str] = {}
    for text in texts:
        claim, sign, path = text.partition(":")
        if not sign or not claim or not re.fullmatch(r"/[^\s:]+", path):
            raise RunError(f"--volume {text}: write CLAIM:/PATH, a persistent volume claim and where it is mounted")
        found[path.rstrip("/")] = claim
    return found


def refuse_unmounted(option: str, place: str, mounted: Mapping[str, str]) -> None:
    """A pod's own disk goes with the pod.

    Raises:
        RunError: the place is neither a URI nor below a mounted volume.

    """
    if not is_uri(place) and not any(f"{place}/".startswith(f"{path}/") for path in mounted):
        raise RunError(
            f"{option} {place}: lies on no volume, and a pod's own disk goes with the pod. Mount one that all pods may "
            "write to (--volume CLAIM:/PATH), or name a URI such as s3://bucket/prefix"
        )


def label(request: Request) -> str:
    """What the attempts of a study have in common, and their names begin with."""
    return request.name(LONGEST_NAME - len("-999"))


class Manifest:
    """The documents of one attempt: the study as a ConfigMap, and the job."""

    def __init__(self, request: Request, options: KubeRayOptions, attempt: int) -> None:
        if len(request.text.encode()) > MOST_BYTES:
            raise RunError(f"the study has {len(request.text.encode()):,} bytes and at most {MOST_BYTES:,} are sent")
        self._request = request
        self._options = options
        self._label = label(request)
        self.name = f"{self._label}-{attempt}"

    def text(self) -> str:
        """The documents as YAML."""
        yaml = YAML()
        yaml.default_flow_style = False
        yaml.width = 10_000
        stream = io.StringIO()
        yaml.dump_all([self._study(), self._job()], stream)
        return stream.getvalue()

    def _meta(self, name: str) -> dict[str, Any]:
        options = self._options
        labels = {LABEL: self._label, "app.kubernetes.io/name": "sweep-orchestrator"}
        return {
            "name": name,
            **({"namespace": options.namespace} if options.namespace else {}),
            "labels": labels,
            "annotations": {"sweep-orchestrator/study": self._request.study, DIGEST: self._request.digest},
        }

    def _study(self) -> dict[str, Any]:
        data = {"study.yaml": LiteralScalarString(self._request.text)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._meta(f"{self.name}-study"), "data": data}

    def _job(self) -> dict[str, Any]:
        options, meta = self._options, self._meta(self.name)
        if options.queue:
            meta["labels"]["kueue.x-k8s.io/queue-name"] = options.queue
        words = (*self._request.sweep("python", "--address", "auto"), f"{STUDY_FOLDER}/study.yaml")
        return {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": meta,
            "spec": {
                "entrypoint": shell(words),
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": options.ttl_s,
                "backoffLimit": options.backoff_limit,
                **({"suspend": True} if options.queue else {}),
                "rayClusterSpec": {
                    "rayVersion": options.ray_version,
                    "headGroupSpec": self._head(),
                    "workerGroupSpecs": [self._workers()],
                },
            },
        }

    def _head(self) -> dict[str, Any]:
        """The sweep itself runs here and no stage does."""
        return {"rayStartParams": {"num-cpus": "0"}, "template": self._pod("head", {"cpu": "1", "memory": "4Gi"})}

    def _workers(self) -> dict[str, Any]:
        options, request = self._options, self._request
        cpus = options.cpus or WORKERS_A_POD * request.cpus
        room = max(1, cpus // request.cpus)
        size = {"cpu": str(cpus), "memory": options.memory or f"{self._worker_gib() * room + 1}Gi"}
        if options.gpus:
            size["nvidia.com/gpu"] = str(options.gpus)
        return {
            "groupName": "workers",
            "replicas": options.nodes,
            "minReplicas": options.nodes,
            "maxReplicas": options.nodes,
            "rayStartParams": {},
            "template": self._pod("worker", size),
        }

    def _worker_gib(self) -> int:
        memory = self._request.memory
        return WORKER_GIB if memory is None else -(-memory // 2**30)

    def _pod(self, name: str, size: Mapping[str, str]) -> dict[str, Any]:
        options = self._options
        study = {"name": "study", "configMap": {"name": f"{self.name}-study"}}
        mounted = [
            ({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}}, path)
            for number, (path, claim) in enumerate(options.volumes.items())
        ]
        container: dict[str, Any] = {
            "name": f"ray-{name}",
            "image": options.image,
            "resources": {"requests": dict(size), "limits": dict(size)},
            "volumeMounts": [
                {"name": "study", "mountPath": STUDY_FOLDER, "readOnly": True},
                *({"name": volume["name"], "mountPath": path} for volume, path in mounted),
            ],
        }
        if options.environment:
            container["env"] = [{"name": key, "value": value} for key, value in options.environment.items()]
        if options.secrets:
            container["envFrom"] = [{"secretRef": {"name": secret}} for secret in options.secrets]
        return {"spec": {"containers": [container], "volumes": [study, *(volume for volume, _ in mounted)]}}
