import copy

import pytest
import torch
from torch import nn

from dynal_fast import EMATeacher


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def train_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(6, 3, 8, 8)).square().mean().backward()
    optimizer.step()


def plain_update(averages, weights, alpha):
    """Eq. 6, one weight at a time, in float64."""
    return [
        alpha * a + (1 - alpha) * w.detach().double()
        for a, w in zip(averages, weights, strict=True)
    ]


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("buffers", ["copy", "average", "keep"])
def test_agrees_with_a_plain_loop_over_the_weights(warm_up, buffers):
    model = network()
    initial = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    teacher = EMATeacher(model, alpha=0.8, warm_up=warm_up, buffers=buffers)
    teacher.attach(optimizer)
    expected = [weight.detach().double() for weight in model.parameters()]
    running_mean = model[1].running_mean.double()
    for t in range(12):
        train_step(model, optimizer)
        alpha = min(1 - 1 / (t + 1), 0.8) if warm_up else 0.8
        expected = plain_update(expected, model.parameters(), alpha)
        (running_mean,) = plain_update([running_mean], [model[1].running_mean], alpha)
    assert teacher.num_updates == 12
    for average, want in zip(teacher.model.parameters(), expected, strict=True):
        torch.testing.assert_close(average.double(), want, rtol=1e-5, atol=1e-7)
        assert not average.requires_grad
    ours = teacher.model[1]
    want_mean, want_steps = {
        "copy": (model[1].running_mean.double(), 12),
        "average": (running_mean, 12),
        "keep": (initial["1.running_mean"].double(), 0),
    }[buffers]
    torch.testing.assert_close(ours.running_mean.double(), want_mean, rtol=1e-5, atol=1e-7)
    assert int(ours.num_batches_tracked) == want_steps


def test_the_warm_up_is_the_mean_of_the_weights_so_far():
    model = nn.Linear(3, 2)
    teacher = EMATeacher(model, warm_up=True)
    history = []
    for _ in range(7):
        with torch.no_grad():
            model.weight.normal_()
        history.append(model.weight.detach().clone())
        teacher.update()
    torch.testing.assert_close(teacher.model.weight.detach(), torch.stack(history).mean(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_move_by_less_than_a_unit_in_the_last_place(dtype):
    model = nn.Linear(4, 4).to(dtype)
    nn.init.constant_(model.weight, 1.0)
    teacher = EMATeacher(model, alpha=0.999)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(500):
        teacher.update()
    want = 2 - 0.999**500
    assert teacher.model.weight.dtype == dtype
    torch.testing.assert_close(
        teacher.model.weight.float(), torch.full((4, 4), want), rtol=4e-3, atol=0
    )


def test_the_teacher_stands_beside_the_model():
    model = network().train()
    teacher = EMATeacher(model)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in teacher.model.modules())
    pointers = {weight.data_ptr() for weight in model.parameters()}
    assert pointers.isdisjoint(weight.data_ptr() for weight in teacher.model.parameters())


def test_tied_weights_are_averaged_once_and_stay_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    teacher = EMATeacher(model, alpha=0.5)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    teacher.update()
    assert teacher.model[0].weight is teacher.model[1].weight
    torch.testing.assert_close(teacher.model[0].weight.detach(), before + 0.5)


def test_detach_stops_it_and_attaching_twice_is_an_error():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    teacher = EMATeacher(model)
    teacher.attach(optimizer)
    with pytest.raises(RuntimeError, match="already"):
        teacher.attach(optimizer)
    train_step(model, optimizer)
    teacher.detach()
    train_step(model, optimizer)
    assert teacher.num_updates == 1
    teacher.attach(optimizer)
    train_step(model, optimizer)
    assert teacher.num_updates == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_resumes_where_it_left(dtype):
    def updates(teacher, model, count, seed):
        torch.manual_seed(seed)
        for _ in range(count):
            with torch.no_grad():
                for weight in model.parameters():
                    weight.normal_()
            teacher.update()

    model = network().to(dtype)
    teacher = EMATeacher(model, alpha=0.9, warm_up=True)
    updates(teacher, model, 5, seed=1)
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    updates(teacher, model, 5, seed=2)

    other = network(seed=3).to(dtype)
    resumed = EMATeacher(other, alpha=0.9, warm_up=True)
    resumed.load_state_dict(state)
    updates(resumed, other, 5, seed=2)
    assert resumed.num_updates == 10
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_bad_arguments_name_themselves():
    model = network()
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        EMATeacher(model, alpha=1.5)
    with pytest.raises(ValueError, match=r"buffers must be .* got 'mean'"):
        EMATeacher(model, buffers="mean")
    with pytest.raises(ValueError, match="no parameters to average: Flatten"):
        EMATeacher(nn.Flatten())
    teacher = EMATeacher(model)
    state = teacher.state_dict()
    weight = state.pop("model.0.weight")
    with pytest.raises(ValueError, match=r"lacks \['model.0.weight'\]"):
        teacher.load_state_dict(state)
    with pytest.raises(ValueError, match=r"has \['model.9'\]"):
        teacher.load_state_dict({**state, "model.0.weight": weight, "model.9": weight})
