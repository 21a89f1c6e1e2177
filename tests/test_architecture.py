"""Who may import whom, and what a command may load."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED: dict[str, set[str]] = {
    "trainables.model_names": set(),
    "trainables.model_config": {"model_names"},
    "trainables.select_config": {"model_config"},
    "trainables.data_config": {"model_config"},
    "trainables.method_config": {"model_config"},
    "trainables.config": {"data_config", "method_config", "model_config", "select_config"},
    "trainables.errors": set(),
    "trainables.keys": {"config"},
    "trainables.quantize": {"config", "errors"},
    "trainables.training": {"config", "errors", "data", "models"},
    "trainables.data": {"config", "data_config", "errors", "training.randomness"},
    "trainables.sources": {"errors"},
    "trainables.models": {"config", "errors", "model_names", "sources", "quantize", "training.randomness"},
    "trainables.pruning": {"config", "errors", "quantize", "models", "training.proximal"},
    "trainables.methods": {"config", "method_config", "errors", "quantize", "pruning", "data", "models", "training"},
    "trainables.active": {
        "config", "errors", "keys", "quantize", "pruning", "data", "models", "training", "select_config",
    },
    "trainables.export": {"config", "errors", "quantize", "pruning", "data", "models", "training"},
    "trainables.export.facts": {"config"},
    "trainables.export.card": {"export.facts"},
    "trainables.export.bundle": {"errors", "export.facts", "export.card"},
    "trainables.export.loaders": {"errors", "data.pictures", "runtimes.deployed", "sources"},
    "trainables.kernels": {"errors"},
    "trainables.runtimes": {"config", "errors", "quantize", "models", "export", "kernels"},
    "trainables.runtimes.deployed": {"errors", "models.compact", "data.pictures", "export", "runtimes"},
    "trainables.measure": {"config", "errors", "quantize", "pruning", "data", "models", "training", "runtimes"},
    "trainables.stages": {
        "config", "method_config", "errors", "keys", "quantize", "pruning", "data", "models", "training", "methods",
        "active", "export",
        "measure", "runtimes", "sources",
    },
    "trainables.__main__": {
        "config", "data.identify", "errors", "keys", "model_names", "models", "sources", "training", "stages",
    },
    "orchestrator.errors": set(),
    "orchestrator.storage": {"errors"},
    "orchestrator.storage.node_cache": {"trainables.data.whole"},
    "orchestrator.data_root": {"storage", "trainables.config", "trainables.data", "trainables.errors"},
    "orchestrator.analysis": {"errors", "storage"},
    "orchestrator.report": {"errors", "words", "durable", "arguments", "analysis", "spec", "storage"},
    "orchestrator.failures": set(),
    "orchestrator.spec": {
        "errors", "analysis.objectives", "analysis.tables", "trainables.config", "trainables.model_names",
    },
    "orchestrator.spec.rungs": {
        "errors", "analysis.objectives", "analysis.tables", "spec", "trainables.config",
        "trainables.method_config.pruning", "trainables.pruning.ramp",
    },
    "orchestrator.spec.resources": {"failures", "trainables.config", "trainables.keys"},
    "orchestrator.spec.demands": {"errors", "failures", "spec", "trainables.config", "trainables.keys"},
    "orchestrator.spec.schema": {"failures", "spec"},
    "orchestrator.spec.guide": {"analysis.objectives", "analysis.tables", "spec.leaves"},
    "orchestrator.search.sampler": {"spec.model", "spec.space", "spec.yaml_nodes"},
    "orchestrator.search.adaptive": {
        "analysis.dominance", "analysis.objectives", "analysis.rows", "analysis.seed_model",
    },
    "orchestrator.growth": {"errors", "compaction", "ledger", "lines", "plan", "search", "analysis", "spec"},
    "orchestrator.warm": {"growth", "ledger", "plan", "spec", "trainables.config"},
    "orchestrator.sampling": {
        "growth", "ledger", "plan", "search", "warm", "spec", "analysis.dominance", "trainables.config",
    },
    "orchestrator.memory": set(),
    "orchestrator.lines": {"errors", "spec", "trainables.config", "trainables.method_config", "trainables.model_names"},
    "orchestrator.plan": {"errors", "lines", "memory", "spec", "trainables.config", "trainables.keys"},
    "orchestrator.retention": {
        "errors", "durable", "layout", "ledger", "locks", "plan", "planning", "rungs", "runner.base", "shards", "spec",
        "analysis", "storage",
    },
    "orchestrator.sources": {"errors", "trainables.errors", "trainables.sources"},
    "orchestrator.durable": {"storage", "trainables.data.whole"},
    "orchestrator.spool": {"errors", "durable", "storage"},
    "orchestrator.lease": {"errors", "storage"},
    "orchestrator.locks": {"errors", "lease", "storage"},
    "orchestrator.ledger_lines": {"errors"},
    "orchestrator.ledger": {"errors", "failures", "durable", "ledger_lines", "memory", "spool", "storage"},
    "orchestrator.cluster": {"errors", "storage.address", "trainables.errors", "trainables.sources"},
    "orchestrator.cluster.ray_job": {"errors", "cluster", "runner.environment"},
    "orchestrator.artifacts": {"errors", "durable", "storage"},
    "orchestrator.checkpoints": {"artifacts", "durable", "storage", "trainables.stages"},
}  # fmt: skip
"""By longest prefix; names without `trainables` or `orchestrator` are in the importer's own package."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("orchestrator", "trainables"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def rule(module: str) -> set[str] | None:
    matching = [prefix for prefix in ALLOWED if within(module, {prefix})]
    if not matching:
        return None
    prefix = max(matching, key=len)
    package = module.partition(".")[0]
    full = (name if within(name, {"trainables", "orchestrator"}) else f"{package}.{name}" for name in ALLOWED[prefix])
    return {*full, prefix}


def faults(module: str, names: set[str]) -> list[str]:
    ours = {name for name in names if within(name, {"orchestrator", "trainables"}) and name.count(".") > 0}
    wrong = [name for name in ours if module.startswith("trainables") and within(name, {"orchestrator"})]
    allowed = rule(module)
    if allowed is not None:
        # `from a.b import c` gives both a.b and a.b.c: a package on the way to what is allowed may be passed through.
        on_the_way = {name for name in ours if any(one.startswith(name + ".") for one in allowed)}
        wrong += [name for name in ours - on_the_way if not within(name, allowed)]
    return wrong


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_flow_one_way(module: str, path: Path) -> None:
    assert faults(module, imported(path)) == []


def test_the_rule_can_be_broken() -> None:
    assert faults("trainables.models.resnet", {"trainables.methods.base"}) == ["trainables.methods.base"]
    assert faults("trainables.stages.train", {"orchestrator.errors"})
    assert faults("orchestrator.analysis.load", {"orchestrator.plan"}) == ["orchestrator.plan"]


def test_only_one_file_imports_tune_and_only_one_reads_yaml() -> None:
    users = {"ray": set[str](), "ray.tune": set[str](), "ruamel": set[str]()}
    for module, path in modules():
        for library, found in users.items():
            if within_any(imported(path), library):
                found.add(module)
    assert users["ray"] == {
        "orchestrator.runner.ray_host", "orchestrator.runner.forest", "orchestrator.cluster.ray_job",
    }  # fmt: skip
    assert users["ray.tune"] == {"orchestrator.runner.forest"}
    assert users["ruamel"] == {"orchestrator.spec.yaml_nodes", "orchestrator.cluster.manifest"}  # the second writes


def within_any(names: set[str], library: str) -> bool:
    return any(within(name, {library}) for name in names)


def test_only_the_screens_print_and_only_the_commands_exit() -> None:
    printing = {
        "orchestrator.cli",
        "orchestrator.screen",
        "orchestrator.reports",
        "orchestrator.fronts",
        "orchestrator.answers",
        "orchestrator.loggers.follow",
        "orchestrator.methods_command",
        "trainables.__main__",
    }
    for module, path in modules():
        text = path.read_text()
        assert module in printing or "sys.exit" not in text, module
        assert module in printing or not re.search(r"\bprint\(", text), module


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["sweep", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded_by(*arguments) & {"torch", "ray", "pandas", "numpy", "pyarrow", "pydantic", "rich"}


def test_check_and_schema_need_neither_tensors_nor_tables() -> None:
    for arguments in (["check", "smoke.yaml"], ["schema"]):
        assert not loaded_by(*arguments) & {"torch", "ray", "pandas", "pyarrow"}


def test_the_probe_for_loaded_modules_sees_what_is_loaded() -> None:
    assert "pydantic" in loaded_by("schema")


def test_a_plan_loads_no_tensor_library_and_no_ray(tmp_path: Path) -> None:
    assert not loaded_by("plan", "smoke.yaml", "--results", str(tmp_path)) & {"torch", "ray"}
