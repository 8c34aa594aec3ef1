"""Rewrite the graph of a model in evaluation mode so that it costs less and computes the same.

Batch normalisation after a convolution or a linear layer becomes part of its weights:
``w' = w g / sqrt(var + eps)``, ``b' = (b - mean) g / sqrt(var + eps) + beta``. ReLU and max-pooling
commute, and the pooled image is smaller. ReLU overwrites what nobody else reads.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dynal_fast.pool.module_tensors import ModuleTensors
from dynal_fast.pool.trace import PREFIX, UntraceableError, first_line

BEFORE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
POOL_FUNCTIONS = ("max_pool1d", "max_pool2d", "max_pool3d")
RELUS = (functional.relu, torch.relu)
IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class Folding:
    """A layer of the graph that stands for two of the model, named as in the graph."""

    layer: str
    norm: str
    folded: Any

    def refresh(self, layer: Any, norm: Any) -> None:
        """Compute the weights anew from the two layers of the live model."""
        weight, bias = layer.weight.double(), layer.bias
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        factor = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = factor * norm.weight.double()
        shift = -mean if bias is None else bias.double() - mean
        shift = shift * factor
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        self.folded.weight.copy_(weight * factor.view(-1, *[1] * (weight.ndim - 1)))
        self.folded.bias.copy_(shift)


@torch.no_grad()
def refresh(
    module: nn.Module, foldings: Sequence[Folding], model: nn.Module, prefix: str = PREFIX
) -> None:
    """Set the tensors of a copy of ``model`` to the model's, in place.

    ``prefix`` is that of their names in the copy; folded layers are computed anew.

    Raises
    ------
    UntraceableError
        The model lacks a tensor, or it has another shape.
    """
    ours = {n: t for n, t in ModuleTensors(module).items() if n.startswith(prefix)}
    try:
        theirs = [_attribute_of(model, name.removeprefix(prefix)) for name in ours]
        if ours:
            torch._foreach_copy_(list(ours.values()), theirs)
        for folding in foldings:
            layer, norm = (
                model.get_submodule(name.removeprefix(prefix))
                for name in (folding.layer, folding.norm)
            )
            folding.refresh(layer, norm)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UntraceableError(f"its weights cannot be copied ({first_line(error)})") from error


def _attribute_of(model: nn.Module, name: str) -> Any:
    path, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(path), attribute)


def simplify(graph_module: fx.GraphModule) -> tuple[list[Folding], int]:
    """Rewrite a graph in place; return the foldings and how many other rewrites there were.

    >>> model = fx.symbolic_trace(nn.Sequential(
    ...     nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)).eval())
    >>> foldings, others = simplify(model)
    >>> len(foldings), others, len(model.graph.nodes) - 2  # folded, pooled, then cut off at 0
    (1, 2, 3)
    """
    _leave_out_idle(graph_module)
    foldings = _fold(graph_module)
    others = _pool_before_relu(graph_module) + _relu_in_place(graph_module)
    _reshape(graph_module)
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return foldings, others


def has_images(graph_module: nn.Module) -> bool:
    """Return whether a model has 2-D convolutions, for which channels-last is faster."""
    return any(isinstance(layer, nn.Conv2d) for layer in graph_module.modules())


def _modules(graph_module: fx.GraphModule) -> dict[str, nn.Module]:
    return dict(graph_module.named_modules(remove_duplicate=False))


def _leave_out_idle(graph_module: fx.GraphModule) -> None:
    """Leave out what returns its input in evaluation mode."""
    modules = _modules(graph_module)
    for node in list(graph_module.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) not in IDLE:
            continue
        if not modules[node.target].training and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def _fold(graph_module: fx.GraphModule) -> list[Folding]:
    modules = _modules(graph_module)
    calls = Counter(str(n.target) for n in graph_module.graph.nodes if n.op == "call_module")
    foldings: list[Folding] = []
    for node in list(graph_module.graph.nodes):
        if node.op != "call_module" or type(norm := modules[node.target]) not in NORMS:
            continue
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        layer: Any = modules[str(before.target)]
        if type(layer) not in BEFORE or len(before.users) > 1 or calls[str(before.target)] > 1:
            continue
        if norm.training or norm.running_mean is None or norm.num_features != len(layer.weight):
            continue
        name = f"folded_{len(foldings)}"
        folding = Folding(str(before.target), str(node.target), _with_bias(layer))
        graph_module.add_submodule(name, folding.folded)
        with graph_module.graph.inserting_before(before):
            new = graph_module.graph.call_module(name, before.args, before.kwargs)
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        graph_module.graph.erase_node(before)
        foldings.append(folding)
    return foldings


def _with_bias(layer: nn.Module) -> nn.Module:
    """Return a layer like this one, with weights and a bias of its own."""
    other = copy.copy(layer)
    other._parameters = dict(layer._parameters)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    other.weight = nn.Parameter(torch.empty_like(weight), requires_grad=False)
    other.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False)
    return other


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in RELUS


def _is_pool(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        pool = modules[str(node.target)]
        return type(pool) in POOLS and not pool.return_indices
    # torch.fx records functional.max_pool2d as a function without a name in its module.
    named = node.op == "call_function" and getattr(node.target, "__name__", "") in POOL_FUNCTIONS
    return named and len(node.args) <= 6 and not node.kwargs.get("return_indices")


def _is_in_place(relu: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if relu.op == "call_module":
        return bool(modules[str(relu.target)].inplace)
    return relu.target == "relu_" or bool(relu.kwargs.get("inplace")) or len(relu.args) > 1


def _input(node: fx.Node) -> fx.Node | None:
    return node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None


def _pool_before_relu(graph_module: fx.GraphModule) -> int:
    modules = _modules(graph_module)
    swapped = 0
    for node in list(graph_module.graph.nodes):
        relu = _input(node)
        if not _is_pool(node, modules) or relu is None or not _is_relu(relu, modules):
            continue
        source = _input(relu)
        if source is None or len(relu.users) > 1:
            continue
        if len(source.users) > 1 and _is_in_place(relu, modules):
            continue  # the others may read what ReLU left
        node.replace_input_with(relu, source)
        with graph_module.graph.inserting_after(node):
            after = graph_module.graph.call_function(torch.relu, (node,))
        node.replace_all_uses_with(after, delete_user_cb=lambda user, new=after: user is not new)
        graph_module.graph.erase_node(relu)
        swapped += 1
    return swapped


def _relu_in_place(graph_module: fx.GraphModule) -> int:
    """Let ReLU overwrite its input where that is new memory that nobody else reads."""
    modules = _modules(graph_module)
    changed = 0
    for node in list(graph_module.graph.nodes):
        source = _input(node)
        if not _is_relu(node, modules) or source is None or len(source.users) > 1:
            continue
        if not _is_new(source, modules):
            continue
        with graph_module.graph.inserting_before(node):
            new = graph_module.graph.call_function(torch.relu_, (source,))
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)
        changed += 1
    return changed


def _reshape(graph_module: fx.GraphModule) -> None:
    """Let views be reshaped: channels-last images have no flat view."""
    others = {"view": "reshape", "view_as": "reshape_as"}
    for node in graph_module.graph.nodes:
        if node.op == "call_method" and not any(isinstance(a, torch.dtype) for a in node.args):
            node.target = others.get(str(node.target), node.target)


def _is_new(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node's output is memory of its own."""
    if _is_pool(node, modules):
        return True
    if node.op == "call_module":
        return type(modules[str(node.target)]) in (*BEFORE, *NORMS, *POOLS)
    if node.op == "call_function":
        # a + 0 may be a itself in no case: torch's addition always allocates.
        return getattr(node.target, "__name__", "") == "add" and node.kwargs.get("out") is None
    return False
