"""A trained model on disk: weights as safetensors, and all that is needed to build it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, contiguous_format

from newsfuse.artifact import verified, writing
from newsfuse.assembly import Architecture
from newsfuse.errors import IntegrityError
from newsfuse.inputs import Inputs
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.vocabularies import Vocabularies

KIND = "train"
AGAIN = f"Train it again: dvc repro --force --single-item {KIND}"


@dataclass(frozen=True)
class Checkpoint:
    """Weights with the architecture and the vocabularies that they belong to."""

    architecture: Architecture
    known: Vocabularies
    weights: Mapping[str, Tensor]

    def write(self, folder: Path, training: Mapping[str, Any]) -> None:
        """`training` (settings of the run) is kept in the manifest, for the record."""
        settings = {"architecture": self.architecture.to_json(), "training": dict(training)}
        with writing(folder, kind=KIND, settings=settings) as draft:
            (draft / "weights.safetensors").write_bytes(packed(self.weights))
            self.known.write(draft)

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """What `write` wrote, verified. Raises IntegrityError."""
        settings = verified(folder, kind=KIND)
        weights = _weights(folder / "weights.safetensors")
        return cls(Architecture.from_json(settings["architecture"]), Vocabularies.read(folder), weights)

    def model(self, registry: Registry, inputs: Inputs) -> Recommender:
        """The trained model over the articles of `inputs`. Raises IntegrityError when weights and plugins disagree."""
        model = self.architecture.build(registry, inputs, trained=True)
        try:
            model.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            message = f"the model's weights do not fit its plugins ({error}). {AGAIN}"
            raise IntegrityError(message) from error
        return model


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        message = f"{path}: no weights that newsfuse reads ({error}). {AGAIN}"
        raise IntegrityError(message) from error


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file; tied weights, of which each name gets its own copy, included."""
    # no metadata: safetensors writes it in random order, and equal runs must give equal bytes
    return save({name: tensor.clone(memory_format=contiguous_format) for name, tensor in weights.items()})
