"""MC dropout at the price of one forward: what comes before the first dropout runs once a batch.

The graph of the model is cut into what no random number reaches, run once, and the rest, which is
run in every pass. The rest draws the same numbers in the same order as the whole model would, so
that the passes are those of the whole model, bit for bit, where nothing is folded.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from dynal_fast.pool.containers import map_tensors, tensors_in
from dynal_fast.pool.dropout_calls import FUNCTIONS
from dynal_fast.pool.fold import refresh, simplify
from dynal_fast.pool.forward import Forward, logits_of
from dynal_fast.pool.in_parts import channels_last, images_last, part_size, parts_of
from dynal_fast.pool.trace import (
    UntraceableError,
    inference_copy,
    sharing_copy,
    structure,
    trace,
)
from dynal_fast.pool.twin import difference, tolerance_of

DRAWS = ("bernoulli", "rand", "normal", "uniform", "multinomial", "exponential", "poisson")


class DropoutSplit:
    """A model in two parts: until the first active dropout, and from there on.

    Parameters
    ----------
    model
        In evaluation mode but for its dropout layers, which are switched on.
    call
        What calls it with the inputs of a batch.
    inputs
        Those of the first batch.
    folds
        Fold batch normalisation, as `Accelerator` does.

    Raises
    ------
    UntraceableError
        It cannot be cut, or nothing would be saved.

    >>> import torch
    >>> from dynal_fast.pool.forward import model_call
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2)).eval()
    >>> model[1].training = True
    >>> split = DropoutSplit(model, model_call(), torch.ones(5, 4), folds=False)
    >>> before = split.before(torch.ones(5, 4))
    >>> [tuple(tensor.shape) for tensor in before], split.after(before, 5).shape
    ([(5, 3)], torch.Size([5, 2]))
    """

    def __init__(self, model: nn.Module, call: Forward, inputs: Any, folds: bool) -> None:
        self._structure = structure(inputs)
        self.model = model
        self.folds = folds
        copied = inference_copy(model) if folds else sharing_copy(model)
        flags = {name: part.training for name, part in model.named_modules()}
        for name, part in copied.named_modules():
            part.training = flags.get(name, False)
        whole = trace(copied, call, inputs)
        if folds:
            foldings, _ = simplify(whole)
            refresh(whole, foldings, model)
        self._before, self._after = _parts(whole)
        self._images = folds and channels_last(self._before)
        self._part: int | None = None  # samples
        self._size = 0  # of the batches that run in parts

    def takes(self, inputs: Any) -> bool:
        """Return whether a batch is made like the first one."""
        try:
            return bool(structure(inputs) == self._structure)
        except UntraceableError:
            return False

    def before(self, inputs: Any) -> tuple[Any, ...]:
        """Return what the second part needs of a batch."""
        tensors = self._tensors(inputs)
        if self._part is None or any(t.shape[:1] != (self._size,) for t in tensors):
            values = self._before(tensors)
        else:
            parts = [self._before(part) for part in parts_of(tensors, self._part)]
            values = tuple(torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
        # Dropout draws in the order of memory: channels-first, as in the model.
        return map_tensors(Tensor.contiguous, values) if self._images else values

    def fit_to(self, inputs: Any) -> None:
        """Let batches of this size run in parts, if they are large and their samples do not mix.

        Only where it folds: the logits of parts may differ by rounding.
        """
        tensors = self._tensors(inputs)
        size = part_size(self._before, tensors) if self.folds else None
        if size is None:
            return
        n, allowed = len(tensors[0]), tolerance_of(self.model)
        try:
            # forward: a graph that is called prints an error to stderr before it raises it.
            whole = self._before.forward([tensor.clone() for tensor in tensors])
            copies = parts_of([tensor.clone() for tensor in tensors], size)
            parts = [self._before.forward(copied) for copied in copies]
        except Exception:  # of a graph that does not hold for such a part
            return
        if not all(isinstance(value, Tensor) and value.shape[:1] == (n,) for value in whole):
            return
        pairs = zip(zip(*parts, strict=True), whole, strict=True)
        if all(difference(torch.cat(of_parts), value) <= allowed for of_parts, value in pairs):
            self._part, self._size = size, n

    def _tensors(self, inputs: Any) -> list[Tensor]:
        tensors = tensors_in(inputs)
        return images_last(tensors) if self._images else tensors

    def after(self, values: tuple[Any, ...], num_ids: int) -> Tensor:
        """Return the logits (batch, classes) of a pass, with new random numbers."""
        output = self._after(*map_tensors(Tensor.clone, values))  # dropout may work in place
        return logits_of(output, self.model, num_ids)


def _parts(whole: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut a graph: what no random node reaches, and the rest."""
    modules = dict(whole.named_modules(remove_duplicate=False))
    rest: set[fx.Node] = set()
    of_inputs: set[fx.Node] = set()
    for node in whole.graph.nodes:
        if node.op == "placeholder" or any(n in of_inputs for n in node.all_input_nodes):
            of_inputs.add(node)
        if _draws(node, modules) or any(n in rest for n in node.all_input_nodes):
            rest.add(node)
    (output,) = (node for node in whole.graph.nodes if node.op == "output")
    if output not in rest:
        raise UntraceableError("its graph shows no dropout")
    needed = {n for node in rest for n in node.all_input_nodes if n not in rest}
    cut = [node for node in whole.graph.nodes if node in needed and node in of_inputs]
    if all(n.op == "placeholder" for node in cut for n in node.all_input_nodes):
        raise UntraceableError("its dropout is at its beginning")
    first, second = fx.Graph(), fx.Graph()
    mine: dict[fx.Node, fx.Node] = {}
    theirs = {node: second.placeholder(f"given_{i}") for i, node in enumerate(cut)}
    for node in whole.graph.nodes:
        if node.op == "output":
            continue
        if node not in rest:
            mine[node] = first.node_copy(node, mine.__getitem__)
        if node in rest or node not in of_inputs:  # weights, and what depends on them alone
            theirs[node] = second.node_copy(node, theirs.__getitem__)
    first.output(tuple(mine[node] for node in cut))
    second.node_copy(output, theirs.__getitem__)
    return fx.GraphModule(whole, first), fx.GraphModule(whole, second)


def _draws(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node draws random numbers, as far as its name and flags tell."""
    if node.op == "call_module":
        # In evaluation mode only what activate_dropout switched on has the flag.
        return any(part.training for part in modules[str(node.target)].modules())
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in FUNCTIONS:
        rate_at, default, flag_at = FUNCTIONS[name]
        rate = _argument(node, rate_at, ("p", "dropout_p"), default)
        return bool(rate not in (0, None) and _argument(node, flag_at, ("training", "train"), True))
    return any(word in name for word in DRAWS) and name != "normalize"


def _argument(node: fx.Node, at: int | None, names: tuple[str, str], default: Any) -> Any:
    if at is not None and at < len(node.args):
        return node.args[at]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)
