"""A twin of a model: a copy that is made for inference, with the live model's weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from dynal_fast.penultimate import penultimate, per_sample
from dynal_fast.pool.containers import tensors_in
from dynal_fast.pool.fold import Folding, has_images, refresh, simplify
from dynal_fast.pool.forward import Forward, logits_of
from dynal_fast.pool.in_parts import channels_last, images_last, part_size, parts_of
from dynal_fast.pool.module_tensors import ModuleTensors
from dynal_fast.pool.trace import (
    PREFIX,
    UntraceableError,
    add_embedding,
    first_line,
    inference_copy,
    structure,
    trace,
)

BACKEND = "inductor"  # of torch.compile
# The largest difference from the bare forward, as a share of its largest logit.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}
TF32_TOLERANCE = 5e-3

Outputs = tuple[Tensor, Tensor | None]  # logits (batch, classes), embeddings (batch, d)


class Bare:
    """The model's own forward: logits and, if wanted, embeddings."""

    def __init__(self, model: nn.Module, call: Forward, embeds: bool, head: str | None) -> None:
        self.model = model
        self.call = call
        self.embeds = embeds
        self.head = head

    def __call__(self, sample_ids: Tensor, inputs: Any) -> Outputs:
        if not self.embeds:
            return logits_of(self.call(self.model, inputs), self.model, len(sample_ids)), None
        with penultimate(self.model, self.head) as embedding:
            output = self.call(self.model, inputs)
            return logits_of(output, self.model, len(sample_ids)), embedding()


NOTHING = "there is nothing to fold"


class Twin:
    """A copy of a model for inference: its graph or, where there is none, a compiled copy."""

    def __init__(
        self, bare: Bare, inputs: Any, compiles: bool, tell: Callable[[str], None]
    ) -> None:
        self.reason = ""
        self._tell = tell
        self._structure = structure(inputs)
        self._made_of = made_of(bare)
        self._wants_compiled = compiles
        self._foldings: list[Folding] = []
        self._graph: fx.GraphModule | None = None
        copied = inference_copy(bare.model)
        try:
            self._graph = trace(copied, bare.call, inputs)
            if bare.embeds:
                add_embedding(self._graph, bare.head)
            self._foldings, others = simplify(self._graph)
            idle = not self._foldings and not others and not has_images(self._graph)
            self.module: nn.Module = self._graph
        except UntraceableError as error:
            if not compiles or bare.embeds:
                raise
            tell(f"{type(bare.model).__name__} is compiled without folding: {error}")
            self._graph, self.module, idle = None, copied, False
        if idle and not compiles:
            raise UntraceableError(NOTHING)
        self.images = channels_last(self.module)
        self._run: Any = self.module
        self.mixes = False  # the samples of a batch, so that it cannot run in parts
        self._fitted: list[torch.Size] = []
        self.part: int | None = None  # samples
        self.parts_agree = True  # with a whole batch, if there are parts
        self.compiled = compiles
        if compiles:
            on_gpu = any(weight.is_cuda for weight in self.module.parameters())
            self._run = torch.compile(
                self.module, backend=BACKEND, mode="reduce-overhead" if on_gpu else None
            )
        self.tolerance = tolerance_of(bare.model)

    def fits(self, bare: Bare, inputs: Any, compiles: bool) -> bool:
        """Return whether this twin can stand for a model, whose weights may have changed."""
        same = self._structure == structure(inputs) and self._made_of == made_of(bare)
        return same and self._wants_compiled == compiles

    def refresh(self, model: nn.Module) -> None:
        """Set the weights to the model's, in place."""
        refresh(self.module, self._foldings, model, PREFIX if self._graph is not None else "")

    @property
    def in_parts(self) -> bool:
        """Whether the batches run in parts."""
        return self.part is not None

    def fit_to(self, inputs: Any) -> None:
        """Take the first batch as the size of those that come: the one that is compiled."""
        tensors = tensors_in(inputs)
        shapes = [tensor.shape for tensor in tensors]
        if shapes != self._fitted or (self.mixes and self.in_parts):
            self._fitted, self.part = shapes, None
            if self._graph is not None and not self.mixes:
                self.part = part_size(self._graph, tensors)
            self.parts_agree = not self.in_parts

    def first(self, bare: Bare, sample_ids: Tensor, inputs: Any) -> Outputs:
        """Return the outputs of the first batch, or of some of its samples."""
        try:
            answer = self(bare, sample_ids, inputs)
        except Exception as error:  # of the compiler, or of a graph that holds for other inputs
            if not self.compiled:
                raise UntraceableError(f"its twin fails: {first_line(error)}") from error
            if self._graph is None:
                raise UntraceableError(f"it cannot be compiled: {first_line(error)}") from error
            self.compiled = False
            try:
                answer = self(bare, sample_ids, inputs)
            except Exception as other:  # it is not the compiler
                self.compiled = True
                raise UntraceableError(f"its twin fails: {first_line(other)}") from other
            self.reason = f"it cannot be compiled: {first_line(error)}"
            self._tell(f"{type(bare.model).__name__} is folded only: {self.reason}")
        assert answer is not None
        return answer

    def __call__(self, bare: Bare, sample_ids: Tensor, inputs: Any) -> Outputs | None:
        """Return the outputs of a batch, or None if the twin is not made for such inputs."""
        try:
            if structure(inputs) != self._structure:
                return None
        except UntraceableError:
            return None
        tensors, n = tensors_in(inputs), len(sample_ids)
        if self._graph is None:
            output = bare.call(self._runs(tensors), inputs)
            return logits_of(output, bare.model, n), None
        # Parts of other sizes, such as those of the last batch, were not checked.
        if self.part is None or any(len(t) != n for t in tensors) or n != self._fitted[0][0]:
            return self._answer(bare, tensors, n)
        parts = parts_of(tensors, self.part)
        answers = [self._answer(bare, part, len(part[0])) for part in parts]
        logits, embeddings = zip(*answers, strict=True)
        return torch.cat(logits), torch.cat(embeddings) if bare.embeds else None

    def _runs(self, tensors: list[Tensor]) -> Any:
        """Return what runs inputs: of other sizes, as in the last batch, nothing is compiled."""
        # Not the graph itself: called, it prints an error to stderr before it raises it.
        plain = self.module if self._graph is None else self._graph.forward
        if not self.compiled:
            return plain
        sizes = [shape[:1] if self.part is None else (self.part,) for shape in self._fitted]
        if [tensor.shape[:1] for tensor in tensors] != sizes:
            return plain
        if tensors and tensors[0].is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        return self._run

    def _answer(self, bare: Bare, tensors: list[Tensor], n: int) -> Outputs:
        output = self._runs(tensors)(images_last(tensors) if self.images else tensors)
        embedding = None
        if bare.embeds:
            output, embedding = output
            embedding = per_sample(embedding, bare.model)
        return logits_of(output, bare.model, n), embedding


def made_of(bare: Bare) -> Any:
    """Return what a graph depends on beside the values of tensors."""
    code = getattr(bare.call, "__code__", None) or type(bare.call)
    parts = str(bare.model), type(bare.model), ModuleTensors(bare.model).layout
    return (*parts, code, bare.embeds, bare.head)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference as a share of the largest value; infinite if NaN differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.double(), theirs.double()
    finite = theirs.isfinite()
    if not torch.equal(finite, ours.isfinite()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    scale = theirs[finite].abs().max().clamp_min(1e-30)
    return float((ours[finite] - theirs[finite]).abs().max() / scale)


def tolerance_of(model: nn.Module) -> float:
    """Return the largest difference that a twin may have, by the model's dtype or autocast's."""
    weight = next((w for w in model.parameters() if w.is_floating_point()), torch.empty(0))
    dtype = weight.dtype
    if torch.is_autocast_enabled(weight.device.type):
        dtype = torch.get_autocast_dtype(weight.device.type)
    allowed = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
    if weight.is_cuda and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        allowed = TF32_TOLERANCE
    return allowed
