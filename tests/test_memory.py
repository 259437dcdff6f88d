"""Memory that is given back, seen by the system."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from newsfuse.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

arrays = [np.ones(1 << 17) for _ in range(200)]  # a megabyte each
del arrays[:-1]  # the last lies above the others: they are free and cannot leave by themselves
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_goes_back_to_the_system() -> None:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    assert float(done.stdout) > 150
