"""Learning rates as pure functions of the step."""

import math
from collections.abc import Callable

START_DIVISOR = 25
FINAL_DIVISOR = 10_000
PEAK_SHARE = 0.3
WARM_UP_SHARE = 0.05


def onecycle(step: int, steps: int, lr: float) -> float:
    """One cycle of cosine ramps: lr/25 at step 0, lr at 30 % of the way, lr/10,000 at the last step.

    Reference: Smith and Topin, "Super-Convergence", arXiv:1708.07120. Cosine ramps and the start are the common
    choice since fastai; the paper's are linear.

    Args:
        step: from 0 to `steps` - 1.
        steps: of the whole training; at least 1.
        lr: the largest rate.

    """
    done = _share(step, steps)
    if done < PEAK_SHARE:
        return _cosine(lr / START_DIVISOR, lr, done / PEAK_SHARE)
    return _cosine(lr, lr / FINAL_DIVISOR, (done - PEAK_SHARE) / (1 - PEAK_SHARE))


def cosine(step: int, steps: int, lr: float) -> float:
    """Linear warm-up from lr/25 over 5 % of the way, then half a cosine from lr to 0 at the last step.

    Reference: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts. Arguments as for `onecycle`.
    """
    done = _share(step, steps)
    if done < WARM_UP_SHARE:
        start = lr / START_DIVISOR
        return start + (lr - start) * done / WARM_UP_SHARE
    return _cosine(lr, 0.0, (done - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def fast(step: int, steps: int, lr: float) -> float:
    """One cycle for few epochs: lr/20 at step 0, lr at 30 % of the way, lr/200 at the last step, by cosine ramps.

    At lr .2 it is the .01 -> .2 -> .001 of CLActive (CoLLAs 2022). Arguments as for `onecycle`.
    """
    done = _share(step, steps)
    if done < PEAK_SHARE:
        return _cosine(lr / 20, lr, done / PEAK_SHARE)
    return _cosine(lr, lr / 200, (done - PEAK_SHARE) / (1 - PEAK_SHARE))


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {"onecycle": onecycle, "cosine": cosine, "fast": fast}


def _share(step: int, steps: int) -> float:
    return step / max(steps - 1, 1)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
