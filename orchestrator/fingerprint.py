"""What latency depends on of a machine; imports no tensor library."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

VECTOR_UNITS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_vpopcntdq", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
"""Those that decide which code the runtimes choose."""


@cache
def this_machine() -> str:
    """Architecture, CPU model, cores and vector units of this machine.

    Machines of one fingerprint are taken for one. It says nothing of clock governors and host names, which change on a
    machine that stays the same, nor of memory, of which networks of this size need little.
    """
    return describe(platform.machine(), _cpu(), os.cpu_count() or 1)


def describe(architecture: str, cpu: Mapping[str, str], cores: int) -> str:
    """The text of a fingerprint; `cpu` holds one CPU's entries of /proc/cpuinfo."""
    steps = "/".join(cpu[name] for name in ("cpu family", "model", "stepping") if name in cpu)
    model = cpu.get("model name") or cpu.get("CPU part") or platform.processor()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    units = (unit for unit in VECTOR_UNITS if unit in flags)
    parts = (architecture, model, steps, f"{cores} cores", *units)
    return " ".join(part for part in parts if part)


def _cpu() -> dict[str, str]:
    """The entries of the first CPU."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
