"""Trace a copy of a model with torch.fx: the graph of its evaluation mode, on flat inputs."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence

from dynal_fast.pool.containers import map_tensors
from dynal_fast.pool.forward import Forward

PREFIX = "model."  # of the model's own modules and tensors in the graph
WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


class UntraceableError(Exception):
    """A model has no graph that stands for it; the message says why."""


class Tracer(fx.Tracer):
    """Records reads of buffers, so that their values at the time of tracing are not kept."""

    proxy_buffer_attributes = True


class Called(nn.Module):
    """A model that takes the tensors of its inputs as a list; for tracing.

    >>> called = Called(nn.Linear(2, 3), lambda model, inputs: model(inputs["x"]),
    ...                 {"x": torch.ones(1, 2)})
    >>> called([torch.zeros(5, 2)]).shape
    torch.Size([5, 3])
    """

    def __init__(self, model: nn.Module, call: Forward, inputs: Any) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.inputs = map_tensors(lambda tensor: tensor.new_empty(0), inputs)

    def forward(self, tensors: Any) -> Any:
        """Return the model's output."""
        place = itertools.count()
        inputs = map_tensors(lambda _: tensors[next(place)], self.inputs)
        return self.call(self.model, inputs)


def structure(inputs: Any) -> Any:
    """Return what inputs are made of: the types and keys of containers, without sizes.

    Raises
    ------
    UntraceableError
        There is something else in them than tensors, None and plain containers.

    >>> structure({"x": torch.zeros(2), "mask": None})
    ('dict', ('x', ('Tensor', 1, torch.float32)), ('mask', None))
    """
    if inputs is None:
        return None
    if isinstance(inputs, Tensor) and not inputs.is_nested:
        return "Tensor", inputs.ndim, inputs.dtype
    if isinstance(inputs, Mapping):
        items = [(key, structure(value)) for key, value in inputs.items()]
        return type(inputs).__name__, *items
    if isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence):
        return type(inputs).__name__, *map(structure, inputs)
    raise UntraceableError(f"its inputs hold a {type(inputs).__name__}")


def check_copyable(model: nn.Module) -> None:
    """Raise `UntraceableError` where a copy would run code of the model's that it should not.

    That is where it has hooks, which a copy would run or miss, or is a wrapper, or compiled.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise UntraceableError("there are global forward hooks")
    for name, part in model.named_modules():
        kind = type(part).__name__
        compiled = hasattr(part, "_orig_mod") or isinstance(part, torch.jit.ScriptModule)
        if compiled or kind in WRAPPERS:
            raise UntraceableError(f"{kind} runs code of its own")
        if part._forward_hooks or part._forward_pre_hooks:
            raise UntraceableError(f"{name or kind} has forward hooks")


def inference_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model in evaluation mode, without gradients and parametrizations.

    Raises
    ------
    UntraceableError
        As `check_copyable` does, or it cannot be copied.
    """
    check_copyable(model)
    try:
        copied = copy.deepcopy(model).eval().requires_grad_(False)
        for part in list(copied.modules()):
            if parametrize.is_parametrized(part):
                _make_plain(part)
    except Exception as error:  # anything that a part's __deepcopy__ raises
        raise UntraceableError(f"it cannot be copied ({first_line(error)})") from error
    return copied.requires_grad_(False)


def _make_plain(part: nn.Module) -> None:
    """Give a module plain parameters in the place of parametrized ones.

    torch's own ``remove_parametrizations`` would change the class, which is the live module's, too.
    """
    values = {name: getattr(part, name) for name in part.parametrizations}  # type: ignore[union-attr]
    del part._modules["parametrizations"]
    part.__class__ = type(part).__bases__[0]
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))


def sharing_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model that has the same tensors, with the flags that it has now.

    Raises
    ------
    UntraceableError
        As `inference_copy` does.
    """
    check_copyable(model)
    held = [value for part in model.modules() for value in _values_of(part)]
    try:
        return copy.deepcopy(model, {id(v): v for v in held if isinstance(v, Tensor)})
    except Exception as error:  # anything that a part's __deepcopy__ raises
        raise UntraceableError(f"it cannot be copied ({first_line(error)})") from error


def _values_of(part: nn.Module) -> list[Any]:
    return [*part._parameters.values(), *part._buffers.values(), *vars(part).values()]


def trace(model: nn.Module, call: Forward, inputs: Any) -> fx.GraphModule:
    """Return the graph of a copy that `inference_copy` made; it takes ``tensors_in(inputs)``.

    Raises
    ------
    UntraceableError
        torch.fx cannot follow its forward.
    """
    root = Called(model, call, inputs)
    try:
        graph = Tracer().trace(root)
        return fx.GraphModule(root, graph)
    except Exception as error:  # whatever the model's code raises when it is given proxies
        raise UntraceableError(f"torch.fx cannot trace it ({first_line(error)})") from error


def add_embedding(graph_module: fx.GraphModule, head: str | None) -> None:
    """Make the graph return ``(output, embedding)``: also the input of its last linear layer.

    Raises
    ------
    UntraceableError
        The graph has no call of that layer.
    """
    modules = dict(graph_module.named_modules(remove_duplicate=False))
    calls = [
        node
        for node in graph_module.graph.nodes
        if node.op == "call_module"
        and (
            isinstance(modules[node.target], nn.Linear)
            if head is None
            else node.target == PREFIX + head
        )
    ]
    if not calls:
        raise UntraceableError("its graph has no call of the layer that is given the embedding")
    given = [*calls[-1].args, *calls[-1].kwargs.values()][0]
    (output,) = [node for node in graph_module.graph.nodes if node.op == "output"]
    output.args = ((output.args[0], given),)
    graph_module.recompile()


def first_line(error: Exception) -> str:
    """Return an exception as a short text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
