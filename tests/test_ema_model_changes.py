"""A model that changes under its EMA teacher: followed where that has a meaning, else refused."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from dynal_fast import EMATeacher


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def disturb(model):
    """Change every value in place, as a step of an optimizer and a forward pass do."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)


def convert(change):
    def apply(model):
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            change(model)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)

    return apply


def swap(model):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def assign(model):
    model.load_state_dict(network(seed=5).state_dict(), assign=True)


def replace_layer(model):
    model[3] = nn.Linear(144, 5)


def replace_parameter(model):
    model[3].weight = nn.Parameter(torch.randn(5, 144))


def replace_buffer(model):
    model[1].running_mean = model[1].running_mean + 3


CHANGES = {
    "double": lambda model: model.double(),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "one layer": lambda model: model[3].double(),
    "double with new parameters": convert(lambda model: model.double()),
    "double with swapped tensors": swap,
    "assigned state": assign,
    "new layer": replace_layer,
    "new parameter": replace_parameter,
    "new buffer": replace_buffer,
    "reset statistics": lambda model: model[1].reset_running_stats(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_an_update_takes_the_tensors_that_the_model_has_now(change, buffers):
    model = network()
    teacher = EMATeacher(model, 0.0, buffers=buffers)
    change(model)
    disturb(model)
    teacher.update()
    ours, theirs = teacher.model.state_dict(), model.state_dict()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name
        assert ours[name].data_ptr() != tensor.data_ptr(), name


def test_averages_survive_a_conversion_in_float32():
    model = nn.Linear(3, 2)
    teacher = EMATeacher(model, alpha=0.999)
    start = teacher.model.weight.detach().clone()
    model.half()
    teacher.update()
    stepped = teacher.state_dict()["average.weight"]
    torch.testing.assert_close(stepped, torch.lerp(start, model.weight.detach().float(), 0.001))
    assert teacher.model.weight.dtype == torch.float16
    before = stepped.clone()
    model.float()
    teacher.update()
    assert "average.weight" not in teacher.state_dict()
    want = torch.lerp(before, model.weight.detach(), 0.001)
    torch.testing.assert_close(teacher.model.weight.detach(), want, rtol=0, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_teacher_takes_over_the_device():
    model = network()
    teacher = EMATeacher(model, 0.0)
    model.cuda()
    disturb(model)
    teacher.update()
    for name, tensor in model.state_dict().items():
        assert teacher.model.state_dict()[name].is_cuda
        assert torch.equal(teacher.model.state_dict()[name], tensor), name


def test_parameters_on_several_devices_stay_where_they_are():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    teacher = EMATeacher(model)
    assert len(teacher._averaged) == 1
    model[1].double()  # another group of tensors, as another device is
    disturb(model)
    teacher.update()
    assert [len(names) for names in teacher._averaged] == [2, 2]


def test_a_teacher_that_was_converted_itself_follows_again():
    model = network()
    teacher = EMATeacher(model, 0.0)
    teacher.model.double()
    teacher.model.load_state_dict(network(seed=7).state_dict(), assign=True)
    disturb(model)
    teacher.update()
    for name, tensor in model.state_dict().items():
        assert torch.equal(teacher.model.state_dict()[name], tensor), name


def test_kept_buffers_take_the_dtype_and_keep_their_values():
    model = network()
    teacher = EMATeacher(model, 0.0, buffers="keep")
    model.double()
    disturb(model)
    teacher.update()
    assert torch.equal(teacher.model[1].running_mean, torch.zeros(4, dtype=torch.float64))
    assert torch.equal(teacher.model[3].bias, model[3].bias)


def test_recurrent_layers_still_run_after_a_conversion():
    model = nn.LSTM(3, 4, batch_first=True)
    teacher = EMATeacher(model, 0.0)
    model.double()
    disturb(model)
    teacher.update()
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    weights = zip(teacher.model._flat_weights, model._flat_weights, strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)
    with torch.no_grad():
        ours, theirs = teacher.model(inputs)[0], model(inputs)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


def wider_layer(model):
    model[3] = nn.Linear(144, 6)


def no_bias(model):
    model[3].bias = None


def another_parameter(model):
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))


def another_buffer(model):
    model.register_buffer("seen", torch.zeros(1), persistent=False)


def parameter_becomes_buffer(model):
    bias = model[3].bias.detach()
    del model[3].bias
    model[3].register_buffer("bias", bias)


def longer_buffer(model):
    model[1].running_mean = torch.zeros(5)


REFUSED = {
    "wider layer": (wider_layer, r"has 3.bias of shape \(6,\) instead of \(5,\)"),
    "no bias": (no_bias, r"lacks \['3.bias'\]"),
    "another parameter": (another_parameter, r"has \['scale'\] in addition"),
    "another buffer": (another_buffer, r"has \['seen'\] in addition"),
    "parameter becomes buffer": (parameter_becomes_buffer, "has 3.bias as a buffer"),
    "longer buffer": (longer_buffer, r"has 1.running_mean of shape \(5,\) instead of \(4,\)"),
    "no statistics": (lambda m: m.__setitem__(1, nn.Identity()), r"lacks \['1.bias', "),
    "another module": (lambda m: m.append(nn.Linear(5, 5)), r"has \['4.bias', '4.weight'\]"),
    "pruned": (
        lambda m: prune.l1_unstructured(m[3], "weight", 0.5),
        r"'3.weight_mask', '3.weight_orig'\] in addition; lacks \['3.weight'\]",
    ),
    "weight norm": (
        lambda m: parametrizations.weight_norm(m[3]),
        r"3.parametrizations.weight.original0.*lacks \['3.weight'\]",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_other_names_and_shapes_are_refused_and_the_teacher_stays(change, message):
    model = network()
    teacher = EMATeacher(model)
    disturb(model)
    teacher.update()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    change(model)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"changed after its teacher was made: .*{message}"):
            teacher.update()
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_ties_that_are_made_or_cut_are_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    teacher = EMATeacher(model)
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"lacks \['1.weight'\]"):
        teacher.update()
    tied = EMATeacher(model)
    model[1].weight = nn.Parameter(model[0].weight.detach().clone())
    with pytest.raises(ValueError, match=r"has \['1.weight'\] in addition"):
        tied.update()


def test_an_error_reaches_the_step_of_the_optimizer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    teacher = EMATeacher(model)
    teacher.attach(optimizer)
    another_buffer(model)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    with pytest.raises(ValueError, match="Make a new EMATeacher"):
        optimizer.step()


class Counting(nn.Module):
    """Assigns its buffers anew in every forward pass; one has no place in the state."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.levels = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("total", torch.zeros(2))
        self.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
        self.register_buffer("recent", torch.zeros(2), persistent=False)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("cache", None)

    def forward(self, inputs):
        self.total = self.total + 1
        self.phase = self.phase + 2j
        self.recent = self.recent + 4
        self.steps = self.steps + 1
        return inputs * self.weight


@pytest.mark.parametrize(("buffers", "share"), [("copy", 1), ("average", 0.25), ("keep", 0)])
def test_buffers_that_are_replaced_at_every_step_are_followed(buffers, share):
    model = Counting()
    teacher = EMATeacher(model, alpha=0.75, buffers=buffers)
    model(torch.ones(2))
    model.levels.data = torch.arange(3) + 5
    teacher.update()
    ours = teacher.model
    assert ours.total.tolist() == [share] * 2
    assert ours.phase.tolist() == [2j * share] * 2
    assert ours.recent.tolist() == [4 * share] * 2
    assert ours.steps == (0 if buffers == "keep" else 1)
    assert ours.levels.tolist() == [5, 6, 7]


def test_averages_of_buffers_outside_the_models_state_are_kept_with_it():
    model = Counting()
    teacher = EMATeacher(model, alpha=0.75, buffers="average")
    model(torch.ones(2))
    teacher.update()
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert state["average.recent"].tolist() == [1, 1]
    resumed = EMATeacher(Counting(), alpha=0.75, buffers="average")
    resumed.load_state_dict(state)
    assert resumed.model.recent.tolist() == [1, 1]


def test_a_compiled_model_is_followed_under_its_own_names():
    model = network()
    compiled = torch.compile(model, backend="eager")
    teacher = EMATeacher(compiled, 0.0)
    model.double()
    disturb(model)
    teacher.update()
    assert torch.equal(teacher.model.state_dict()["_orig_mod.1.running_var"], model[1].running_var)


def test_a_model_without_values_is_refused():
    with pytest.raises(ValueError, match=r"not initialised yet: \['weight', 'bias'\]"):
        EMATeacher(nn.Linear(2, 2, device="meta"))
    model = nn.Linear(2, 2)
    teacher = EMATeacher(model)
    model.to("meta")
    with pytest.raises(ValueError, match="has bias on the meta device, without values"):
        teacher.update()
    assert teacher.model.weight.device.type == "cpu"


def test_a_model_that_is_not_initialised_yet_is_refused():
    model = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match=r"not initialised yet: \['0.weight', .*on one batch"):
        EMATeacher(model)
    model(torch.randn(4, 3))
    teacher = EMATeacher(model, 0.0)
    disturb(model)
    teacher.update()
    assert torch.equal(teacher.model[0].weight, model[0].weight)


class WithGraph(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.doubled = self.weight * 2


class Shared(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)

    def __deepcopy__(self, memo):
        return self


def with_lock():
    model = nn.Linear(2, 2)
    model.lock = threading.Lock()
    return model


@pytest.mark.parametrize("make", [WithGraph, with_lock, Shared])
def test_a_model_that_cannot_be_copied_is_refused_with_what_to_do_and_unchanged(make):
    model = make().train()
    with pytest.raises(ValueError, match=r"model cannot be deep-copied.*__deepcopy__"):
        EMATeacher(model)
    assert model.training
    assert model.weight.requires_grad


def test_wrappers_are_refused(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"without its DistributedDataParallel.*\.module"):
            EMATeacher(wrapped)
        teacher = EMATeacher(wrapped.module, 0.0)
        disturb(wrapped)
        teacher.update()
        assert torch.equal(teacher.model.weight, wrapped.module.weight)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": float("nan")}, ValueError, r"alpha must be in \[0, 1\], got nan"),
        ({"alpha": -0.1}, ValueError, "got -0.1"),
        ({"alpha": float("inf")}, ValueError, "got inf"),
        ({"alpha": True}, TypeError, "alpha must be a number in .* got True"),
        ({"alpha": "0.9"}, TypeError, "got '0.9'"),
        ({"alpha": None}, TypeError, "got None"),
        ({"alpha": 1j}, TypeError, "got 1j"),
        ({"warm_up": "no"}, TypeError, "warm_up must be True or False, got 'no'"),
        ({"model": {"weight": torch.ones(1)}}, TypeError, "must be a torch.nn.Module, got dict"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        EMATeacher(**{"model": nn.Linear(1, 1), **arguments})


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("num_updates", torch.tensor(-5), ValueError, "num_updates must be a whole number"),
        ("num_updates", torch.tensor(1.0), ValueError, r"at least 0, got tensor\(1.\)"),
        ("num_updates", torch.tensor(float("nan")), ValueError, "nan"),
        ("num_updates", torch.tensor(True), ValueError, "True"),
        ("num_updates", torch.tensor([1, 2]), ValueError, r"\[1, 2\]"),
        ("num_updates", "7", ValueError, "got '7'"),
        ("num_updates", 2**63, ValueError, "at least 0"),
        ("model.3.weight", torch.zeros(5, 145), RuntimeError, r"\(5, 144\), got \(5, 145\)"),
        (
            "model.3.bias",
            torch.zeros(5, dtype=torch.complex64),
            ValueError,
            "must be torch.float32",
        ),
        ("model.3.bias", [0.0] * 5, ValueError, "model.3.bias must be a tensor, got list"),
        ("model.1.num_batches_tracked", torch.tensor(1.9), ValueError, "must be torch.int64"),
    ],
)
def test_a_bad_state_is_refused_before_anything_changes(name, value, error, message):
    teacher = EMATeacher(network())
    before = copy.deepcopy(teacher.state_dict())
    state = EMATeacher(network(seed=4)).state_dict()
    with pytest.raises(error, match=message):
        teacher.load_state_dict({**state, name: value})
    for own, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[own]), own


@pytest.mark.parametrize("count", [3, torch.tensor(3), torch.tensor([3], dtype=torch.int32)])
def test_num_updates_of_any_integer_kind_is_taken(count):
    teacher = EMATeacher(network())
    teacher.load_state_dict({**teacher.state_dict(), "num_updates": count})
    assert teacher.num_updates == 3


@pytest.mark.parametrize("buffers", ["copy", "average", "keep"])
def test_an_expanded_buffer_gets_memory_of_its_own(buffers):
    model = nn.Linear(2, 2)
    model.register_buffer("shift", torch.ones(1).expand(3))
    teacher = EMATeacher(model, 0.0, buffers=buffers)
    model.shift = torch.arange(3.0)
    teacher.update()
    want = [1.0, 1.0, 1.0] if buffers == "keep" else [0.0, 1.0, 2.0]
    assert teacher.model.shift.tolist() == want
