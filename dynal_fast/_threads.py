"""How many threads a kernel may take: torch's number, and one in a forked process.

OpenMP, whose threads torch and the kernels share, cannot start a team in a child of ``fork()`` once
it has in the parent: the child would wait forever.
"""

import os
import warnings

import torch

_forked = False


def _mark_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)


def num_threads() -> int:
    """Return ``torch.get_num_threads()``, after lowering it to 1 in a forked process.

    The first call in a child of ``fork()`` sets torch to one thread and warns, as long as the child
    has not done so itself (the workers of a ``DataLoader`` have). A number set after that counts.
    """
    global _forked
    if _forked:
        _forked = False
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            warnings.warn(
                "this process was forked, where OpenMP would wait forever for the threads of its "
                "parent: torch and dynal_fast go on with one thread (torch.set_num_threads(1)). "
                "Start it with multiprocessing.get_context('spawn') to use several.",
                RuntimeWarning,
                stacklevel=3,
            )
    return torch.get_num_threads()
