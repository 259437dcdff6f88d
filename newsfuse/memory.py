"""Memory that is free, and whose it is."""

import ctypes
import sys


def give_back() -> None:
    """Let the system have the memory that was freed.

    glibc keeps what cannot be reused at once, and of tensors with other sizes in every batch that comes to several GB
    over an epoch. Where there is no glibc nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
