"""``select`` over shards: under torchrun, and with a checkpoint."""

import argparse
import atexit
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from dynal_fast.collective import Alone, Collective, RankError, agreed, as_collective
from dynal_fast.embeddings.labeled import load_labeled
from dynal_fast.embeddings.load import Embeddings, find_files
from dynal_fast.embeddings.shards import Shards, load_shards
from dynal_fast.embeddings.source import Wanted

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
TOGETHER = timedelta(minutes=10)  # for ranks to start
WORKING = timedelta(days=7)  # for a call: signs of life end it sooner
TELLING = 1.0  # seconds that the other ranks wait while rank 0 writes an error


def ranks_of_torchrun() -> int:
    """How many ranks torchrun, or what sets the same variables, has started; 1 without.

    >>> ranks_of_torchrun()
    1
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 1
    return int(os.environ["WORLD_SIZE"])


@contextmanager
def together() -> Iterator[Collective]:
    """The ranks that torchrun has started; an error of all of them is written by rank 0."""
    if ranks_of_torchrun() == 1:
        yield Alone()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=TOGETHER)
    ranks = as_collective(dist.new_group(backend="gloo", timeout=WORKING))
    try:
        with ranks.session():
            yield ranks
    except BaseException as error:
        if isinstance(error, RankError | KeyboardInterrupt):
            atexit.register(_leave, INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)
        if ranks.rank == 0 or (isinstance(error, RankError) and _of_rank_0(str(error))):
            raise
        if not isinstance(error, (Exception, KeyboardInterrupt)):
            raise
        if not getattr(error, "on_all_ranks", isinstance(error, RankError | KeyboardInterrupt)):
            raise  # only this rank knows it
        time.sleep(TELLING)
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        sys.exit(BAD_INPUT if isinstance(error, ValueError) else code)
    dist.barrier()
    dist.destroy_process_group()


def _leave(code: int) -> None:
    """End at once: torch would wait for calls that the other ranks never answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _of_rank_0(message: str) -> bool:
    return message.startswith(("rank 0 ", "ranks 0,")) or "cannot reach the store" in message


def select_shards(arguments: argparse.Namespace, collective: Collective) -> tuple[Any, Embeddings]:
    """Return the traversal of the files and what they are, the same on every rank."""
    import torch

    from dynal_fast.ops.farthest_first.sharded.checkpoint import Checkpoint
    from dynal_fast.ops.farthest_first.sharded.functions import farthest_first_of_shards

    def load() -> tuple[Shards, Any]:
        wanted = Wanted(arguments.key, arguments.columns, arguments.header)
        shards = load_shards(arguments.features, wanted, collective.rank, collective.size)
        if arguments.labeled is None:
            return shards, None
        wanted = Wanted(arguments.labeled_key, arguments.columns)
        return shards, load_labeled(arguments.labeled, wanted, shards.pool)

    shards, labeled = agreed(collective, load)
    checkpoint = None
    if arguments.checkpoint is not None:
        identity = _identity(arguments, collective, shards)
        checkpoint = Checkpoint(arguments.checkpoint, identity, arguments.checkpoint_every)
    generator = None
    if arguments.seed is not None:
        generator = torch.Generator().manual_seed(arguments.seed)
    traversal = farthest_first_of_shards(
        collective,
        shards.arrays,
        arguments.k,
        labeled,
        metric=arguments.metric,
        start="random" if generator is not None else arguments.start,
        generator=generator,
        progress=False if arguments.quiet else None,
        checkpoint=checkpoint,
    )
    return traversal, shards.pool


def _identity(
    arguments: argparse.Namespace, collective: Collective, shards: Shards
) -> dict[str, str]:
    """What a checkpoint is of: the same numbers in the same files, and the same arguments."""
    sums = collective.total(agreed(collective, shards.checksums))
    pool = shards.pool
    found = {"number of files": str(len(pool.files))}
    dtype = str(shards.arrays[0].dtype).replace("torch.", "")
    for number, (file, size, code) in enumerate(zip(pool.files, pool.sizes, sums, strict=True)):
        form = f"({size}, {pool.array.shape[1]}) {dtype}"
        found[f"file {number}, {file.name}"] = f"{form} with checksum {code % 2**40:010x}"
    for name in ("k", "metric", "start", "seed", "labeled_key"):
        found[name] = str(getattr(arguments, name))
    found["labeled"] = "none"
    if arguments.labeled is not None:
        found["labeled"] = agreed(collective, lambda: _digest_of(find_files(arguments.labeled)[0]))
    return found


def _digest_of(files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.read_bytes())
    return f"{len(files)} files with checksum {digest.hexdigest()}"
