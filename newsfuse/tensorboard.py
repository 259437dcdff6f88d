"""TensorBoard's copy of the training curves, for those who ask for it: of others, nothing is imported or written."""

import os
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Self

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError
from newsfuse.root import project_root


class TensorBoard:
    """Writes scalars into a new folder, as `tensorboard --logdir` shows them while they grow."""

    def __init__(self, folder: Path) -> None:
        """`folder` with a number behind it where it exists. Raises ParamsError without tensorboard, OSError."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - who does not ask for it need not have it
        except ImportError as error:
            message = (
                f"NEWSFUSE_TENSORBOARD: tensorboard cannot be imported ({error}). "
                "Install it: pip install 'newsfuse[tensorboard]', or unset the variable"
            )
            raise ParamsError(message) from error
        self.folder = _made(folder)
        self.writer = SummaryWriter(str(self.folder))

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
