"""How a model is called with a batch, and which part of its output is the logits."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]

AS_CALLBACK = "(to a callback, as get_logits=)"
ADVICE = f"pass forward=lambda model, inputs: ... that returns the logits {AS_CALLBACK}"


def model_call() -> Forward:
    """Return a function that calls ``model(inputs)``, or ``model(**inputs)`` for some dicts.

    A dict is unpacked if the model's ``forward`` has its keys as arguments. Each model's signature
    is read once. If a wrapper such as ``DataParallel`` takes any arguments, the signature of the
    module inside counts.

    >>> class Scaled(nn.Module):
    ...     def forward(self, x, scale=1):
    ...         return x * scale
    >>> model_call()(nn.DataParallel(Scaled()), {"x": 2, "scale": 3})
    6
    """
    takes_keywords = functools.cache(_takes_keywords)

    def call(model: nn.Module, inputs: Any) -> Any:
        if not isinstance(inputs, Mapping):
            return model(inputs)
        if takes_keywords(model, tuple(inputs)):
            return model(**inputs)
        try:
            return model(inputs)
        except (TypeError, AttributeError) as error:
            raise TypeError(
                f"{type(model).__name__} was given a dict with the keys {_keys(inputs)}, since its "
                f"forward does not take them as arguments, and failed ({error}); leave out what it "
                f"does not take, or pass forward=, such as forward=lambda model, inputs: "
                f"model(inputs[{next(iter(inputs), 'x')!r}]) {AS_CALLBACK}"
            ) from error

    return call


def logits_of(output: Any, model: nn.Module, num_ids: int) -> Tensor:
    """Return the logits ``(batch, classes)`` out of a model's output for ``num_ids`` samples.

    Raises
    ------
    TypeError
        The output is not a tensor and has no ``logits``.
    ValueError
        The logits are not ``(batch, classes)`` with one row for each id.
    """
    logits = output
    if not isinstance(output, Tensor):
        logits = getattr(output, "logits", None)
        if logits is None and isinstance(output, Mapping):
            logits = output.get("logits")
    name = type(model).__name__
    if not isinstance(logits, Tensor):
        got = type(output).__name__
        if isinstance(output, Mapping):
            got += f" with the keys {_keys(output)}"
        raise TypeError(
            f"{name} returned {got}, not a tensor of logits or an output with .logits; {ADVICE}"
        )
    if logits.ndim != 2:
        raise ValueError(
            f"{name} returned logits {tuple(logits.shape)}, and one row for each sample is needed: "
            f"(batch, classes){_cure(logits.ndim)}"
        )
    if len(logits) != num_ids:
        raise ValueError(
            f"{name} returned logits {tuple(logits.shape)} for {num_ids} ids: one row for each is "
            "needed"
        )
    return logits


def _cure(ndim: int) -> str:
    if ndim == 3:
        return (
            "; of token logits (batch, tokens, classes) pass forward=lambda model, inputs: ... "
            "that pools them over the tokens, such as a masked mean, or let every token be a "
            f"sample with an id of its own and flatten them there, .flatten(0, 1) {AS_CALLBACK}"
        )
    if ndim > 3:
        return (
            "; of the logits of pixels (batch, classes, height, width) pass forward=lambda model, "
            "inputs: ... that pools them, .mean((2, 3)), or let every pixel be a sample with an id "
            f"of its own and flatten them there, .movedim(1, -1).flatten(0, -2) {AS_CALLBACK}"
        )
    return (
        "; of one output z for two classes pass forward= that returns the logits (0, z) "
        f"{AS_CALLBACK}"
    )


def _takes_keywords(model: nn.Module, keys: tuple[Any, ...]) -> bool:
    if not all(isinstance(name, str) for name in keys):
        return False
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # compiled code without a signature
        return False
    kinds = {name: given.kind for name, given in signature.parameters.items()}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name for name, kind in kinds.items() if kind not in variadic}
    children = list(model.children())
    if not named and inspect.Parameter.VAR_POSITIONAL in kinds.values() and len(children) == 1:
        return _takes_keywords(children[0], keys)
    try:
        signature.bind(**dict.fromkeys(keys))
    except TypeError:
        return False
    return not named or any(name in named for name in keys)


def _keys(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(map(repr, mapping))
