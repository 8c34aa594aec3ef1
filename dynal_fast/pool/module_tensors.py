"""A module's parameters and buffers by name; deep copies of modules."""

import copy
from collections.abc import ItemsView, KeysView

import torch
from torch import Tensor, nn

LAZY = (nn.UninitializedParameter, nn.UninitializedBuffer)


class ModuleTensors:
    """The tensors that a module has now, by their names.

    The same as ``named_parameters`` and ``named_buffers``, but found in one walk over the modules,
    in a third of the time. A tensor that is tied under several names has the first of them.

    Parameters
    ----------
    module
        The module.

    Attributes
    ----------
    parameters, buffers : dict of str to torch.Tensor
        By name, in the order of the modules.

    >>> tensors = ModuleTensors(nn.BatchNorm1d(2))
    >>> list(tensors.parameters), list(tensors.buffers)
    (['weight', 'bias'], ['running_mean', 'running_var', 'num_batches_tracked'])
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        seen = {id(None)}  # ids are faster than tensors' hashes
        modules = [("", module)]
        while modules:
            prefix, owner = modules.pop()
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            for kind, found in (
                (owner._parameters, self.parameters),
                (owner._buffers, self.buffers),
            ):
                for name, tensor in kind.items():
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        found[prefix + name] = tensor  # type: ignore[assignment]
            if owner._modules:
                children = [(f"{prefix}{name}.", child) for name, child in owner._modules.items()]
                modules += reversed(children)  # type: ignore[arg-type]
        self._all = self.parameters | self.buffers

    def __getitem__(self, name: str) -> Tensor:
        return self._all[name]

    def get(self, name: str) -> Tensor | None:
        """Return the tensor of that name, or None."""
        return self._all.get(name)

    def keys(self) -> KeysView[str]:
        """Return the names of all tensors."""
        return self._all.keys()

    def items(self) -> ItemsView[str, Tensor]:
        """Return names and tensors, parameters first."""
        return self._all.items()

    @property
    def layout(self) -> tuple[list[str], int, list[tuple[torch.dtype, torch.device, torch.Size]]]:
        """The names, the number of parameters, and each tensor's dtype, device and shape."""
        kinds = [(tensor.dtype, tensor.device, tensor.shape) for tensor in self._all.values()]
        return list(self._all), len(self.parameters), kinds


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model that shares no parameter or buffer with it.

    Raises
    ------
    TypeError
        ``model`` is not a module.
    ValueError
        It has no parameters, has some that are not initialised yet, is a wrapper of the module that
        trains, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if type(module).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel"):
            raise ValueError(
                f"model must be the module itself, without its {type(module).__name__} wrapper: "
                "pass wrapper.module"
            )
    tensors = ModuleTensors(model)
    if not tensors.parameters:
        raise ValueError(f"model has no parameters to average: {type(model).__name__}")
    if lazy := [
        name for name, tensor in tensors.items() if tensor.is_meta or isinstance(tensor, LAZY)
    ]:
        raise ValueError(
            f"model has tensors that are not initialised yet: {lazy}; "
            "call it on one batch, or load its weights, then make its teacher"
        )
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # anything that a part's __deepcopy__ raises
        reason = f"{type(error).__name__}: {error}".partition(".  ")[0]
        raise ValueError(
            f"model cannot be deep-copied ({reason}), as its teacher has to be: keep locks, files, "
            "loaders and tensors with a graph out of the module (take weight_norm from "
            "torch.nn.utils.parametrizations, make pruning permanent), or give its class a "
            "__deepcopy__"
        ) from error
    copies = ModuleTensors(copied)
    if shared := [name for name, tensor in tensors.items() if copies.get(name) is tensor]:
        raise ValueError(
            f"model cannot be deep-copied: a copy shares {shared} with it. Its __deepcopy__ must "
            "copy every parameter and buffer"
        )
    for tensor in copies.buffers.values():
        if tensor.layout is torch.strided and 0 in tensor.stride():  # expanded: cannot be written
            tensor.data = tensor.contiguous()
    return copied


def check_same_tensors(ours: ModuleTensors, theirs: ModuleTensors, compare_buffers: bool) -> None:
    """Raise ValueError unless a teacher's tensors and its model's have the same names and shapes.

    Without ``compare_buffers`` the shapes of buffers may differ.
    """
    changes = []
    if added := sorted(theirs.keys() - ours.keys()):
        changes.append(f"has {added} in addition")
    if removed := sorted(ours.keys() - theirs.keys()):
        changes.append(f"lacks {removed}")
    for name in theirs.keys() & ours.keys():
        if (name in theirs.buffers) != (name in ours.buffers):
            changes.append(f"has {name} as a {'buffer' if name in theirs.buffers else 'parameter'}")
        elif theirs[name].is_meta:
            changes.append(f"has {name} on the meta device, without values")
        elif theirs[name].shape != ours[name].shape and (
            compare_buffers or name not in theirs.buffers
        ):
            was, now = tuple(ours[name].shape), tuple(theirs[name].shape)
            changes.append(f"has {name} of shape {now} instead of {was}")
    if changes:
        raise ValueError(
            f"the model changed after its teacher was made: it {'; '.join(sorted(changes))}. "
            "Make a new EMATeacher of it"
        )
