"""What a GPU has to do, on a device that stands for one: test_gpu.py, in a process of its own.

PyTorch takes a device up before the first backward pass or never, and cannot be rid of it again.
"""

import os
import subprocess
import sys

from elsewhere import OWN_PROCESS
from project import ROOT


def test_a_device_that_is_not_the_cpu_computes_what_the_cpu_does() -> None:
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-q", "-k", "not cuda", "-p", "no:cacheprovider"]
    own = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=ROOT, env={**own, OWN_PROCESS: "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
