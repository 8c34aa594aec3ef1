"""The semi-supervised objective of output discrepancy against plain NumPy, and its gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from dynal_fast.data import load
from dynal_fast.experiment import ActiveLearningExperiment, ExperimentData, Protocol, Training
from dynal_fast.experiment.semi_supervised import (
    Objective,
    TwoHeads,
    overall_loss,
    tod_code_loss,
    unsupervised_loss,
)
from dynal_fast.models import embed
from tests.cases.experiment import blobs

# Plain NumPy, float64, as the paper writes them.


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def equation_7(logits, baseline_logits):
    return np.mean(
        [
            np.linalg.norm(f - g) ** 2
            for f, g in zip(softmax(logits), softmax(baseline_logits), strict=True)
        ]
    )


def equation_8(logits, targets):
    return np.mean([-np.log(p[y]) for p, y in zip(softmax(logits), targets, strict=True)])


def equation_9(logits, targets, unlabeled_logits, baseline_logits, weight):
    return equation_8(logits, targets) + weight * equation_7(unlabeled_logits, baseline_logits)


def equation_6(baseline, weights, alpha):
    return alpha * baseline + (1 - alpha) * weights


def tod_code(labeled, targets, unlabeled, weight):
    loss = equation_8(labeled[0], targets)
    residual = ((labeled[0] - labeled[1]) ** 2).mean() + ((unlabeled[0] - unlabeled[1]) ** 2).mean()
    consistency = ((labeled[1] - labeled[2]) ** 2).mean()
    consistency += ((unlabeled[1] - unlabeled[2]) ** 2).mean()
    return loss + weight * (residual + consistency)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (7, 10), (64, 100)])
@pytest.mark.parametrize("scale", [1, 30])
def test_the_losses_equal_the_papers_formulas(random, batch, classes, scale):
    logits, unlabeled, baseline = scale * random.normal(size=(3, batch, classes))
    targets = random.integers(0, classes, batch)
    tensors = [torch.from_numpy(array) for array in (logits, targets, unlabeled, baseline)]
    loss = unsupervised_loss(tensors[2], tensors[3])
    assert loss.item() == pytest.approx(equation_7(unlabeled, baseline), rel=1e-12)
    expected = equation_9(logits, targets, unlabeled, baseline, 0.05)
    assert overall_loss(*tensors, 0.05).item() == pytest.approx(expected, rel=1e-12)


def test_the_coded_loss_equals_a_transcription(random):
    labeled, unlabeled = random.normal(size=(3, 6, 5)), random.normal(size=(3, 9, 5))
    targets = random.integers(0, 5, 6)
    loss = tod_code_loss(
        tuple(torch.from_numpy(labeled)),
        torch.from_numpy(targets),
        tuple(torch.from_numpy(unlabeled)),
        0.02,
    )
    assert loss.item() == pytest.approx(tod_code(labeled, targets, unlabeled, 0.02), rel=1e-12)


def test_the_papers_constants_are_the_defaults():
    assert (Training().unsupervised_weight, Training().ema_alpha) == (0.05, 0.999)


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def two_heads():
    return TwoHeads(net(), (4,), 3)


def seeded(build, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def objective(variant, model, previous, weight=0.05, alpha=0.999, confidence=0.95):
    training = Training(
        unsupervised=variant,
        unsupervised_weight=weight,
        ema_alpha=alpha,
        confidence=confidence,
    )
    made = Objective(training, previous)
    made.begin_cycle(model, previous)
    return made


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 4, generator=generator)
    targets = torch.randint(3, (8,), generator=generator)
    return inputs, targets, torch.randn(12, 4, generator=generator)


def numpy_logits(model, inputs):
    with torch.no_grad():
        return model(inputs).double().numpy()


def take_step(followed, optimizer, batches):
    loss = followed.loss(*batches)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    followed.after_step()
    return loss.item()


@pytest.mark.parametrize("variant", ["ema", "cyclic"])
def test_the_baseline_of_the_papers_variants(batches, variant):
    """EMA follows eq. 6 from the present weights; cyclic is the last cycle's model throughout."""
    inputs, targets, unlabeled = batches
    model, previous = seeded(net, 1).eval(), seeded(net, 2)
    followed = objective(variant, model, previous, weight=0.3, alpha=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    start = (model if variant == "ema" else previous)[0].weight
    expected = start.detach().clone().double().numpy()
    for _ in range(3):
        by_hand = equation_9(
            numpy_logits(model, inputs),
            targets.numpy(),
            numpy_logits(model, unlabeled),
            numpy_logits(followed.baseline, unlabeled),
            0.3,
        )
        found = followed.baseline[0].weight.double().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert take_step(followed, optimizer, batches) == pytest.approx(by_hand, rel=1e-5)
        if variant == "ema":
            expected = equation_6(expected, model[0].weight.detach().double().numpy(), 0.9)
    assert not followed.baseline.training
    assert torch.equal(previous[0].weight, seeded(net, 2)[0].weight)
    assert followed.state() == {}


def test_the_ema_baseline_takes_the_models_batch_statistics(batches):
    model = net().train()
    followed = objective("ema", model, model)
    followed.loss(*batches).backward()
    followed.after_step()
    assert torch.equal(followed.baseline[1].running_mean, model[1].running_mean)
    assert not torch.equal(model[1].running_mean, torch.zeros(6))


def test_pseudo_labels_are_those_the_last_model_is_confident_of(batches):
    inputs, targets, unlabeled = batches
    model, previous = seeded(net, 1).eval(), seeded(net, 2).eval()
    logits, seen = numpy_logits(model, unlabeled), softmax(numpy_logits(previous, unlabeled))
    threshold = float(np.median(seen.max(1)))
    followed = objective("pseudo-labels", model, previous, weight=0.5, confidence=threshold)
    sure = seen.max(1) >= threshold
    assert sure.sum() == len(sure) / 2
    each = -np.log(softmax(logits)[np.arange(len(seen)), seen.argmax(1)])
    expected = equation_8(numpy_logits(model, inputs), targets.numpy()) + 0.5 * np.mean(each * sure)
    assert followed.loss(*batches).item() == pytest.approx(expected, rel=1e-5)
    followed.begin_cycle(model, previous, first=True)  # an untrained model is sure of nothing
    task = equation_8(numpy_logits(model, inputs), targets.numpy())
    assert followed.loss(*batches).item() == pytest.approx(task, rel=1e-5)


@pytest.mark.parametrize("variant", ["ema", "cyclic", "pseudo-labels"])
def test_gradients_reach_the_model_and_not_the_baseline(batches, variant):
    model, previous = net(), net()
    followed = objective(variant, model, previous)
    followed.loss(*batches).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    for weight in (*followed.baseline.parameters(), *previous.parameters()):
        assert weight.grad is None


def test_unlabeled_samples_move_the_model_by_the_weight(batches):
    """With the baseline elsewhere, only the weight decides how much the unlabeled batch matters."""
    inputs, targets, _ = batches
    model, previous = seeded(net, 1).eval(), seeded(net, 2)
    task = nn.functional.cross_entropy(model(inputs), targets)
    (task_gradient,) = torch.autograd.grad(task, model[0].weight)

    def gradient(weight):
        loss = objective("cyclic", model, previous, weight).loss(*batches)
        return torch.autograd.grad(loss, model[0].weight)[0] - task_gradient

    assert gradient(0.0).abs().max() < 1e-7
    assert torch.allclose(2 * gradient(1.0), gradient(2.0), atol=1e-6)
    assert gradient(1.0).abs().max() > 1e-4


# The authors' code


def test_two_heads_behave_as_the_model_alone(batches):
    inputs, _, _ = batches
    model = net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = TwoHeads(model, (4,), 3)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    wrapped.eval()
    first, second = wrapped.both(inputs)
    assert torch.equal(wrapped(inputs), model(inputs))
    assert torch.equal(first, model(inputs))
    assert torch.equal(second, wrapped.second_head(model[:3](inputs)))
    assert torch.equal(embed(wrapped, inputs), embed(model, inputs))


def test_the_coded_variant_trains_both_heads_and_averages_as_the_code_does(batches):
    inputs, targets, unlabeled = batches
    model, initial = seeded(two_heads, 1).eval(), seeded(two_heads, 2)
    followed = objective("tod-code", model, initial, weight=0.1)
    assert followed.baseline.training
    followed.baseline.eval()  # so that looking at it does not change it
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    expected = initial.second_head.weight.detach().double().numpy()
    buffers = followed.baseline.model[1].running_mean.clone()
    for step in range(1, 5):
        with torch.no_grad():
            labeled, extra = (
                [logits.double().numpy() for logits in (*model.both(x), followed.baseline(x))]
                for x in (inputs, unlabeled)
            )
        by_hand = tod_code(labeled, targets.numpy(), extra, 0.1)
        assert take_step(followed, optimizer, batches) == pytest.approx(by_hand, rel=1e-5)
        assert all(weight.grad is not None for weight in model.parameters())
        alpha = min(1 - 1 / (step + 1), 0.999)
        weights = model.second_head.weight.detach().double().numpy()
        expected = equation_6(expected, weights, alpha)
        found = followed.baseline.second_head.weight.double().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(followed.baseline.model[1].running_mean, buffers)


def test_the_coded_variant_goes_on_over_cycles_also_from_its_saved_state(batches):
    model, initial = seeded(two_heads, 1), seeded(two_heads, 2)
    followed = objective("tod-code", model, initial)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(9):
        take_step(followed, optimizer, batches)
    resumed = Objective(Training(unsupervised="tod-code"), seeded(two_heads, 3))
    resumed.restore({name: tensor.clone() for name, tensor in followed.state().items()})
    average = followed.baseline.second_head.weight.clone()
    for continued in (followed, resumed):
        fresh = seeded(two_heads, 4)
        continued.begin_cycle(fresh, model)
        assert torch.equal(continued.baseline.second_head.weight, average)
        continued.after_step()  # t = 10: alpha = 1 - 1/11
        expected = equation_6(average.numpy(), fresh.second_head.weight.detach().numpy(), 10 / 11)
        found = continued.baseline.second_head.weight.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_coded_variant_needs_two_heads():
    with pytest.raises(TypeError, match="initial must be TwoHeads, got Sequential"):
        Objective(Training(unsupervised="tod-code"), net())
    with pytest.raises(TypeError, match="model must be TwoHeads, got Sequential"):
        objective("tod-code", net(), two_heads())


# In the loop


def run(variant, directory=None, retrain="scratch", data=None, **training):
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "confidence": 0.4, **training}
    return ActiveLearningExperiment(
        data or blobs(),
        "mlp",
        "random",
        protocol=Protocol(initial=20, budget=10, cycles=1, retrain=retrain),
        training=Training(unsupervised=variant, **settings),
        directory=directory,
    )


@pytest.mark.parametrize("variant", ["ema", "cyclic", "tod-code", "pseudo-labels"])
def test_every_variant_runs_repeats_itself_and_differs_from_the_task_alone(variant):
    first = run(variant).run()
    assert first == run(variant).run()
    losses = [cycle.train_loss for cycle in first.cycles]
    assert losses != [cycle.train_loss for cycle in run("none").run().cycles]


@pytest.mark.parametrize("retrain", ["scratch", "continue"])
@pytest.mark.parametrize("variant", ["ema", "cyclic", "tod-code", "pseudo-labels"])
def test_a_run_that_is_interrupted_ends_as_one_that_is_not(tmp_path, variant, retrain):
    whole = run(variant, retrain=retrain).run()
    interrupted = run(variant, tmp_path, retrain=retrain)

    def stop(cycle, epoch):
        if (cycle, epoch) == (1, 2):
            raise KeyboardInterrupt

    interrupted.on_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert run(variant, tmp_path, retrain=retrain).run() == whole


def test_with_everything_labeled_the_task_loss_is_all_there_is():
    data = blobs()
    everything = Protocol(initial=len(data.samples), cycles=0)
    results = [
        ActiveLearningExperiment(
            data,
            "mlp",
            "random",
            protocol=everything,
            training=Training(epochs=1, batch_size=256, unsupervised=variant),
        ).run()
        for variant in ("none", "ema")
    ]
    assert results[0].cycles == results[1].cycles


def test_augmented_batches_train_differently_and_repeatably():
    data = ExperimentData.from_images(load("digits"))
    plain = run("none", data=data).run()
    augmented = run("none", data=data, crop_padding=1, horizontal_flip=True).run()
    assert augmented == run("none", data=data, crop_padding=1, horizontal_flip=True).run()
    assert [c.train_loss for c in augmented.cycles] != [c.train_loss for c in plain.cycles]
