"""Read what torch.save wrote: memory-mapped, without running code from the file."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dynal_fast.embeddings.source import FileError, Source, Wanted, choose_array, parsing

CURE = 'save one tensor (samples, features), or a dictionary of tensors: torch.save({"x": x}, path)'


def open_torch(path: Path, wanted: Wanted) -> Source:
    """Open a .pt or .pth file: a tensor, or the one of a dictionary that ``wanted.key`` names."""
    import torch

    wanted.check_no_columns(path)
    with parsing(path, "a tensor that torch.save wrote"):
        mapped = zipfile.is_zipfile(path)  # torch < 1.6 wrote another format
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings that do not concern this package
            try:
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except Exception as error:
                if "weights_only" not in str(error).lower():
                    raise
                raise FileError(f"{path} holds Python objects, which are not run; {CURE}") from None
    if isinstance(found, dict):
        tensors = {str(name): item for name, item in found.items() if _is_numbers(item)}
        name = choose_array(
            path,
            list(tensors),
            wanted.key,
            lambda name: f"{tuple(tensors[name].shape)} {tensors[name].dtype}",
        )
        found = tensors[name]
    else:
        wanted.check_no_key(path)
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, torch.Tensor):
        raise FileError(f"{path} holds a {type(found).__name__}, not a tensor; {CURE}")
    return Source(path, tuple(found.shape), *_numbers(path, found.detach()))


def _is_numbers(item: Any) -> bool:
    import torch

    return isinstance(item, (torch.Tensor, np.ndarray))


def _numbers(path: Path, tensor: Any) -> tuple[Any, Any]:
    """Return the dtype of a tensor and the function that gives its numbers."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise FileError(f"{path} holds a sparse or quantized tensor; save it with .to_dense()")
    if tensor.is_complex():
        raise FileError(f"{path} holds complex numbers; save torch.view_as_real(x).flatten(1)")
    if tensor.device.type != "cpu":
        raise FileError(f"{path} holds a tensor without numbers (on {tensor.device})")
    if tensor.dtype == torch.bfloat16:
        return torch.bfloat16, lambda: tensor
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        raise FileError(f"{path} holds {tensor.dtype}; save it with .float()")
    array = tensor.resolve_neg().numpy()
    return array.dtype, lambda: array
