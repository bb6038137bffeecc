"""How many threads the linear algebra libraries of this process use.

Ray gives a task ``OMP_NUM_THREADS`` = its CPUs, so that numpy in several workers does not fight over the cores. In a
forked worker numpy may be loaded already, and the variable comes too late: the library has to be told by its own call.
"""

from __future__ import annotations

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: the user had not set OMP_NUM_THREADS when this process began
variable_is_ours = False

_LIBRARIES = ("openblas", "mkl_rt", "libgomp", "libiomp", "libomp")
_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
    "MKL_Set_Num_Threads",
    "omp_set_num_threads",
)


def loaded_libraries() -> list[str]:
    """The files of such libraries that are mapped into this process."""
    found: dict[str, None] = {}
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                path = line.rstrip("\n").partition("/")[2]
                name = os.path.basename(path)
                if path and any(part in name for part in _LIBRARIES):
                    found["/" + path] = None
    except OSError:
        pass
    return list(found)


def set_threads(count: int) -> int:
    """Tell every such library that is loaded; the number of libraries told. Nothing is loaded for it."""
    if "numpy" not in sys.modules and "torch" not in sys.modules and "scipy" not in sys.modules:
        return 0
    import ctypes  # only where numpy is, and that has imported it already

    told = 0
    for path in loaded_libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for name in _SETTERS:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(max(1, count)))
                told += 1
                break
    return told
