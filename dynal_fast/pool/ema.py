"""The EMA teacher: the exponential moving average of a model's weights (TOD paper, eq. 6)."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

Buffers = Literal["copy", "average", "keep"]


class EMATeacher:
    """Average a model's weights over the training steps: ``w_ema <- alpha w_ema + (1 - alpha) w``.

    This is eq. 6 of "Semi-Supervised Active Learning with Temporal Output Discrepancy". All
    weights of one dtype and device are updated in place by one multi-tensor operation. The
    teacher is in evaluation mode and takes no gradients.

    Averages of float16 and bfloat16 weights are kept in float32 beside the teacher's own weights:
    at alpha = 0.999 a step is smaller than half a unit in the last place of such a weight and
    would be rounded away.

    Parameters
    ----------
    model
        The model that trains, on its device already. Its parameters are followed as long as they
        are changed in place, as optimizers do. Give the module itself, not its
        ``DistributedDataParallel`` wrapper.
    alpha
        The decay in [0, 1]; the paper uses 0.999.
    warm_up
        Use ``min(1 - 1/(t+1), alpha)`` at update t = 0, 1, ... instead: the first update copies
        the weights, and until alpha is reached the teacher is the plain mean of the weights so
        far. The initial weights then carry no weight at all.
    buffers
        What an update does with buffers, such as the running statistics of batch normalisation:
        ``"copy"`` takes the model's, which are averages already; ``"average"`` treats the
        floating-point ones like weights and copies the others; ``"keep"`` leaves the teacher's
        as they were when it was made or loaded.

    Attributes
    ----------
    model : torch.nn.Module
        The teacher.
    num_updates : int
        Updates so far: the t of the warm-up.

    Raises
    ------
    ValueError
        ``alpha`` is outside [0, 1], ``buffers`` is not one of the three, or the model has no
        parameters.

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
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        if buffers not in ("copy", "average", "keep"):
            raise ValueError(f"buffers must be 'copy', 'average' or 'keep', got {buffers!r}")
        if next(model.parameters(), None) is None:
            raise ValueError(f"model has no parameters to average: {type(model).__name__}")
        self.alpha = alpha
        self.warm_up = warm_up
        self.num_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._hook: RemovableHandle | None = None

        averaged = list(zip(self.model.named_parameters(), model.parameters(), strict=True))
        copied: list[tuple[Tensor, Tensor]] = []
        for (name, ours), theirs in zip(self.model.named_buffers(), model.buffers(), strict=True):
            if buffers == "average" and ours.is_floating_point():
                averaged.append(((name, ours), theirs))  # type: ignore[arg-type]
            elif buffers != "keep":
                copied.append((ours, theirs))
        self._copied = ([ours for ours, _ in copied], [theirs for _, theirs in copied])

        self._groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        self._low_precision: dict[str, Tensor] = {}
        rounded: tuple[list[Tensor], list[Tensor]] = ([], [])
        for (name, ours), theirs in averaged:
            average: Tensor = ours
            if ours.dtype in (torch.float16, torch.bfloat16):
                average = self._low_precision[name] = ours.float()
                rounded[0].append(ours)
                rounded[1].append(average)
            group = self._groups.setdefault((theirs.dtype, theirs.device), ([], []))
            group[0].append(average)
            group[1].append(theirs)
        self._rounded = rounded

    @torch.no_grad()
    def update(self) -> None:
        """Move the teacher towards the model's present weights; nothing is synchronised."""
        alpha = self.alpha
        if self.warm_up:
            alpha = min(1.0 - 1.0 / (self.num_updates + 1), alpha)
        for averages, weights in self._groups.values():
            if averages[0].dtype != weights[0].dtype:
                weights = [weight.float() for weight in weights]
            torch._foreach_lerp_(averages, weights, 1.0 - alpha)
        for destination, source in (self._rounded, self._copied):
            if destination:
                torch._foreach_copy_(destination, source)
        self.num_updates += 1

    def attach(self, optimizer: Optimizer) -> None:
        """Update after every step of ``optimizer`` from now on.

        A step that a gradient scaler skips is no step.

        Raises
        ------
        RuntimeError
            The teacher is attached already: call `detach` first.
        """
        if self._hook is not None:
            raise RuntimeError("the teacher is attached to an optimizer already; detach() it first")
        self._hook = optimizer.register_step_post_hook(lambda *_: self.update())

    def detach(self) -> None:
        """Stop following the optimizer; without effect where the teacher is not attached."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors: ``num_updates``, ``model.*``, and ``average.*``.

        The last are the float32 averages of the float16 and bfloat16 weights.
        """
        state = {"num_updates": torch.tensor(self.num_updates)}
        state.update({f"model.{name}": value for name, value in self.model.state_dict().items()})
        state.update({f"average.{name}": value for name, value in self._low_precision.items()})
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the state that `state_dict` returned, in place.

        Raises
        ------
        ValueError
            A tensor is missing, or there is one too many; both are named. The teacher is
            unchanged.
        RuntimeError
            A tensor has another shape (from ``torch.nn.Module.load_state_dict``).
        """
        own = self.state_dict()
        if missing := sorted(own.keys() - state.keys()):
            raise ValueError(f"state lacks {missing}")
        if unexpected := sorted(state.keys() - own.keys()):
            raise ValueError(f"state has {unexpected}, which this teacher does not have")
        self.model.load_state_dict(
            {
                name.removeprefix("model."): value
                for name, value in state.items()
                if name.startswith("model.")
            }
        )
        for name, average in self._low_precision.items():
            average.copy_(state[f"average.{name}"])
        self.num_updates = int(state["num_updates"])
