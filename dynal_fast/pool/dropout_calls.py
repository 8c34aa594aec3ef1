"""Finds the dropout of a model that stays off, by watching the calls of a forward pass."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# For each function: the position of the rate, the default rate, the position of the training flag.
FUNCTIONS: dict[str, tuple[int, float | None, int | None]] = {
    **{
        name: (1, 0.5, 2)
        for source in (nn.functional, torch)
        for name in dir(source)
        if "dropout" in name and not name.startswith("_")
    },
    "scaled_dot_product_attention": (4, None, None),
    "multi_head_attention_forward": (10, None, 13),
}
# Attributes with these words in their names are rates of something else.
OTHER_RATES = ("path", "layer", "resid", "proj", "hidden", "activation", "embed")


@contextmanager
def watching_dropout(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """List, as text, the dropout that stays off in forward passes inside the block.

    It finds calls of torch's functions with dropout off, and those of ``layers`` (which are
    switched on) that are not called although their module runs. The list is filled on exit.

    >>> class Functional(nn.Module):
    ...     def forward(self, x):
    ...         return nn.functional.dropout(x, 0.5, self.training)
    >>> model = nn.Sequential(Functional()).eval()
    >>> with watching_dropout(model, {}) as idle:
    ...     _ = model(torch.ones(2))
    >>> idle
    ["'0' (Functional) calls dropout, which is off in evaluation mode"]
    """
    idle: list[str] = []
    ran: set[str] = set()
    with ExitStack() as stack:
        if not _see_through_compiled_code(stack):
            yield idle
            return
        owners = {name: _owner(model, name) for name in layers}
        for name in {*layers, *owners.values()}:  # by name: DataParallel runs copies of modules
            module = model.get_submodule(name)
            hook = module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
            stack.callback(hook.remove)
        calls = stack.enter_context(_Calls(model))
        yield idle
    idle.extend(calls.idle)
    for name, layer in layers.items():
        owner = owners[name]
        # Attention may take the rate of its dropout layer and pass it to torch's function.
        if name not in ran and owner in ran and model.get_submodule(owner) not in calls.acting:
            idle.append(f"{called(name, layer)} did not run")


def called(name: str, module: nn.Module) -> str:
    """Return a module's name in the model and its type, for a message."""
    kind = type(module).__name__
    return f"{name!r} ({kind})" if name else kind


def _owner(model: nn.Module, name: str) -> str:
    """Return the name of the module whose ``forward`` may call this one, lists skipped."""
    while name:
        name = name.rpartition(".")[0]
        if not isinstance(model.get_submodule(name), (nn.ModuleList, nn.ModuleDict)):
            break
    return name


def _see_through_compiled_code(stack: ExitStack) -> bool:
    """Run compiled models eagerly; return False if torch cannot (before 2.6)."""
    if "torch._dynamo" not in sys.modules:
        return True
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is not None:
        stack.enter_context(set_stance("force_eager"))
    return set_stance is not None


class _Calls(TorchFunctionMode):
    """Collects calls of dropout functions that have no effect."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.idle: dict[str, None] = {}
        self.acting: set[nn.Module | None] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in FUNCTIONS:
            self._look_at(name, args, kwargs)
        return func(*args, **kwargs)

    def _look_at(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rate_at, default, flag_at = FUNCTIONS[name]
        rate = _argument(args, kwargs, rate_at, ("p", "dropout_p"), default)
        if rate is None or rate >= 1:
            return
        on = _argument(args, kwargs, flag_at, ("training", "train"), True)
        module = _calling_module()
        if rate and on:
            self.acting.add(module)
        elif rate or (module is not None and not module.training and _has_rate(module)):
            caller = "the model" if module is None else called(self.names.get(module, ""), module)
            self.idle[f"{caller} calls {name}, which is off in evaluation mode"] = None


def _argument(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    at: int | None,
    names: tuple[str, str],
    default: Any,
) -> Any:
    if at is not None and at < len(args):
        return args[at]
    return next((kwargs[name] for name in names if name in kwargs), default)


def _calling_module() -> nn.Module | None:
    """Return the innermost module whose method is running."""
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _has_rate(module: nn.Module) -> bool:
    """Return whether the module has a rate among its attributes, to use in training only."""
    return any(
        "drop" in name and isinstance(value, (int, float)) and 0 < value < 1
        for name, value in vars(module).items()
        if not any(part in name for part in OTHER_RATES)
    )
