"""Note which kernels a call launches, and which of them Triton compiled first."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from triton import knobs
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from benchmarks.gpu.kernels import CUDA


@contextmanager
def launched() -> Iterator[list[str]]:
    """Yield the names of the kernels that the block launches, each once, in order."""
    from dynal_fast.ops.pool_stats import cuda

    names: list[str] = []

    def note(name: str) -> None:
        if name not in names:
            names.append(name)

    with ExitStack() as stack:
        for kind in (JITFunction, InterpretedFunction):
            stack.enter_context(mock.patch.object(kind, "run", _noting(kind.run, note)))
        extension = cuda._extension
        if extension() is not None:
            noting = _Noting(extension(), note)
            stack.enter_context(mock.patch.object(cuda, "_extension", return_value=noting))
        yield names


def _noting(run: Any, note: Any) -> Any:
    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        note(self.fn.__name__)
        return run(self, *arguments, **options)

    return noting


class _Noting:
    """The CUDA extension, wrapped so that it notes the launches of its kernel."""

    def __init__(self, extension: Any, note: Any) -> None:
        self._extension, self._note = extension, note

    def __getattr__(self, name: str) -> Any:
        if name == "pool_stats_update_from_features":
            self._note(CUDA)
        return getattr(self._extension, name)


@contextmanager
def compiled() -> Iterator[list[str]]:
    """Yield the names of the kernels that were compiled in the block, not taken from the cache."""
    names: list[str] = []

    def listen(*, src: Any, cache_hit: bool, **rest: Any) -> None:
        if not cache_hit:
            names.append(str(getattr(src, "name", src)))

    with mock.patch.object(knobs.compilation, "listener", listen):
        yield names
