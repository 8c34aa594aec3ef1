"""The EMA teacher: the exponential moving average of a model's weights (TOD paper, eq. 6)."""

import numbers
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dynal_fast.pool.module_tensors import ModuleTensors, check_same_tensors, deep_copy

Buffers = Literal["copy", "average", "keep"]


class EMATeacher:
    """Average a model's weights over the training steps: ``w_ema <- alpha w_ema + (1 - alpha) w``.

    This is eq. 6 of "Semi-Supervised Active Learning with Temporal Output Discrepancy". All
    weights of one dtype and device are updated in place by one multi-tensor operation. The
    teacher is in evaluation mode, without gradients.

    Averages of float16 and bfloat16 weights are kept in float32 beside the teacher's own weights:
    at alpha = 0.999 a step is smaller than half a unit in the last place of such a weight and
    would be rounded away.

    Parameters
    ----------
    model
        The model that trains: the module itself, not its ``DistributedDataParallel`` wrapper. It
        may later be converted or moved, or load weights with ``assign=True``: each update looks its
        tensors up by name, and the teacher takes over their dtypes and devices. Adding, removing or
        reshaping a parameter or buffer is an error at the next update.
    alpha
        The decay in [0, 1]; the paper uses 0.999.
    warm_up
        Use ``min(1 - 1/(t+1), alpha)`` at update t = 0, 1, ... instead: the first update copies
        the weights, and until alpha is reached the teacher is the plain mean of the weights so
        far. The initial weights then do not count at all.
    buffers
        What an update does with buffers, such as the running statistics of batch normalisation.
        ``"copy"`` takes the model's, which are averages already; ``"average"`` averages the
        floating-point and complex ones like weights and copies the others; ``"keep"`` leaves the
        teacher's unchanged.

    Attributes
    ----------
    model : torch.nn.Module
        The teacher.
    num_updates : int
        Updates so far: the t of the warm-up.

    Raises
    ------
    TypeError
        ``model`` is not a module, ``alpha`` not a number, or ``warm_up`` not a bool.
    ValueError
        ``alpha`` is outside [0, 1], ``buffers`` is not one of the three, or the model has no
        parameters, has some that are not initialised yet, or cannot be deep-copied.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 0.0)
    >>> teacher = EMATeacher(model, alpha=0.75)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    >>> teacher.attach(optimizer)
    >>> model(torch.ones(1, 1)).sum().backward()
    >>> optimizer.step()  # the weight is -1 now
    >>> teacher.model.weight.item()
    -0.25
    >>> teacher.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        alpha: float = 0.999,
        *,
        warm_up: bool = False,
        buffers: Buffers = "copy",
    ) -> None:
        self.alpha = _decay(alpha)
        if not isinstance(warm_up, bool):
            raise TypeError(f"warm_up must be True or False, got {warm_up!r}")
        if buffers not in ("copy", "average", "keep"):
            raise ValueError(f"buffers must be 'copy', 'average' or 'keep', got {buffers!r}")
        self.warm_up = warm_up
        self.num_updates = 0
        self.model = deep_copy(model).eval().requires_grad_(False)
        self._followed = model
        self._buffers = buffers
        self._hook: RemovableHandle | None = None
        self._low_precision: dict[str, Tensor] = {}
        self._prepare(ModuleTensors(self.model), ModuleTensors(model))

    @torch.no_grad()
    def update(self) -> None:
        """Move the teacher towards the model's weights: ``w_ema <- alpha w_ema + (1 - alpha) w``.

        On a GPU this does not wait for the device.

        Raises
        ------
        ValueError
            The model's parameters or buffers, which the message names, differ from the teacher's in
            name or shape. The teacher is unchanged.

        Examples
        --------
        >>> model = nn.Linear(1, 1, bias=False)
        >>> teacher = EMATeacher(model, alpha=0.5)
        >>> _ = nn.init.constant_(model.weight, 1.0), nn.init.constant_(teacher.model.weight, 0.0)
        >>> teacher.update()
        >>> teacher.model.weight.item()
        0.5
        """
        ours, theirs = self._matched()
        alpha = self.alpha
        if self.warm_up:
            alpha = min(1.0 - 1.0 / (self.num_updates + 1), alpha)
        for names in self._averaged:
            averages = [self._average(name, ours) for name in names]
            weights = [theirs[name] for name in names]
            if averages[0].dtype != weights[0].dtype:
                weights = [weight.float() for weight in weights]
            torch._foreach_lerp_(averages, weights, 1.0 - alpha)
        rounded = list(self._low_precision)
        destinations = [ours[name] for name in (*rounded, *self._copied)]
        if destinations:
            sources = [self._low_precision[name] for name in rounded]
            sources += [theirs[name] for name in self._copied]
            torch._foreach_copy_(destinations, sources)
        self.num_updates += 1

    def match(self) -> None:
        """Take over the dtypes and devices that the model has now, as every update does.

        Needed where a teacher is used, or its state loaded, after the model was converted or moved
        and before the next update.

        Raises
        ------
        ValueError
            As in `update`.

        Examples
        --------
        >>> model = nn.Linear(1, 1)
        >>> teacher = EMATeacher(model)
        >>> _ = model.double()
        >>> teacher.match()
        >>> teacher.model.weight.dtype
        torch.float64
        """
        self._matched()

    def _matched(self) -> tuple[ModuleTensors, ModuleTensors]:
        ours, theirs = ModuleTensors(self.model), ModuleTensors(self._followed)
        layout = theirs.layout
        if layout != self._layout or ours.layout != layout:
            self._prepare(ours, theirs)
        return ours, theirs

    def _average(self, name: str, ours: ModuleTensors) -> Tensor:
        return self._low_precision.get(name, ours[name])

    @torch.no_grad()
    def _prepare(self, ours: ModuleTensors, theirs: ModuleTensors) -> None:
        """Give the teacher the model's dtypes and devices; list what is averaged and copied."""
        check_same_tensors(ours, theirs, compare_buffers=self._buffers != "keep")
        averaged: dict[Any, list[str]] = {}
        self._copied = []
        for name, weight in theirs.items():
            if name in theirs.buffers and self._buffers == "keep":
                _convert(ours[name], weight, ours[name])
                continue
            is_weight = name not in theirs.buffers or self._buffers == "average"
            if not is_weight or not (weight.is_floating_point() or weight.is_complex()):
                self._low_precision.pop(name, None)
                _convert(ours[name], weight, ours[name])
                self._copied.append(name)
                continue
            average = self._average(name, ours)
            if weight.dtype in (torch.float16, torch.bfloat16):
                self._low_precision[name] = average.detach().to(weight.device, torch.float32)
            else:
                self._low_precision.pop(name, None)
            _convert(ours[name], weight, average)
            averaged.setdefault((weight.dtype, weight.device), []).append(name)
        self._averaged = list(averaged.values())
        self._layout = theirs.layout

    def attach(self, optimizer: Optimizer) -> None:
        """Update after every step of ``optimizer`` from now on.

        Steps that a gradient scaler skips are skipped here, too.

        Parameters
        ----------
        optimizer
            The one that trains the model.

        Raises
        ------
        RuntimeError
            The teacher is attached already: call `detach` first.

        Examples
        --------
        >>> model = nn.Linear(1, 1)
        >>> teacher, optimizer = EMATeacher(model), torch.optim.SGD(model.parameters(), lr=0.1)
        >>> teacher.attach(optimizer)
        >>> optimizer.step()
        >>> teacher.num_updates
        1
        """
        if self._hook is not None:
            raise RuntimeError("the teacher is attached to an optimizer already; detach() it first")
        self._hook = optimizer.register_step_post_hook(lambda *_: self.update())

    @property
    def attached(self) -> bool:
        """Whether the teacher follows an optimizer.

        Examples
        --------
        >>> EMATeacher(nn.Linear(1, 1)).attached
        False
        """
        return self._hook is not None

    def detach(self) -> None:
        """Stop following the optimizer; does nothing if the teacher is not attached."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors, which share memory with the teacher.

        Returns
        -------
        dict of str to Tensor
            ``num_updates``; ``model.*``, the state of the teacher's module; and ``average.*``, the
            float32 averages of float16 and bfloat16 weights and the averages of buffers that the
            module's state leaves out.

        Examples
        --------
        >>> list(EMATeacher(nn.Linear(1, 1)).state_dict())
        ['num_updates', 'model.weight', 'model.bias']
        """
        state = {"num_updates": torch.tensor(self.num_updates)}
        state.update({f"model.{name}": value for name, value in self.model.state_dict().items()})
        state.update({f"average.{name}": value for name, value in self._averages().items()})
        return state

    def _averages(self) -> dict[str, Tensor]:
        """Return the averages that are not in the state of ``self.model``."""
        ours, held = ModuleTensors(self.model), self.model.state_dict().keys()
        volatile = [
            name
            for names in self._averaged
            for name in names
            if name in ours.buffers and name not in held
        ]
        return {**{name: ours[name] for name in volatile}, **self._low_precision}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place; on an error the teacher is unchanged.

        Parameters
        ----------
        state
            What `state_dict` returned.

        Raises
        ------
        ValueError
            A tensor is missing, there is one too many, or its dtype cannot be converted without
            loss; the message names it. Or ``num_updates`` is not a whole number of at least 0.
        RuntimeError
            A tensor has another shape.

        Examples
        --------
        >>> teacher, other = EMATeacher(nn.Linear(1, 1)), EMATeacher(nn.Linear(1, 1))
        >>> other.load_state_dict(teacher.state_dict())
        >>> torch.equal(other.model.weight, teacher.model.weight)
        True
        """
        own = self.state_dict()
        if missing := sorted(own.keys() - state.keys()):
            raise ValueError(f"state lacks {missing}")
        if unexpected := sorted(state.keys() - own.keys()):
            raise ValueError(f"state has {unexpected}, which this teacher does not have")
        num_updates = _count("num_updates", state["num_updates"])
        for name in own.keys() - {"num_updates"}:
            _check_takes(name, own[name], state[name])
        self.model.load_state_dict(
            {
                name.removeprefix("model."): value
                for name, value in state.items()
                if name.startswith("model.")
            }
        )
        for name, average in self._averages().items():
            average.copy_(state[f"average.{name}"])
        self.num_updates = num_updates


def _decay(alpha: Any) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real):
        raise TypeError(f"alpha must be a number in [0, 1], got {alpha!r}")
    if not 0.0 <= float(alpha) <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    return float(alpha)


def _convert(ours: Tensor, like: Tensor, values: Tensor) -> None:
    """Move ``values`` into a tensor of the teacher, with the dtype and device of the model's.

    Setting ``data`` keeps the tensor object itself, which tied weights and recurrent layers need.
    """
    if (ours.dtype, ours.device) != (like.dtype, like.device):
        ours.data = values.to(like.device, like.dtype)


def _count(name: str, value: Any) -> int:
    """Return a count out of a saved state as an int."""
    whole = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    is_whole = isinstance(whole, numbers.Integral) and not isinstance(whole, bool)
    if not is_whole or not 0 <= int(whole) < 2**63:
        raise ValueError(f"state's {name} must be a whole number of at least 0, got {value!r}")
    return int(whole)


def _check_takes(name: str, own: Any, given: Any) -> None:
    """Raise unless a tensor of the state can be copied into the teacher's without loss."""
    if not isinstance(own, Tensor):  # a module's extra state, which the module checks itself
        return
    if not isinstance(given, Tensor):
        raise ValueError(f"state's {name} must be a tensor, got {type(given).__name__}")
    if given.shape != own.shape:
        raise RuntimeError(
            f"state's {name} must have shape {tuple(own.shape)}, got {tuple(given.shape)}"
        )
    if not torch.can_cast(given.dtype, own.dtype):
        raise ValueError(f"state's {name} must be {own.dtype}, got {given.dtype}")
