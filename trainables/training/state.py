"""The global state of torch, as every stage expects to find it, and the kind of machine it runs on."""

import platform
from functools import cache
from pathlib import Path

import torch


def reset_state(threads: int) -> None:
    """Undo what earlier work of this process may have left behind; no stage relies on its random state.

    fp32 on a GPU is fp32, not TF32: nothing in a key would tell the two apart.
    """
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@cache
def machine() -> str:
    """The kind of machine: on one kind, at one thread count, results are equal bit for bit."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_cpu_model()}".strip()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name"))
    return next(models, "")
