"""Losses by which a network follows another one: its logits, or the outputs of its layers.

`HINT_LOSSES` are those of layers' outputs, student's and teacher's, (N, ...) each, N the images of a step. They are
computed in fp32, and each is a mean over the images.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.errors import InfeasibleError


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over images; logits (N, classes) to nats.

    T^2 keeps the gradient's size as T varies (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015,
    section 2).
    """
    soft = F.log_softmax(student.float() / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean (f_s - f_t)^2 over all values; equal shapes.

    Reference: Romero et al., "FitNets", ICLR 2015, equation 3, without its regressor between unequal widths.
    """
    return F.mse_loss(student.float(), teacher.float())


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||q_s - q_t||^2, mean over images, q = Q / ||Q||, Q = sum over channels of f^2 at each place.

    Shapes (N, C_s, H, W) and (N, C_t, H, W); a map of zeros stays one. Reference: Zagoruyko and Komodakis, "Paying More
    Attention to Attention", ICLR 2017, equation 2, squared as in its code.
    """
    maps = (F.normalize(f.float().square().sum(1).flatten(1), dim=1) for f in (student, teacher))
    first, second = maps
    return (first - second).square().sum(1).mean()


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||G_s - G_t||_F^2 / N^2, G the Gram matrix F F^T of the images, F (N, values), each row scaled to length 1.

    It compares how alike the network finds each two images of a step, so that any shapes of N images will do.
    Reference: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 2 to 4.
    """
    with torch.autocast(student.device.type, enabled=False):  # which would multiply in bf16
        rows = (f.float().flatten(1) for f in (student, teacher))
        first, second = (F.normalize(f @ f.T, dim=1) for f in rows)
        return (first - second).square().mean()


HINT_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "features": feature_loss,
    "attention": attention_loss,
    "relational": relational_loss,
}


def hint_loss(kind: str, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss `kind` of `HINT_LOSSES` between what `layer` gives in the two networks, a scalar.

    Raises:
        InfeasibleError: the two outputs cannot be compared so.

    """
    ours, theirs = tuple(student.shape[1:]), tuple(teacher.shape[1:])
    fault = ""
    if kind == "features" and ours != theirs:
        fault = "features need equal shapes"
    elif kind == "attention" and (len(ours) != 3 or len(theirs) != 3 or ours[1:] != theirs[1:]):
        fault = "attention needs images (C, H, W) of one size"
    if fault:
        others = "relational" if kind == "attention" else "attention and relational"
        msg = (
            f"layer {layer} gives {list(ours)} an image and the teacher's {list(theirs)}: {fault}; take {others} "
            "(compress.distill_losses) or other layers (compress.distill_layers)"
        )
        raise InfeasibleError(msg)
    return HINT_LOSSES[kind](student, teacher)


def refuse_other_classes(student: Tensor, teacher: Tensor) -> None:
    """Make sure that logits, (N, classes) each, are of as many classes.

    Raises:
        InfeasibleError: they are not.

    """
    if student.shape[1:] != teacher.shape[1:]:
        msg = f"the teacher tells {teacher.shape[-1]} classes apart and the student {student.shape[-1]}"
        raise InfeasibleError(f"{msg}: its logits say nothing of the student's; take a teacher of the same classes")
