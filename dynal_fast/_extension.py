"""Load the compiled extension once, with an error that says what to do where it is missing.

``DYNAL_FAST_ISA`` (``baseline``, ``avx2``, ``avx512``) lowers the instruction set the kernels use.
"""

import functools
import os
from types import ModuleType


@functools.cache
def load() -> ModuleType:
    """Return ``dynal_fast._C``.

    Raises
    ------
    ImportError
        The extension was not built or does not load; the message says how to build it.
    ValueError
        ``DYNAL_FAST_ISA`` names an instruction set this CPU cannot run.
    """
    try:
        from dynal_fast import _C
    except ImportError as error:
        raise ImportError(
            f"the compiled extension dynal_fast._C does not load ({error}). Reinstall with a C++17 "
            "compiler on the PATH (`pip install .`), or build it in a source tree with "
            "`python setup.py build_ext --inplace`."
        ) from error
    requested = os.environ.get("DYNAL_FAST_ISA")
    if requested:
        _C.set_isa(requested)
    return _C


@functools.cache
def load_cuda() -> ModuleType | None:
    """Return ``dynal_fast._cuda``, or None where it was built without nvcc."""
    try:
        from dynal_fast import _cuda
    except ImportError:
        return None
    return _cuda
