"""TensorBoard's copy of the training curves, for those who ask for it: of others, nothing is imported or written."""

import os
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError
from newsfuse.root import project_root

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes scalars into a new folder, as `tensorboard --logdir` shows them while they grow."""

    def __init__(self, folder: Path) -> None:
        """`folder` with a number behind it where it exists. Raises ParamsError without tensorboard, OSError."""
        writer = _writer()
        self.folder = _made(folder)
        self.writer = writer(str(self.folder))

    @staticmethod
    def require() -> None:
        """Raise ParamsError where TensorBoard is wanted and not installed."""
        if Environment.read().tensorboard is not None:
            _writer()

    @classmethod
    def wanted(cls) -> Iterator[Self]:
        """One where NEWSFUSE_TENSORBOARD is a folder, in a folder of that named as the experiment or by the time."""
        parent = Environment.read().tensorboard
        if parent is not None:
            name = os.environ.get("DVC_EXP_NAME") or time.strftime("%Y-%m-%d_%H-%M-%S")
            # from the project's root: what is in an experiment's copy of the project is gone after it
            yield cls((project_root() or Path()) / parent / name)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def _writer() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - who does not ask for it need not have it
    except ImportError as error:
        message = (
            f"NEWSFUSE_TENSORBOARD: tensorboard cannot be imported ({error}). "
            "Install it: pip install 'newsfuse[tensorboard]', or unset the variable"
        )
        raise ParamsError(message) from error
    return SummaryWriter


def _made(folder: Path) -> Path:
    """A folder of this run's own: TensorBoard would join the curves of two runs in one."""
    for number in count(1):
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            continue
        return free
    raise AssertionError  # there is always a next number
