"""How far an accuracy on few images may be off."""

import math

# two-sided 95 % point of the normal distribution
Z95 = 1.959963984540054


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of an accuracy, as fractions (low, high).

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = correct/images, n = images (Wilson, JASA 1927).

    Raises:
        ValueError: no images, or `correct` outside [0, images].

    """
    if not 0 <= correct <= images or images == 0:
        msg = f"{correct} correct of {images} images is impossible"
        raise ValueError(msg)
    share, square = correct / images, Z95**2 / images
    centre = share + square / 2
    spread = Z95 * math.sqrt(share * (1 - share) / images + square / (4 * images))
    low, high = (centre - spread) / (1 + square), (centre + spread) / (1 + square)
    return max(0.0, low) if correct else 0.0, min(1.0, high) if correct < images else 1.0
