"""Epochs: what a model was like after each, and which one was best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from newsfuse.fit import Fit


@dataclass(frozen=True)
class Epoch:
    """A model after some pass over the lessons of a course. Number 0 is the untrained model."""

    number: int
    course: str
    """"histories" (pre-training), "impressions", or "" for the untrained model."""
    train: Fit | None
    validation: Fit
    validation_auc: float
    """MIND's AUC over all candidates of the validation impressions."""
    learning_rate: float
    """At the end of the epoch."""
    clicks_per_s: float
    """How many were learned from per second; 0 for the untrained model."""
    weights: dict[str, float]
    """Mean fusion weight of each encoder over the validation articles."""
    taken: dict[str, int]
    """How many epochs of each course led to this model, without those that were undone."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Epoch":
        """What `dataclasses.asdict` made."""
        train = Fit(**values["train"]) if values["train"] else None
        return cls(**{**values, "train": train, "validation": Fit(**values["validation"])})


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """That of the highest AUC on validation, the first one of equals."""
    return max(epochs, key=lambda epoch: epoch.validation_auc)
