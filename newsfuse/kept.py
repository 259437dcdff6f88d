"""What a bookmark says of training: which epochs there were, and where the model stands."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from torch import Tensor

from newsfuse.bookmarks import Bookmark
from newsfuse.epochs import Epoch
from newsfuse.learning import BEGINNING, Standing
from newsfuse.study import Place, Study, part_of


@dataclass(frozen=True)
class Kept:
    """Of a training that was interrupted; of others nothing."""

    epochs: Sequence[Epoch] = ()
    """That were reported."""
    again: bool = False
    """Whether the model was learning once more, from all days."""
    standing: Standing = BEGINNING
    best: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch; none while learning once more."""

    @classmethod
    def read(cls, bookmark: Bookmark | None) -> "Kept":
        """What `bookmarked` made, if anything."""
        if bookmark is None:
            return NOTHING
        notes, tensors = bookmark.notes, bookmark.tensors
        epochs = [Epoch.from_json(each) for each in notes["epochs"]]
        standing = Standing(notes["course"], Place(**notes["place"]), tensors)
        return cls(epochs, notes["again"], standing, part_of(tensors, "best"))


NOTHING = Kept()


def bookmarked(study: Study, epochs: Sequence[Epoch], best: Mapping[str, Tensor] | None) -> Bookmark:
    """For a study and what was before it; `best` is None while learning once more."""
    tensors = study.state() | {f"best/{name}": tensor for name, tensor in (best or {}).items()}
    notes = {"epochs": [asdict(each) for each in epochs], "again": best is None}
    return Bookmark(tensors, notes | {"course": study.course.number, "place": asdict(study.place)})
