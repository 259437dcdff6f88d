"""Training curves: DVCLive writes them, the terminal shows them."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from dvclive.live import Live

from newsfuse.training import Epoch

log = logging.getLogger(__name__)

FOLDERS = {"histories": "pretrain", "impressions": "train"}
"""Where the curves of each course are."""


class Curves:
    """Logs every epoch to `folder`/train, and how fast it was to `folder`/speed.

    Speed is apart because it is never the same twice: in an out of the stage it would make every
    run look different from the last, in dvc.lock and to later stages. See docs/decisions.
    """

    def __init__(self, folder: Path) -> None:
        # without dvcyaml=None and save_dvc_exp=False DVCLive rewrites dvc.yaml and saves an experiment by itself
        self.live, self.speed = (
            Live(str(folder / name), dvcyaml=None, save_dvc_exp=False) for name in ("train", "speed")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for live in (self.live, self.speed):
            live.__exit__(kind, error, trace)

    def epoch(self, epoch: Epoch) -> None:
        """One step of every curve. The untrained model (epoch 0) has validation only."""
        for name, value in _metrics(epoch).items():
            self.live.log_metric(name, value)
        self.live.next_step()
        self.speed.log_metric("impressions_per_s", epoch.clicks_per_s)
        self.speed.next_step()
        log.info(_line(epoch))

    def best(self, epoch: Epoch) -> None:
        """Which epoch's weights are kept, beside the last values in metrics.json."""
        self.live.summary["best"] = {"epoch": epoch.number, "validation_auc": epoch.validation_auc}
        self.live.make_summary()
        log.info("kept epoch %d, validation AUC %.4f", epoch.number, epoch.validation_auc)


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
