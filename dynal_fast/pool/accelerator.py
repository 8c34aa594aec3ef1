"""`Accelerator`: a pass at a lower price, by a twin of the model that is made for inference."""

import sys
import time
import warnings
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dynal_fast.pool.containers import tensors_in
from dynal_fast.pool.forward import Forward
from dynal_fast.pool.module_tensors import ModuleTensors
from dynal_fast.pool.trace import UntraceableError, first_line
from dynal_fast.pool.twin import NOTHING, Bare, Outputs, Twin, difference, made_of

Mode = Literal["off", "fold", "compile", "auto"]
MODES = get_args(Mode)
PAYS_FROM = 300  # seconds of forward passes to come, for half a minute of compiling
WORTH_CHANGING = 1.0  # seconds that another way would take less
SLOWER = "it was slower on this machine"
FEW = 64  # samples that are compared
WORTH_COUNTING = 50  # batches
CLOCKED = 2  # runs of a batch
SPEED = {"cpu": 3e10, "cuda": 1e13}  # floating-point operations a second, of a CPU's thread


class Accelerator:
    """Runs observed passes through a twin of the model; keep it from pass to pass.

    The twin is a copy in which batch normalisation is folded into the convolution or the linear
    layer before it, ReLU works in place and after max-pooling, images are channels-last, and which
    may be compiled. Before each pass its weights are set, in place, to the live model's, so that
    nothing is traced or compiled again; the live model is never changed. The first batch of every
    pass goes through both, and the model's own output counts for it; if they differ by more than
    1e-4 of the largest logit (float64 1e-10, float16 0.02, bfloat16 and its autocast 0.1, TF32
    0.005), the pass goes on with the live model, and a warning says so.

    A model that torch.fx cannot trace, whose forward changes its own buffers, that has forward
    hooks, or that is wrapped or compiled already, runs as it is, or is compiled without folding.
    A warning says so once.

    Parameters
    ----------
    mode
        ``"fold"`` as above, without compiling; ``"compile"`` also compiles, once, which takes from
        seconds to a minute; ``"auto"`` compiles if the passes to come are expected to take more
        than five minutes, by their number, the model's floating-point operations and the device,
        and where 50 batches come times one in each way, once, and takes a simpler way that is
        clearly faster; ``"off"`` is the live model's own forward.
    passes
        How many passes there will be, for ``"auto"``; by default those that the tracker's schedules
        say of the current cycle.

    Attributes
    ----------
    used : str
        What the last pass used: ``"off"``, ``"fold"`` or ``"compile"``.
    reason : str
        Why that is less than ``mode``; empty if it is not.
    error : float
        The difference of the first batch of the last pass, as a share of its largest logit.
    settled : str or None
        What ``"auto"`` found to pay by the clock, for all passes to come; None if it looked at none
        yet, as the passes were too few.

    Raises
    ------
    ValueError
        ``mode`` is none of the four.

    Examples
    --------
    >>> from dynal_fast import PoolStats, observe_pool
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> accelerator = Accelerator("fold")
    >>> stats = PoolStats(4, 2, track=("margin",))
    >>> pool = [(torch.tensor([i, i + 1]), torch.randn(2, 4)) for i in (0, 2)]
    >>> observe_pool(model, pool, stats, epoch=1, num_epochs=1, accelerate=accelerator)
    True
    >>> accelerator.used, accelerator.error < 1e-4
    ('fold', True)
    """

    def __init__(self, mode: Mode = "auto", *, passes: int | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"accelerate must be one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        self.passes = passes
        self.used: str = "off"
        self.reason = ""
        self.error = 0.0
        self._twin: Twin | None = None
        self._refused: tuple[weakref.ref[nn.Module], Any, str] | None = None
        self._counted: tuple[Any, int] | None = None
        self._told: set[str] = set()
        self.settled: str | None = None
        self._teacher: Accelerator | None = None

    def of_teacher(self) -> "Accelerator":
        """Return the accelerator of the teacher, which has a twin of its own."""
        if self._teacher is None:
            self._teacher = Accelerator(self.mode, passes=self.passes)
        return self._teacher

    def repeat(self, used: str | None) -> None:
        """Let ``"auto"`` go on as an earlier part of the same run did, as ``used`` said; no clock.

        None leaves it to decide.
        """
        if used:
            self.settled = next((way for way in ("compile", "fold") if way in used), "off")

    def runner(self, bare: Bare, batches: int | None, passes: int) -> Callable[..., Outputs]:
        """Return what runs the batches of one pass.

        ``batches`` is how many the pass has, None if that is unknown; ``passes`` how many the
        cycle has.
        """
        self.used, self.reason, self.error = "off", "", 0.0
        if self.mode == "off":
            return bare
        if batches == 1:
            self.reason = "the pass is a single batch"
            return bare
        if self.mode == "auto" and self.settled == "off":
            self.reason = SLOWER
            return bare
        passes = self.passes or passes
        twin: Twin | None = None
        first = True

        def run(sample_ids: Tensor, inputs: Any) -> Outputs:
            nonlocal twin, first
            if first:
                first = False
                versions = _versions(bare.model)
                outputs = bare(sample_ids, inputs)
                changed = _changed(bare.model, versions)
                twin = self._begin(bare, inputs, outputs, changed, (batches or 0) * passes)
                return outputs
            if twin is None:
                return bare(sample_ids, inputs)
            return self._answer(twin, bare, sample_ids, inputs)

        return run

    def _answer(self, twin: Twin, bare: Bare, sample_ids: Tensor, inputs: Any) -> Outputs:
        """Return the twin's outputs of a batch, the model's own where it has none or fails."""
        try:
            answer = twin(bare, sample_ids, inputs)
        except Exception as error:  # of a graph that does not hold for such a batch
            self.reason = f"its twin fails: {first_line(error)}"
            outputs = bare(sample_ids, inputs)  # raises if it is the batch that is wrong
            self._tell(f"{type(bare.model).__name__} runs such batches as it is: {self.reason}")
            return outputs
        return bare(sample_ids, inputs) if answer is None else answer

    def _begin(
        self, bare: Bare, inputs: Any, outputs: Outputs, changed: str, batches: int
    ) -> Twin | None:
        """Return the twin for this pass, checked on its first batch; None if there is none."""
        model, layout = bare.model, ModuleTensors(bare.model).layout
        if self._refused is not None:
            whose, how, why = self._refused
            if whose() is model and how == (layout, bare.head):
                self.reason = why
                return None
        try:
            if changed:
                raise UntraceableError(f"its forward changes {changed}")
            compiles = self.mode == "compile"
            if self.mode == "auto":
                known = self.settled == "compile" or self._compiled()
                compiles = known or (not self.settled and self._pays(bare, inputs, batches))
            twin, fresh = self._twin, False
            if twin is None or not twin.fits(bare, inputs, compiles):
                twin, fresh = Twin(bare, inputs, compiles, self._tell), True
            if not self._agrees(twin, bare, inputs, outputs) and not fresh:
                # Something that is not a weight changed, such as a number that the graph holds.
                twin = Twin(bare, inputs, compiles, self._tell)
                self._agrees(twin, bare, inputs, outputs)
            if not self.error <= twin.tolerance:
                raise UntraceableError(
                    f"its logits of the first batch are off by {self.error:.1e} of the largest, "
                    f"and {twin.tolerance:.0e} is allowed"
                )
        except UntraceableError as error:
            self._twin = None
            self.reason = str(error)
            self._refused = weakref.ref(model), (layout, bare.head), self.reason
            if self.reason != NOTHING or self.mode != "auto":
                self._tell(f"{type(model).__name__} runs as it is: {self.reason}")
            return None
        if self.mode == "auto" and not self.settled and batches >= WORTH_COUNTING:
            self.settled = _fastest(twin, bare, inputs, len(outputs[0]), batches)
            if self.settled == "off":
                self._twin, self.reason = None, SLOWER
                return None
        self._twin = twin
        self.used, self.reason = ("compile", "") if twin.compiled else ("fold", twin.reason)
        return twin

    def _agrees(self, twin: Twin, bare: Bare, inputs: Any, outputs: Outputs) -> bool:
        """Set the twin's weights and compare its outputs of the first batch with the model's.

        A twin that is not compiled, and whose parts gave the whole batch before, is given some
        samples first, from where each of two parts begins: a model that mixes samples shows there.
        """
        twin.refresh(bare.model)
        twin.fit_to(inputs)
        one = isinstance(inputs, Tensor) and len(inputs) == len(outputs[0]) > FEW
        if one and not twin.compiled and not twin.mixes and twin.parts_agree:
            places = [slice(start, start + FEW) for start in sorted({0, twin.part or 0})]
            if self._alike(twin, bare, [(inputs[at], _rows(outputs, at)) for at in places]):
                return True
        if twin.in_parts:
            twin.parts_agree = self._alike(twin, bare, [(inputs, outputs)])
            if twin.parts_agree:
                return True
            twin.mixes = True
            twin.fit_to(inputs)
        self.error = _error(twin, bare, inputs, outputs)
        return self.error <= twin.tolerance

    def _alike(self, twin: Twin, bare: Bare, pairs: list[tuple[Any, Outputs]]) -> bool:
        """Return whether the twin gives these outputs of inputs that may not be a batch."""
        try:
            self.error = max(_error(twin, bare, *pair) for pair in pairs)
        except UntraceableError:
            return False
        return self.error <= twin.tolerance

    def _pays(self, bare: Bare, inputs: Any, batches: int) -> bool:
        """Return whether so many batches like this one are worth compiling for."""
        if batches < WORTH_COUNTING:
            return False
        what = made_of(bare)
        if self._counted is None or self._counted[0] != what:
            from torch.utils.flop_counter import FlopCounterMode

            with FlopCounterMode(display=False) as counter:
                bare.call(bare.model, inputs)
            self._counted = what, counter.get_total_flops()
        device = next((weight.device.type for weight in bare.model.parameters()), "cpu")
        speed = SPEED["cpu"] * torch.get_num_threads() if device == "cpu" else SPEED["cuda"]
        return self._counted[1] * batches / speed >= PAYS_FROM

    def _compiled(self) -> bool:
        return self._twin is not None and self._twin.compiled

    def _tell(self, what: str) -> None:
        """Warn of something once."""
        if what not in self._told:
            self._told.add(what)
            level, frame = 1, sys._getframe()
            while frame.f_back is not None and _is_ours(frame):
                level, frame = level + 1, frame.f_back
            warnings.warn(f"accelerate={self.mode!r}: {what}", stacklevel=level)


def _fastest(twin: Twin, bare: Bare, inputs: Any, samples: int, batches: int) -> str:
    """Time a batch in each way: what the twin is made for stays unless a simpler way is faster."""
    ids = torch.empty(samples)
    chosen = "compile" if twin.compiled else "fold"
    seconds = {chosen: _seconds(lambda: twin(bare, ids, inputs))}
    if twin.compiled:
        twin.compiled = False
        seconds["fold"] = _seconds(lambda: twin(bare, ids, inputs))
        twin.compiled = True
    seconds["off"] = _seconds(lambda: bare(ids, inputs))
    fastest = min(seconds, key=seconds.__getitem__)
    gain = seconds[chosen] - seconds[fastest]
    if gain <= 0.1 * seconds[chosen] or gain * batches <= WORTH_CHANGING:
        return chosen
    twin.compiled, twin.reason = fastest == "compile", SLOWER
    return fastest


def _error(twin: Twin, bare: Bare, inputs: Any, outputs: Outputs) -> float:
    """Return how far the twin's outputs of the first batch, or of some of it, are off."""
    answered = twin.first(bare, torch.empty(len(outputs[0])), inputs)
    return max(
        difference(ours, theirs)
        for ours, theirs in zip(answered, outputs, strict=True)
        if ours is not None and theirs is not None
    )


def _rows(outputs: Outputs, at: slice) -> Outputs:
    logits, embeddings = outputs
    return logits[at], None if embeddings is None else embeddings[at]


def _seconds(run: Callable[[], Any]) -> float:
    """Return the least seconds of a few runs."""
    taken = []
    for _ in range(CLOCKED):
        start = time.perf_counter()
        answer = run()
        if any(tensor.is_cuda for tensor in tensors_in(answer)):
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("dynal_fast.pool.")


def accelerator_of(
    accelerate: "str | Accelerator", model: nn.Module, forward: Forward | None, mc: bool
) -> Accelerator:
    """Return the accelerator that the argument ``accelerate`` of `observe_pool` means.

    Of a mode's name, the one that this model had in its earlier passes.
    """
    if isinstance(accelerate, Accelerator):
        return accelerate
    if not isinstance(accelerate, str) or accelerate not in MODES:
        raise ValueError(
            f"accelerate must be one of {', '.join(MODES)}, or an Accelerator, got {accelerate!r}"
        )
    if accelerate == "off":
        return Accelerator("off")
    kept = _KEPT.setdefault(model, {})
    key = accelerate, getattr(forward, "__code__", forward), mc
    if key not in kept:
        kept[key] = Accelerator(accelerate)  # type: ignore[arg-type]
    return kept[key]


_KEPT: weakref.WeakKeyDictionary[nn.Module, dict[Any, Accelerator]] = weakref.WeakKeyDictionary()


def _versions(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        name: (id(tensor), 0 if tensor.is_inference() else tensor._version)
        for name, tensor in ModuleTensors(model).items()
    }


def _changed(model: nn.Module, before: dict[str, tuple[int, int]]) -> str:
    """Return the name of a tensor that a forward changed; empty if there is none."""
    after = _versions(model)
    return next((name for name in before if after.get(name) != before[name]), "")
