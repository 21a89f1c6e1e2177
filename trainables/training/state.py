"""The global state of torch, as every stage expects to find it."""

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
