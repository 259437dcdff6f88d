"""A step that does not fit into memory is answered with the batch size that does."""

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import MANY, behave, read_first
from torch import Tensor, nn

from newsfuse.batches import Clicks, Lessons
from newsfuse.blame import blame
from newsfuse.errors import ParamsError, PluginError
from newsfuse.room import FINENESS, largest, ran_out, rehearse, room

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@settings(deadline=None)
@given(size=st.integers(1, 5000), capacity=st.integers(0, 5000))
def test_the_size_that_is_found_fits_and_is_hardly_less_than_the_largest(size: int, capacity: int) -> None:
    tried: list[int] = []

    def fits(n: int) -> bool:
        tried.append(n)
        return n <= capacity

    found, best = largest(size, fits), min(capacity, size - 1)
    assert found <= best
    assert found in {0, *tried}
    assert best - found <= max(1, found // FINENESS)
    assert len(tried) <= size.bit_length() + 4
    assert (found == 0) == (best == 0) or best == 1


class Machine:
    """Something that learns, and runs out of memory above so many clicks."""

    def __init__(self, capacity: int, error: Exception) -> None:
        self.capacity, self.error, self.tried = capacity, error, list[int]()

    def learn(self, clicks: int) -> None:
        self.tried.append(clicks)
        if clicks > self.capacity:
            raise self.error

    def train(self, clicks: int, *, processes: int = 1) -> None:
        with room(clicks, CPU, self.learn, processes=processes):
            self.learn(-(-clicks // processes))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(ON_A_CPU),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cublas", "python"],
)
def test_the_size_that_fits_is_told_with_the_command(error: Exception) -> None:
    machine = Machine(100, error)
    with pytest.raises(ParamsError) as caught:
        machine.train(1024)
    found = int(str(caught.value).rpartition("=")[2])
    assert 77 <= found <= 88  # an eighth less than what was found to fit
    assert str(caught.value).startswith("params.yaml: train.batch_size: 1024 does not fit in the ")
    assert str(caught.value).endswith(f"GiB of this machine, as far as they are free; {found} does: "
                                      f"dvc exp run -S train.batch_size={found}")  # fmt: skip
    assert caught.value.exit_code == 2


def test_of_several_processes_the_size_of_all_is_told() -> None:
    with pytest.raises(ParamsError, match=r"512 does not fit .*; 212 does: dvc exp run -S train\.batch_size=212"):
        Machine(60, MemoryError()).train(512, processes=4)


def test_where_not_even_one_click_fits_the_model_is_to_blame() -> None:
    with pytest.raises(ParamsError, match=r"no smaller one does: the model itself is too large\. Try a smaller model"):
        Machine(0, MemoryError()).train(64)


def test_a_step_that_fits_is_left_alone() -> None:
    machine = Machine(64, MemoryError())
    machine.train(64)
    assert machine.tried == [64]


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("mat1 and mat2 shapes"), PluginError("x: no")])
def test_other_errors_pass(error: Exception) -> None:
    machine = Machine(0, error)
    with pytest.raises(type(error)) as caught:
        machine.train(64)
    assert caught.value is error
    assert machine.tried == [64]


def test_an_error_of_the_rehearsal_itself_is_told() -> None:
    def rehearsal(_clicks: int) -> None:
        message = "unheard of"
        raise ValueError(message)

    with pytest.raises(ValueError, match="unheard of"), room(64, CPU, rehearsal):
        raise MemoryError


def test_no_memory_in_a_plugin_is_not_blamed_on_it() -> None:
    with pytest.raises(PluginError) as caught, blame("plugins/encoders/mine.py"):
        raise RuntimeError(ON_A_CPU)
    assert ran_out(caught.value)


def test_what_the_step_held_is_let_go_before_the_rehearsal() -> None:
    held: list[weakref.ref[Tensor]] = []

    def step() -> None:
        values = torch.ones(10, requires_grad=True)
        product = values * 2
        held.extend(weakref.ref(each) for each in (values, product))
        raise MemoryError

    def rehearsal(_clicks: int) -> None:
        assert [each() for each in held] == [None, None]

    with pytest.raises(ParamsError), room(64, CPU, rehearsal):
        step()


def test_a_rehearsal_changes_nothing() -> None:
    module = nn.Linear(3, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(torch.ones(3)).sum().backward()
    rehearse(module, lambda: module(torch.ones(2, 3)).sum())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [each.grad for each in module.parameters()] == [None, None]


@pytest.mark.parametrize(
    "lessons", [Clicks.of(behave([[1, 2], [3], []], MANY)), read_first([[1, 2, 3], [3, 4], [5, 6]], MANY)]
)
def test_the_longest_histories_are_rehearsed(lessons: Lessons) -> None:
    batch = lessons.longest(4, negatives=2, history=5)
    assert batch.clicked.sum(dim=1).tolist() == [2] * 4
    assert batch.candidates.shape == (4, 3)
    assert len(lessons.longest(1000, negatives=2, history=5).candidates) == len(lessons)
    assert lessons.longest(4, negatives=2, history=1).history.shape == (4, 1)


SHORT = """
import resource, sys
sys.path.insert(0, "tests")
import numpy as np, torch
from small import plugins
from test_batches import behave
from newsfuse.assembly import Architecture
from newsfuse.batches import Clicks
from newsfuse.errors import ParamsError
from newsfuse.room import rehearse, room
from newsfuse.testing.world import crowd

torch.set_num_threads(1)
rng = np.random.default_rng(0)
histories = rng.integers(0, 3000, (40, 50)).tolist()
clicks = Clicks.of(behave(histories, [[(int(a), 1), (int(b), 0)] for a, b in rng.integers(0, 3000, (6000, 2))]))
model = Architecture(("category", "llm"), "late", "attention", 64, 0.0, 50, {}).build(plugins(), crowd(3000))

def learn(n):
    batch = clicks.longest(n, negatives=1, history=50)
    scores = model(batch.news, batch.history, batch.clicked, batch.candidates)
    return scores.logsumexp(dim=1).sum()

rehearse(model, lambda: learn(8))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000,) * 2)
try:
    with room(6000, torch.device("cpu"), lambda n: rehearse(model, lambda: learn(n))):
        rehearse(model, lambda: learn(6000))
except ParamsError as error:
    print(error)
    found = int(str(error).rpartition("=")[2])
    rehearse(model, lambda: learn(found))
    print("fits")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's memory cannot be limited")
def test_a_real_step_in_too_little_memory_is_answered_with_a_size_that_then_fits() -> None:
    run = subprocess.run([sys.executable, "-c", SHORT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    told, fits = run.stdout.splitlines()
    assert told.startswith("params.yaml: train.batch_size: 6000 does not fit")
    assert 50 < int(told.rpartition("=")[2]) < 6000
    assert fits == "fits"
