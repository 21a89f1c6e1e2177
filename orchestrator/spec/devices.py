"""Whether this machine has a GPU, without a tensor library."""

import ctypes


def cuda_here() -> bool:
    """Whether the driver shows a GPU to this process; `CUDA_VISIBLE_DEVICES` is heeded."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
