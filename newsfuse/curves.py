"""Training curves: DVCLive writes them, TensorBoard too where that is wanted, the terminal shows them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from dvclive.live import Live

from newsfuse.artifact import unwritten
from newsfuse.epochs import Epoch
from newsfuse.tensorboard import TensorBoard

log = logging.getLogger(__name__)

FOLDERS = {"histories": "pretrain", "impressions": "train"}
"""Where the curves of each course are."""


class Sink(Protocol):
    """Somewhere that curves go."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""

    def close(self) -> None:
        """No more will come."""


class DVCLive:
    """A folder with a tsv file per curve, which DVC plots, and their last values in metrics.json. Steps are epochs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._told():
            # without dvcyaml=None and save_dvc_exp=False DVCLive rewrites dvc.yaml and saves an experiment by itself
            self.live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """A point of each curve. Raises StorageError, as all of this class."""
        with self._told():
            self.live.step = epoch
            for name, value in values.items():
                self.live.log_metric(name, value)
            self.live.next_step()

    def summarise(self, **values: object) -> None:
        """Beside the last values in metrics.json."""
        with self._told():
            self.live.summary.update(values)
            self.live.make_summary()

    def close(self) -> None:
        """Write what is left."""
        with self._told():
            self.live.end()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # of a full disk, DVCLive's does not say which file
            raise unwritten(self.folder, error, "No model was written") from error


class Curves:
    """Logs every epoch to `folder`/train, and how fast it was to `folder`/speed; all to TensorBoard where it is wanted.

    Speed is apart because it is never the same twice: in an out of the stage it would make every
    run look different from the last, in dvc.lock and to later stages. See docs/decisions.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        """`writes`: False where another process of the team does. Raises ParamsError where TensorBoard is missing."""
        self.live: DVCLive | None = None
        self.train, self.speed = list[Sink](), list[Sink]()
        if writes:
            wanted: list[Sink] = list(TensorBoard.wanted())  # first: DVCLive removes the curves that are there
            self.live = DVCLive(folder / "train")
            self.train, self.speed = [self.live, *wanted], [DVCLive(folder / "speed"), *wanted]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in {*self.train, *self.speed}:
            sink.close()

    def epoch(self, epoch: Epoch) -> None:
        """A point of every curve. The untrained model (epoch 0) has validation only."""
        for sink in self.train:
            sink.log(epoch.number, _metrics(epoch))
        for sink in self.speed:
            sink.log(epoch.number, {"impressions_per_s": epoch.clicks_per_s})
        log.info(_line(epoch))

    def best(self, epoch: Epoch) -> None:
        """Which epoch's weights are kept, beside the last values in metrics.json."""
        if self.live:
            self.live.summarise(best={"epoch": epoch.number, "validation_auc": epoch.validation_auc})
        log.info("best on validation: epoch %d, AUC %.4f", epoch.number, epoch.validation_auc)


def _metrics(epoch: Epoch) -> dict[str, float]:
    fits = {"validation": epoch.validation, **({FOLDERS[epoch.course]: epoch.train} if epoch.train else {})}
    metrics = {f"{name}/{key}": value for name, fit in fits.items() for key, value in vars(fit).items()}
    metrics |= {f"weight/{name}": value for name, value in epoch.weights.items()}
    return metrics | {"validation/impression_auc": epoch.validation_auc, "learning_rate": epoch.learning_rate}


def _line(epoch: Epoch) -> str:
    trained = (
        f"{FOLDERS[epoch.course]} loss {epoch.train.loss:.4f}, {epoch.clicks_per_s:,.0f} clicks/s, "
        if epoch.train
        else "untrained, "
    )
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in epoch.weights.items())
    return (
        f"epoch {epoch.number}: {trained}validation loss {epoch.validation.loss:.4f}, AUC {epoch.validation_auc:.4f}"
        + (f", weights: {weights}" if weights else "")
    )
