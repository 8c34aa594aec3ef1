"""`embedding_store`: the embeddings of a pool, written by the pass that observes it."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynal_fast.evaluating import evaluating
from dynal_fast.penultimate import penultimate, watched
from dynal_fast.pool.allocate import full
from dynal_fast.pool.candidates import integer
from dynal_fast.pool.forward import model_call

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
KEY = "embeddings"


def embedding_store(
    model: nn.Module,
    num_samples: int,
    *,
    dtype: torch.dtype = torch.float32,
    path: str | Path | None = None,
    inputs: Any = None,
    head: str | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return room for the embeddings of a pool, which `observe_pool` fills.

    Row i belongs to sample i. All values are NaN until they are written, so that
    `farthest_first` refuses rows that no pass has reached.

    Parameters
    ----------
    model
        Gives the width d: the inputs of its last ``nn.Linear``.
    num_samples
        N, that of the tracker.
    dtype
        float32, float16 or bfloat16. float16 ends at 65,504.
    path
        A new file that holds the store, memory-mapped, for pools beyond memory: ``.safetensors``,
        or ``.npy``, which has no bfloat16. `load_embeddings` reads it again.
    inputs
        A batch, for a model whose last registered ``nn.Linear`` is not the one that runs last, or
        whose ``head`` does not say its width: the model is run on it once.
    head
        The name of the submodule whose input is the embedding, as in `observe_pool`.
    device
        Where the store is, without ``path``.

    Returns
    -------
    Tensor (N, d), NaN.

    Raises
    ------
    ValueError
        ``dtype`` is none of the three, the model does not tell d, ``num_samples`` is negative, or
        the file has another suffix or a dtype that it cannot hold.
    FileExistsError
        There is a file at ``path``.
    OSError
        The file cannot be made, or there is no room for it.

    Examples
    --------
    >>> from dynal_fast import PoolStats, observe_pool
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> store = embedding_store(model, 2)
    >>> pool = [(torch.tensor([1, 0]), torch.ones(2, 4))]
    >>> stats = PoolStats(2, 2, track=("margin",))
    >>> observe_pool(model, pool, stats, epoch=1, num_epochs=1, embeddings=store)
    True
    >>> store.shape, bool(store.isnan().any())
    (torch.Size([2, 3]), False)
    """
    num_samples = integer("num_samples", num_samples)
    if num_samples < 0:
        raise ValueError(f"num_samples must not be negative, got {num_samples}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    shape = (num_samples, _width(model, inputs, head))
    if path is None:
        return full(shape, math.nan, dtype, torch.empty(0, device=device).device)
    store = _file_of(Path(path), shape, dtype)
    for rows in store.split(max(1, (1 << 24) // shape[1])) if num_samples else ():
        rows.fill_(math.nan)
    return store


def checked_store(embeddings: Any, num_samples: int | None, mc_passes: int) -> Tensor | None:
    """Return the argument ``embeddings`` of `observe_pool` as a tensor, checked.

    Raises
    ------
    TypeError
        It is not a tensor or a NumPy array.
    ValueError
        It is not a writable ``(num_samples, d)`` of a dtype that `embedding_store` knows, or the
        pass is one of MC dropout.
    """
    if embeddings is None:
        return None
    given = type(embeddings).__name__
    if not isinstance(embeddings, (Tensor, np.ndarray)):
        raise TypeError(
            f"embeddings must be a tensor or an array that embedding_store made, got {given}"
        )
    if mc_passes:
        raise ValueError("embeddings are those of evaluation mode: leave mc_passes out, or them")
    if isinstance(embeddings, np.ndarray):
        if embeddings.dtype not in (np.float32, np.float16) or not embeddings.flags.writeable:
            raise ValueError(
                f"embeddings must be a writable float32 or float16 array, got {embeddings.dtype}"
                + ("" if embeddings.flags.writeable else " that is read-only")
            )
        embeddings = torch.from_numpy(embeddings)
    if embeddings.dtype not in DTYPES:
        raise ValueError(f"embeddings must be float32, float16 or bfloat16, got {embeddings.dtype}")
    if embeddings.requires_grad:
        raise ValueError("embeddings must not require gradients; pass embeddings.detach()")
    if embeddings.ndim != 2 or num_samples not in (None, len(embeddings)):
        rows = "num_samples" if num_samples is None else num_samples
        raise ValueError(
            f"embeddings must be ({rows}, d), a row for each sample, got {tuple(embeddings.shape)}"
        )
    return embeddings


def write_rows(store: Tensor, sample_ids: Tensor, rows: Tensor) -> None:
    """Write the embeddings (batch, d) of a batch into the rows ``sample_ids`` of the store.

    Ids outside the store are left out: the tracker reports them. On a GPU nothing waits for that.

    Raises
    ------
    ValueError
        The embeddings have another width, or there are not as many as ids.
    """
    if rows.shape != (len(sample_ids), store.shape[1]):
        raise ValueError(
            f"embeddings must be (n, {rows.shape[1]}), as wide as the model's, and the model must "
            f"give one for each of the {len(sample_ids)} ids; got a store {tuple(store.shape)} and "
            f"embeddings {tuple(rows.shape)}"
        )
    ids = sample_ids.to(store.device, torch.int64)
    rows = rows.detach().to(store.device, store.dtype)
    known = (ids >= 0) & (ids < len(store))
    if store.device.type == "cpu":
        if not bool(known.all()):
            ids, rows = ids[known], rows[known]
    else:
        ids, rows = redirected(store, ids, known, rows)
    store.index_copy_(0, ids, rows)


def redirected(store: Tensor, ids: Tensor, known: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and rows to write such that rows with unknown ids change nothing.

    They repeat the first row whose id is known; where there is none, they hold what is there.
    """
    if not len(store) or not len(ids):
        return ids[:0], rows[:0]
    first = known.byte().argmax()
    ids = torch.where(known, ids, ids[first]).clamp(0, len(store) - 1)
    rows = torch.where(known[:, None], rows, rows[first])
    return ids, torch.where(known.any(), rows, store[ids])


def _width(model: nn.Module, inputs: Any, head: str | None) -> int:
    model = getattr(model, "_orig_mod", model)
    if inputs is not None:
        with (
            evaluating(model),
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            penultimate(model, head) as embedding,
        ):
            model_call()(model, inputs)
            return embedding().shape[1]
    layer = watched(model, head)[-1]
    names = ("in_features", "in_channels", "embed_dim")
    width = next((w for n in names if isinstance(w := getattr(layer, n, None), int) and w), None)
    if width is None:
        raise ValueError(
            f"{type(layer).__name__} does not say how wide its inputs are: pass a batch as inputs="
        )
    return width


def _file_of(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return a tensor (n, d) that is mapped to a new file, zeros."""
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"path must end in .npy or .safetensors, got {str(path)!r}")
    if path.suffix == ".npy" and dtype == torch.bfloat16:
        raise ValueError(f"a .npy file has no bfloat16: name it .safetensors, got {str(path)!r}")
    size = math.prod(shape) * dtype.itemsize
    with _new_file(path) as file:
        if path.suffix == ".npy":
            kind = np.dtype(np.float32 if dtype == torch.float32 else np.float16)
            np.lib.format.write_array_header_1_0(
                file, {"descr": kind.str, "fortran_order": False, "shape": shape}
            )
        else:
            entry = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [0, size]}
            header = json.dumps({KEY: entry}).encode()
            header += b" " * (-len(header) % 8)  # the numbers are aligned
            file.write(len(header).to_bytes(8, "little") + header)
        offset = file.tell()
        file.flush()
        if size and hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash
            os.posix_fallocate(file.fileno(), offset, size)
        else:
            file.truncate(offset + size)
    if not size:
        return torch.empty(shape, dtype=dtype)
    numbers = np.memmap(path, np.uint8, "r+", offset, (size,))
    return torch.from_numpy(numbers).view(dtype).view(shape)


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """Open a new file, which is deleted again if the block fails."""
    with open(path, "xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise
