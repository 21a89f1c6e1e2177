"""The part of a trial's config that says which images are labelled."""

from typing import Annotated, Literal

from pydantic import Field

from trainables.model_config import Section

Strategy = Literal[
    "random", "least_confidence", "margin", "entropy", "k_center", "badge", "bald", "forgetting", "typiclust"
]


class SelectConfig(Section):
    """Which images are labelled: rounds of train, score, query, until there are `budget` labels.

    The three accelerations of CLActive (CoLLAs 2022) are switches of their own: a smaller network (`proxy`), a network
    that goes on learning from few images (`replay_ratio`), and few epochs (`epochs`, `schedule`).
    """

    strategy: Strategy = Field(default="least_confidence", description="how the next images are chosen")
    budget: int = Field(ge=1, description="labels that the network is trained on; a point of the trajectory")
    initial: int = Field(default=100, ge=1, description="labels drawn at random before the first round")
    query_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(100,), min_length=1, strict=False, description="labels asked in each round; the last repeats"
    )
    proxy: Literal["resnet8", "resnet14", "resnet20", "resnet32", "resnet56", "resnet18", "vgg_small"] | None = Field(
        default=None, description="network that selects; null: the model itself"
    )
    proxy_width: int = Field(default=8, ge=1, le=1024, description="filters of the proxy's first stage")
    proxy_image_size: int | None = Field(
        default=None, ge=8, le=512, description="pixels a side that the proxy sees; null: data.image_size"
    )
    replay_ratio: float | None = Field(
        default=None,
        ge=0,
        description="null: from scratch on all labels each round; R: trained on with the new and R times as many old",
    )
    epochs: int | None = Field(default=None, ge=1, description="passes over a round's images; null: train.epochs")
    schedule: Literal["train", "fast"] = Field(
        default="train", description="train: lr and schedule of train; fast: OneCycle .01 -> .2 -> .001 each round"
    )
    pool_cap: int | None = Field(
        default=None, ge=1, description="candidates scored, drawn each round, more than are asked for; null: all"
    )
    oversample: float = Field(
        default=1.0, ge=1, description="the queries are drawn at random from the best so many times as many"
    )
    dropout: float = Field(default=0.3, gt=0, lt=1, description="bald: share dropped before the last layer")
    passes: int = Field(default=20, ge=2, description="bald: draws of dropout")
    locked_classes: int = Field(default=0, ge=0, description="classes that cannot be asked for at first")
    unlock_at: float = Field(default=0.3, ge=0, le=1, description="share of the pool that is labelled when they can")
    patience: int | None = Field(
        default=None, ge=1, description="rounds without a gain in validation accuracy after which asking ends"
    )
    min_gain: float = Field(default=0.002, ge=0, lt=1, description="validation accuracy that counts as a gain")

    def trains(self) -> bool:
        """Whether a network is trained in each round: chance needs none, unless asking ends by its accuracy."""
        return self.strategy != "random" or self.patience is not None

    def inert(self) -> frozenset[str]:
        """Chance needs no network; the rest belongs to a switch that is off."""
        names: set[str] = set()
        if self.strategy == "random":
            names |= {"pool_cap", "oversample"}
        if not self.trains():
            names |= {"proxy", "proxy_width", "proxy_image_size", "replay_ratio", "epochs", "schedule"}
        if self.strategy != "bald":
            names |= {"dropout", "passes"}
        if self.proxy is None:
            names |= {"proxy_width", "proxy_image_size"}
        if self.locked_classes == 0:
            names |= {"unlock_at"}
        if self.patience is None:
            names |= {"min_gain"}
        return frozenset(names)

    def canonical(self) -> "SelectConfig":
        """The same computation with every inert leaf at its default."""
        return self.model_copy(update={name: type(self).model_fields[name].default for name in self.inert()})

    def by_chance(self) -> "SelectConfig":
        """As many labels, drawn at random from the same pool."""
        return self.model_copy(update={"strategy": "random", "patience": None}).canonical()

    def query_size(self, number: int) -> int:
        """Labels asked in round `number`, counted from 0 after the initial draw."""
        return self.query_sizes[min(number, len(self.query_sizes) - 1)]

    def rounds(self) -> tuple[int, ...]:
        """Labels asked in each round after the initial draw, up to the one that reaches the budget, which is whole."""
        sizes: list[int] = []
        labels = self.initial
        while labels < self.budget:
            sizes.append(self.query_size(len(sizes)))
            labels += sizes[-1]
        return tuple(sizes)
