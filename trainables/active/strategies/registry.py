"""Which config selects which query strategy."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from trainables import select_config
from trainables.active.pool import Strategy
from trainables.active.strategies.badge import badge
from trainables.active.strategies.bald import Bald
from trainables.active.strategies.entropy import entropy
from trainables.active.strategies.forgetting import forgetting
from trainables.active.strategies.k_center import k_center
from trainables.active.strategies.least_confidence import least_confidence
from trainables.active.strategies.margin import margin
from trainables.active.strategies.typiclust import typiclust
from trainables.active.strategies.uniform import uniform
from trainables.active.strategies.wrappers import Oversample, PoolCap
from trainables.select_config import SelectConfig

STRATEGIES: Mapping[select_config.Strategy, Callable[[SelectConfig], Strategy]] = MappingProxyType(
    {
        "random": lambda _: uniform,
        "least_confidence": lambda _: least_confidence,
        "margin": lambda _: margin,
        "entropy": lambda _: entropy,
        "k_center": lambda _: k_center,
        "badge": lambda _: badge,
        "bald": lambda config: Bald(config.passes),
        "forgetting": lambda _: forgetting,
        "typiclust": lambda _: typiclust,
    }
)


READ_FEATURES: frozenset[select_config.Strategy] = frozenset({"k_center", "badge", "bald", "typiclust"})
"""Strategies that ask for features, or for dropout before the last layer, which needs them."""


def strategy_of(config: SelectConfig) -> Strategy:
    """The strategy that `config` names, with its number of passes, and wrapped as it says.

    The pool is capped first; then the best are taken of what is left. Chance is neither capped nor oversampled.
    """
    active = config.canonical()
    strategy = STRATEGIES[active.strategy](active)
    if active.oversample > 1:
        strategy = Oversample(strategy, active.oversample)
    return strategy if active.pool_cap is None else PoolCap(strategy, active.pool_cap)
