"""Losses by which a network follows another one."""

from torch import Tensor
from torch.nn import functional as F


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over images; logits (N, classes) to nats.

    T^2 keeps the gradient's size as T varies (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015,
    section 2).
    """
    soft = F.log_softmax(student.float() / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2
