"""Experience replay: which images a round trains on."""

import torch
from torch import Tensor


def replay(older: Tensor, newest: Tensor, ratio: float, source: torch.Generator) -> Tensor:
    """The newest images and `ratio` times as many older ones, drawn without replacement, all of them if there are few.

    So a round costs (1 + R) q images however many are labelled. Arguments and result are indices, int64. Reference:
    CLActive (CoLLAs 2022), whose code draws with replacement and so leaves out a third of the new images.
    """
    count = round(min(len(older), ratio * len(newest)))
    drawn = torch.randperm(len(older), generator=source)[:count]
    return torch.cat([older[drawn], newest])
