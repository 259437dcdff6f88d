#!/opt/newsfuse/bin/python -I
"""`dvc` in the image: it minds SIGTERM as it minds Ctrl-C.

DVC itself dies of SIGTERM at once, and leaves its locks behind under its process id. In the next container another
process has the same id, and DVC would take the dead one for alive: "it is being blocked by".
"""

import signal
import sys
from types import FrameType


def hear(_: int, __: FrameType | None) -> None:
    """Interrupt DVC, unless it waits for a stage: the stage has been told, too, and its end is DVC's."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # DVC ignores Ctrl-C as long as a stage runs
        raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, hear)
    from dvc.cli import main

    sys.exit(main())
