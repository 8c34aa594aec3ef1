"""Whether the Triton that is installed can run the kernels, and what to do where it cannot."""

import importlib
import re
from types import ModuleType

OLDEST = (3, 5)


def triton_problem() -> str | None:
    """Return why the kernels cannot run under the Triton that is installed, or None if they can.

    >>> triton_problem() is None or "pip install" in triton_problem()
    True
    """
    try:
        triton = importlib.import_module("triton")
    except Exception as error:  # a broken installation raises what it likes
        return f"triton does not load ({error}); pip install 'dynal_fast[gpu]'"
    if triton_version() >= OLDEST:
        return None
    return (
        f"Triton {_version_of(triton)} is too old, {'.'.join(map(str, OLDEST))} is the oldest that "
        "the kernels run under (3.4 does not compile them, 3.3 gives wrong results of atomics on "
        "tensors smaller than a block); pip install -U 'dynal_fast[gpu]', or torch 2.9 or newer, "
        "whose CUDA builds bring such a Triton"
    )


def triton_version() -> tuple[int, ...]:
    """Return major and minor version of the Triton that is installed.

    Raises
    ------
    ImportError
        There is none.
    """
    version = _version_of(importlib.import_module("triton"))
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _version_of(triton: ModuleType) -> str:
    return getattr(triton, "__version__", "of an unknown version")


def require_triton() -> None:
    """Make sure that the kernels can run.

    Raises
    ------
    ImportError
        Triton is missing or too old; the message says how to get one that is not.
    """
    if (problem := triton_problem()) is not None:
        raise ImportError(f"the kernels for CUDA devices need Triton: {problem}")
