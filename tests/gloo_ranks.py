"""Processes that are ranks of gloo, for tests: a few live on through many of them."""

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")


class GlooRanks:
    """``size`` processes, each a rank of one process group."""

    def __init__(
        self,
        size: int,
        *,
        prepare: Callable[[int], None] | None = None,
        address: str | None = None,
    ) -> None:
        CONTEXT.set_forkserver_preload(["torch.distributed", "dynal_fast.ops.farthest_first"])
        self.folder = tempfile.TemporaryDirectory()
        address = address or f"file://{os.path.join(self.folder.name, 'store')}"
        self.pipes, self.processes = [], []
        for rank in range(size):
            own, other = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=_serve, args=(other, rank, size, address, prepare), daemon=True
            )
            process.start()
            other.close()
            self.pipes.append(own)
            self.processes.append(process)

    def __enter__(self) -> "GlooRanks":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self.folder.cleanup()

    def begin(self, function: Callable[..., Any], *arguments: Any, ranks: int) -> None:
        """Let the first ``ranks`` processes call ``function(group, *arguments)``."""
        for pipe in self.pipes[:ranks]:
            pipe.send((function, arguments, ranks))

    def result(self, rank: int, timeout: float = 60) -> Any:
        """What the process returned: a result, or the text of an error with its type's name."""
        assert self.pipes[rank].poll(timeout), f"rank {rank} did not answer within {timeout} s"
        return self.pipes[rank].recv()

    def call(self, function: Callable[..., Any], *arguments: Any, ranks: int) -> list[Any]:
        self.begin(function, *arguments, ranks=ranks)
        results = [self.result(rank) for rank in range(ranks)]
        for result in results:
            if isinstance(result, str) and result.startswith("Traceback"):
                raise AssertionError(result)
        return results


def _serve(pipe: Any, rank: int, size: int, address: str, prepare: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if prepare is not None:
        prepare(rank)
    dist.init_process_group(
        "gloo",
        init_method=address,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    groups = {ranks: dist.new_group(range(ranks)) for ranks in range(1, size)}
    groups[size] = dist.group.WORLD
    for job in iter(pipe.recv, None):
        function, arguments, ranks = job
        try:
            answer = function(groups[ranks], *arguments)
        except KeyboardInterrupt:
            answer = "KeyboardInterrupt: "
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
            if isinstance(error, AssertionError):
                answer = traceback.format_exc()
        pipe.send(answer)
