"""What `submit` sends, and what it refuses, without a cluster."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import TINY, Command, refused
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestrator.cli import main
from orchestrator.cluster import shipment
from orchestrator.cluster.request import Request
from orchestrator.cluster.slurm import Slurm, SlurmOptions
from orchestrator.spec.load import load_spec

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT.parent / "shared" / "kuberay" / "rayjob-v1.schema.json"
POD = ("--image", "registry.example/sweep:1", "--results", "s3://bucket/results")
OWN = """\
import torch

from helpers.blocks import block


def small(channels: int, classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(block(channels), torch.nn.Flatten(), torch.nn.LazyLinear(classes))
"""


@pytest.fixture
def study(command: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(command.folder)
    return command.study().name


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["submit", *words, "--print"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def documents(text: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all(text))


def from_script(text: str) -> str:
    return text.partition("<<'END-OF-STUDY'\n")[2].partition("END-OF-STUDY\n")[0]


def test_each_target_ships_the_study_with_its_overrides(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (study, "--set", "train.epochs=7", "--set", "seeds=[3, 5]")
    expected = load_spec(study, ["train.epochs=7", "seeds=[3, 5]"])
    config_map, _ = documents(printed(capsys, *words, "--to", "kuberay", *POD))
    shipped = {
        "ray-job": printed(capsys, *words, "--to", "ray-job").partition("--- study.yaml\n")[2],
        "slurm": from_script(printed(capsys, *words, "--to", "slurm")),
        "kuberay": config_map["data"]["study.yaml"],
    }
    for target, text in shipped.items():
        path = tmp_path / f"{target}.yaml"
        path.write_text(text)
        found = load_spec(str(path))
        assert (found.tree, found.question) == (expected.tree, expected.question), target


def test_a_submission_to_ray_holds_code_and_study_and_nothing_else(
    study: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (command.folder / "data").mkdir()
    (command.folder / "data" / "images.bin").write_bytes(bytes(1000))
    (command.folder / "results" / "tiny").mkdir(parents=True)
    (command.folder / "results" / "tiny" / "trials.parquet").write_bytes(bytes(1000))
    told = json.loads(printed(capsys, study, "--to", "ray-job").partition("--- study.yaml")[0])
    files = told["runtime_env"]["working_dir"]
    tops = {name.partition("/")[0] for name in files}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"study.yaml", "orchestrator", "trainables"}
    assert not any("__pycache__" in name for name in files)
    assert sum(files.values()) < 5 * 2**20
    assert told["entrypoint_num_cpus"] == 1
    assert f"--results {command.folder / 'results'} " in told["entrypoint"]


def test_what_is_shipped_is_all_that_a_sweep_needs(study: str, command: Command, tmp_path: Path) -> None:
    """In a folder of its own, with the libraries but without this checkout."""
    spec = load_spec(study)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    shipment.write(shipment.shipped(Request(spec.study, spec.text(), "results", "data"), None), folder)
    code = (
        "import os, sys, runpy; ours = sys.argv.pop(1)\n"
        "sys.path = [path for path in sys.path if path != ours]; sys.meta_path = [\n"
        "    finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        "import orchestrator; assert orchestrator.__file__.startswith(os.getcwd())\n"
        "runpy.run_module('orchestrator.cli', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), "sweep", "study.yaml", "--runner", "serial", "--results", "there"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "there" / "tiny" / "trials.parquet").exists()


def test_own_models_travel_with_the_package_that_their_keys_name(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(command.folder)
    package = command.folder / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(OWN)
    (command.folder / "unrelated.py").write_text("secret = 1\n")
    command.study(TINY.replace("resnet8, width: 4", "'mine.nets:small'"))
    words = ("tiny.yaml", "--to", "ray-job")
    told = json.loads(printed(capsys, *words, "--allow-code").partition("--- study.yaml")[0])
    files = told["runtime_env"]["working_dir"]
    assert {name for name in files if name.startswith("mine/")} == {"mine/__init__.py", "mine/nets.py"}
    assert "unrelated.py" not in files
    assert "--allow-code" in told["entrypoint"]
    assert "--allow-code" in refused(capsys, "submit", *words, "--print")


def test_a_shipment_that_is_too_large_names_what_is_large(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shipment, "MOST_BYTES", 2**19)
    told = refused(capsys, "submit", study, "--to", "ray-job", "--print")
    assert "0.5 are sent" not in told
    assert "at most 0 are sent; largest: orchestrator/" in told or "largest: trainables/" in told


def test_the_manifest_keeps_to_the_schema_of_kuberay(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not SCHEMA.exists():
        pytest.skip(f"KubeRay's schema is not at {SCHEMA.name}'s place beside the project")
    more = (
        "--gpus",
        "2",
        "--secret",
        "s3-keys",
        "--env",
        "AWS_REGION=eu",
        "--volume",
        "data:/mnt/data",
        "--queue",
        "lab",
    )
    _, job = documents(printed(capsys, study, "--to", "kuberay", *POD, *more, "--set", "resources.gpus=0.5"))
    schema = json.loads(SCHEMA.read_text())
    _close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(schema).validate(job)
    for path, wrong in {("spec", "backoffLimit"): "2", ("spec", "shutDownAfter"): True}.items():
        broken = json.loads(json.dumps(job))
        broken[path[0]][path[1]] = wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate(broken)


def _close(schema: dict[str, Any]) -> None:
    """Kubernetes drops fields that it does not know, silently: here they are faults."""
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
        for one in schema["properties"].values():
            _close(one)
    if isinstance(schema.get("items"), dict):
        _close(schema["items"])


def test_a_manifest_says_what_the_study_needs(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("--set", "resources.cpus=2", "--set", "resources.gpus=0.5", "--set", "resources.memory=3GiB")
    volume = ("--image", "x", "--volume", "sweeps:/mnt/sweeps", "--results", "/mnt/sweeps/results")
    words = (study, "--to", "kuberay", *volume, "--nodes", "3", "--cpus", "8", *sets, "--secret", "keys")
    config_map, job = documents(printed(capsys, *words))
    spec = job["spec"]
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    # four workers of two CPUs and 3 GiB each, and a GiB for Ray
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "13Gi", "nvidia.com/gpu": "1"}
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert spec["shutdownAfterJobFinishes"] is True
    assert "suspend" not in spec
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (head,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in head["volumeMounts"]}
    assert mounts == {"/etc/orchestrator", "/mnt/sweeps"}
    assert spec["entrypoint"].endswith("--address auto /etc/orchestrator/study.yaml")
    assert config_map["metadata"]["name"] == f"{job['metadata']['name']}-study"


def test_kueue_lets_a_job_in(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, job = documents(printed(capsys, study, "--to", "kuberay", *POD, "--queue", "lab", "--namespace", "team"))
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lab"
    assert job["metadata"]["namespace"] == "team"


def directives(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_a_batch_file_passes_on_what_sbatch_is_told(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--time", "2:00:00", "--partition", "gpu", "--account", "lab", "--cpus-per-task", "8", "--memory", "16G")
    text = printed(capsys, study, "--to", "slurm", *words, "--gpus", "2", "--sbatch", "qos=long", "--sbatch", "hold")
    told = directives(text)
    assert told["time"] == "2:00:00"
    assert (told["partition"], told["account"], told["cpus-per-task"], told["mem"]) == ("gpu", "lab", "8", "16G")
    assert (told["gpus-per-node"], told["qos"], told["hold"]) == ("2", "long", "")
    assert told["signal"] == "B:USR1@120"
    assert "requeue" in told
    assert "exclusive" not in told
    assert "symmetric-run" not in text  # one machine needs none


def test_several_machines_are_taken_whole_and_joined(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, study, "--to", "slurm", "--nodes", "3", "--cpus", "8")
    told = directives(text)
    assert told["nodes"] == "3"
    assert "exclusive" in told
    assert "ray symmetric-run" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_gpu_is_asked_for_where_a_worker_needs_one(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = (study, "--to", "slurm", "--set", "resources.gpus=0.25")
    assert directives(printed(capsys, *words))["gpus-per-node"] == "1"
    assert "gpus-per-node" not in directives(printed(capsys, study, "--to", "slurm"))
    assert "holds 0.25" in refused(capsys, "submit", *words, "--gpus", "0", "--print")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True), st.sampled_from([40, 43, 80]))
def test_any_study_name_is_a_name_for_a_job(study: str, longest: int) -> None:
    name = Request(study, "", "/shared/results", "data").name(longest)
    assert len(name) <= longest
    assert name[0].isalpha()
    assert name[-1].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name != Request(study, "", "/shared/others", "data").name(longest)
    assert name == Request(study, "changed", "/shared/results", "data").name(longest)


def test_device_auto_is_decided_where_it_runs(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = from_script(printed(capsys, study, "--to", "slurm", "--set", "resources.device=auto"))
    assert '"device": "auto"' in text


@pytest.mark.parametrize(("gpus", "device", "each"), [(("--gpus", "2"), "cuda", 1.0), ((), "cpu", 0.0)])
def test_on_kuberay_auto_is_what_the_pods_have(
    study: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, gpus: tuple[str, ...], device: str, each: float
) -> None:
    words = ("submit", study, "--to", "kuberay", *POD, *gpus, "--set", "resources.device=auto", "--print")
    assert main([*words]) == 0
    out, err = capsys.readouterr()
    assert "resources.device: auto is decided here" in err
    config_map, job = documents(out)
    sent = tmp_path / "sent.yaml"
    sent.write_text(config_map["data"]["study.yaml"])
    (demand,) = load_spec(str(sent)).resources.demands
    assert (demand.device, demand.gpus) == (device, each)
    (pods,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = pods["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (gpus[1] if gpus else None)


def test_a_head_may_lack_the_gpus_of_its_cluster(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("submit", study, "--to", "ray-job", "--results", "s3://bucket/results", "--print")
    assert main([*words, "--set", "resources.device=auto"]) == 0
    assert "warning: resources.device: auto is decided on the machine" in capsys.readouterr().err
    assert main([*words, "--set", "resources.device=cuda"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "ray-job", "--address", "http://192.0.2.1:8265"), "is a path within a folder of this machine"),
        (("--to", "ray-job", "--address", "127.0.0.1:6379"), "is no dashboard"),
        (("--to", "ray-job", "--address", "http://me:hidden@head:8265"), "--address: holds credentials"),
        (("--to", "ray-job", "--address", "http://me:hidden@head"), "RAY_AUTH_TOKEN"),
        (("--to", "ray-job", "--address", "https://head/?token=hidden"), "--address: holds credentials"),
        (("--to", "ray-job", "--driver-cpus", "-1"), "must be a number of at least 0"),
        (("--to", "kuberay", "--image", "x", "--results", "shared/results"), "within a folder of this machine"),
        (("--to", "kuberay", "--image", "x", "--results", "/home/me/results"), "lies on no volume"),
        (("--to", "kuberay", "--image", "x", "--results", "/mnt/a-b", "--volume", "c:/mnt/a"), "lies on no volume"),
        (("--to", "kuberay"), "needs --image"),
        (("--to", "kuberay", *POD, "--set", "data.name=mnist"), "--data-root data: is a path within"),
        (("--to", "kuberay", *POD, "--env", "WANDB_API_KEY=abc"), "make it a secret"),
        (("--to", "kuberay", *POD, "--env", "NAME"), "write NAME=VALUE"),
        (("--to", "kuberay", *POD, "--namespace", "My Team"), "names in Kubernetes"),
        (("--to", "kuberay", *POD, "--memory", "lots"), "no quantity"),
        (("--to", "slurm", "--image", "x"), "--image is for --to kuberay"),
        (("--to", "slurm", "--sbatch=-p=gpu"), "without dashes"),
        (("--to", "slurm", "--sbatch", "mail-user=a\n#SBATCH --wrap=x"), "cannot stand in a batch file"),
        (("--to", "slurm", "--sbatch", "job-name=x"), "this command's own"),
        (("--to", "slurm", "--results", "s3://key:hidden@bucket/x"), "holds credentials"),
        (("--to", "slurm", "--results", "s3://bucket/x?session_token=hidden"), "holds credentials"),
        (("--to", "slurm", "--results", "ftp://host/x"), "unknown kind of storage"),
        (("--to", "kuberay", "--image", "x", "--results", "file:///x"), "lies on no volume"),
        (("--to", "slurm", "--set", "train.epoch=3"), "did you mean 'epochs'?"),
        (("--to", "slurm", "--set", "axes.compress.round_to=[1, 2]", "--set", "compress.method=binary"), "tiny.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_before_anything_is(
    study: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    message = refused(capsys, "submit", study, *words, "--print")
    assert told in message
    assert "hidden" not in message


def test_an_unknown_target_is_told_with_the_known_ones(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["submit", study, "--to", "lsf"])
    told = capsys.readouterr().err
    assert all(name in told for name in ("'ray-job'", "'slurm'", "'kuberay'"))


def test_nobody_at_the_address_is_told_at_once(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    from ray_head import free_ports

    (port,) = free_ports(1)
    message = refused(capsys, "submit", study, "--to", "ray-job", "--address", f"http://127.0.0.1:{port}")
    assert "no Ray dashboard answers there" in message


def test_what_is_not_installed_is_told(
    study: str, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(command.folder))
    assert "there is no sbatch here" in refused(capsys, "submit", study, "--to", "slurm")
    assert "there is no kubectl here" in refused(capsys, "submit", study, "--to", "kuberay", *POD)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from orchestrator.cluster import ray_job

    with pytest.raises(ray_job.RunError, match=r'pip install "sweep-orchestrator\[cluster\]"'):
        ray_job._client("http://127.0.0.1:1")  # pyright: ignore[reportPrivateUsage]


KUBECTL = """\
#!{python}
import json, sys, pathlib
here = pathlib.Path(__file__).parent
jobs = here / "jobs.json"
known = json.loads(jobs.read_text()) if jobs.exists() else []
if "get" in sys.argv:
    print(json.dumps({{"items": known}}))
elif "apply" in sys.argv:
    from ruamel.yaml import YAML
    documents = list(YAML(typ="safe", pure=True).load_all(sys.stdin))
    job = documents[-1]
    jobs.write_text(json.dumps([*known, job]))
"""


def test_a_job_that_runs_is_not_sent_twice_and_one_that_ended_has_a_successor(
    study: str, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a stand-in for kubectl that remembers; the order of what is asked is what is tested."""
    scripts = command.folder / "bin"
    scripts.mkdir()
    kubectl = scripts / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{scripts}:{os.environ['PATH']}")
    words = ("submit", study, "--to", "kuberay", *POD)

    def names() -> list[str]:
        return [job["metadata"]["name"].rpartition("-")[2] for job in json.loads((scripts / "jobs.json").read_text())]

    assert main([*words]) == 0
    assert names() == ["1"]
    assert main([*words]) == 0
    assert names() == ["1"]
    assert "runs this study already" in capsys.readouterr().err
    assert "with another plan by rayjob" in refused(capsys, *words, "--set", "train.epochs=9")
    jobs = json.loads((scripts / "jobs.json").read_text())
    jobs[0]["status"] = {"jobDeploymentStatus": "Complete"}
    (scripts / "jobs.json").write_text(json.dumps(jobs))
    assert main([*words]) == 0
    assert names() == ["1", "2"]


def test_a_batch_file_for_results_elsewhere_logs_to_the_working_folder(tmp_path: Path) -> None:
    request = Request("tiny", "study: tiny\n", "s3://bucket/x", "data")
    text = Slurm(request, SlurmOptions(), lambda line: None, lambda text: None).preview()
    assert directives(text)["output"] == f"{Path.cwd()}/{request.name()}-%j.log"


def test_the_commands_in_the_document_print_what_they_would_send(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs" / "clusters.md").read_text(), re.M | re.S)
    lines = [shlex.split(line) for line in block.splitlines()]
    assert [words[words.index("--to") + 1] for words in lines] == ["ray-job", "slurm", "kuberay"]
    for words in lines:
        assert words[:3] == ["uv", "run", "orchestrator"]
        assert main(words[3:]) == 0
        assert "study.yaml" in capsys.readouterr().out
