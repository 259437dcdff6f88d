"""Other machines, as this one can play them: libraries that are told not to use what their processor does not have.

OpenBLAS, numpy, the C library, PyTorch and oneDNN look at the processor when they are loaded and choose code that was
written for it. Each can be told by an environment variable to take it for an older one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

CORE: Any = import_module("numpy._core._multiarray_umath")  # which has no types
FOUND = [name for name in CORE.__cpu_dispatch__ if CORE.__cpu_features__[name]]
"""What numpy has code of its own for and the processor has, from the oldest to the newest."""
NEWER = [name for name in FOUND if name != "X86_V3"]
OLD = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-FMA,-FMA4", "NPY_DISABLE_CPU_FEATURES": ",".join(FOUND)}
AVX2 = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F", "NPY_DISABLE_CPU_FEATURES": ",".join(NEWER)}
TORCH_OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
TORCH_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def threads(number: int) -> dict[str, str]:
    """So many threads, whatever the number of cores."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(number))


def machines() -> dict[str, dict[str, str]]:
    """Environment variables by machine; this one, as it is, comes first. None has what this one does not have."""
    found = {
        "this one": {},
        "a Pentium 4, three threads": {"OPENBLAS_CORETYPE": "Prescott", **OLD, **TORCH_OLD, **threads(3)},
    }
    if CORE.__cpu_features__["AVX2"]:
        found["an AMD of 2017"] = {"OPENBLAS_CORETYPE": "Zen", **AVX2, **TORCH_AVX2}
        found["an Intel of 2013, one thread"] = {"OPENBLAS_CORETYPE": "Haswell", **AVX2, **TORCH_AVX2, **threads(1)}
    if CORE.__cpu_features__["AVX512F"]:
        found["an Intel of 2017"] = {"OPENBLAS_CORETYPE": "SkylakeX", "NPY_DISABLE_CPU_FEATURES": ",".join(FOUND[2:])}
    return found
