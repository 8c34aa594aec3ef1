import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from dynal_fast import EMATeacher, PoolImages, PoolStats, observe_pool
from dynal_fast.pool import PoolObservationError
from tests.cases.observe import Images, Recorder, run

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def network(dropout=0.5, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 5)
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_outputs_are_those_of_evaluation_mode(device, shuffle):
    data = Images()
    model = network().to(device).train()
    teacher = network(seed=1).to(device).train()
    stats = run(model, DataLoader(data, 5, shuffle=shuffle), teacher=teacher)
    images = data.images.to(device)
    with torch.no_grad():
        torch.testing.assert_close(stats.outputs(1), model.eval()(images))
        torch.testing.assert_close(stats.outputs(2), teacher.eval()(images))


def test_every_training_flag_is_restored_also_after_an_exception():
    model = network().train()
    model[1].eval()  # a frozen batch normalisation stays frozen
    teacher = network().train()
    want = [module.training for module in model.modules()]
    run(model, DataLoader(Images(), 5), teacher=teacher)
    assert [module.training for module in model.modules()] == want
    with pytest.raises(RuntimeError, match="planted"):
        run(model, DataLoader(Images(), 5), Recorder(fail_at=2), teacher=teacher, mc_passes=2)
    assert [module.training for module in model.modules()] == want
    assert all(module.training for module in teacher.modules())
    assert torch.is_grad_enabled()


def test_weights_buffers_and_random_state_are_untouched():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    run(model, DataLoader(Images(), 5, shuffle=True))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_epoch_that_nobody_wants_touches_nothing():
    class Untouchable:
        def __iter__(self):
            raise AssertionError("the pool was read")

    stats = Recorder(wanted=False)
    assert observe_pool(network(), Untouchable(), stats, epoch=1, num_epochs=2) is False
    assert stats.passes == []


@pytest.mark.parametrize("device", DEVICES)
def test_an_ema_teacher_sees_the_same_batches(device):
    data = Images()
    model = network().to(device)
    teacher = EMATeacher(model)
    stats = run(model, DataLoader(data, 7), teacher=teacher)
    assert torch.equal(stats.outputs(1), stats.outputs(2))


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_is_on_only_when_asked_for(device):
    model = network().to(device)
    loader = DataLoader(Images(), 5)
    assert run(model, loader, amp=torch.bfloat16).outputs().dtype == torch.bfloat16
    with torch.autocast(device, dtype=torch.bfloat16):
        assert run(model, loader).outputs().dtype == torch.float32
    assert run(model, loader).outputs().dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
def test_training_goes_on_inside_an_outer_autocast(device):
    model = network().to(device)
    images = torch.randn(4, 3, 8, 8, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        run(model, DataLoader(Images(), 5), amp=torch.bfloat16)
        model(images).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


class Layout(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return self.conv(images).flatten(1)


def test_channels_last_follows_the_model_unless_told():
    loader = DataLoader(Images(), 23)
    plain, converted = Layout(), Layout().to(memory_format=torch.channels_last)
    run(plain, loader)
    run(converted, loader)
    run(plain, loader, channels_last=True)
    run(converted, loader, channels_last=False)
    assert plain.seen == [False, True]
    assert converted.seen == [True, False]


def test_forward_serves_models_that_take_and_return_more():
    class TwoInputs(nn.Module):
        def forward(self, images, scale):
            return images.flatten(1) * scale[:, None], "extra"

    class Pairs(Images):
        def __getitem__(self, i):
            return i, {"images": self.images[i], "scale": torch.tensor(float(i))}

    data = Pairs()
    stats = run(TwoInputs(), DataLoader(data, 5), forward=lambda model, inputs: model(**inputs)[0])
    assert torch.equal(stats.outputs(), data.images.flatten(1) * torch.arange(23.0)[:, None])
    with pytest.raises(TypeError, match=r"TwoInputs returned tuple.*forward="):
        run(TwoInputs(), DataLoader(data, 5), forward=lambda model, inputs: model(**inputs))


def test_a_loader_without_a_length_and_a_partial_pass():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ((i, torch.randn(3, 8, 8)) for i in range(7))

    stats = run(network(), DataLoader(Stream(), 3), partial=True, progress=True)
    assert stats.partial == [True]
    assert [len(ids) for ids, _, _ in stats.passes[0]] == [3, 3, 1]


def test_progress_is_shown_on_a_terminal_or_on_request(capsys, monkeypatch):
    loader = DataLoader(Images(), 5)
    run(network(), loader)
    assert "observing" not in capsys.readouterr().err
    run(network(), loader, progress=True)
    assert "observing the pool" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(network(), loader)
    assert "observing the pool" in capsys.readouterr().err
    run(network(), loader, progress=False)
    assert "observing" not in capsys.readouterr().err


def test_an_unknown_number_of_epochs_reaches_the_tracker():
    stats = Recorder()
    assert observe_pool(network(), DataLoader(Images(), 5), stats, epoch=3) is True
    assert stats.epochs == [(3, None)]


@pytest.mark.parametrize("pool", [[], [(torch.tensor([]), torch.zeros(0, 3, 8, 8))]])
@pytest.mark.parametrize("mc_passes", [0, 3])
def test_a_pool_without_samples_is_not_observed(pool, mc_passes):
    stats = Recorder()
    options = {"epoch": 1, "num_epochs": 1, "mc_passes": mc_passes}
    assert observe_pool(network(), pool, stats, partial=True, **options) is False
    assert stats.passes == []
    assert observe_pool(network(), pool, stats, **options) is False  # the tracker asked for all
    assert stats.passes == [[]]
    tracker = PoolStats(4, 5, track=("margin",))
    with pytest.raises(PoolObservationError, match="4 samples not seen"):
        observe_pool(network(), pool, tracker, **options)


@pytest.mark.parametrize("partial", [False, True])
def test_an_iterator_that_is_used_up_is_refused(partial):
    images = Images().images
    pool = iter([(torch.arange(23), images)])
    run(network(), pool)
    with pytest.raises(ValueError, match="the pool is used up: a list_iterator gives"):
        run(network(), pool, partial=partial)


def test_layers_made_in_the_first_forward_get_their_models_flag():
    class Late(nn.Module):
        def forward(self, images):
            if not hasattr(self, "head"):
                self.head = nn.Linear(192, 5)
            return self.head(images.flatten(1))

    for training in (True, False):
        model = Late().train(training)
        run(model, DataLoader(Images(), 5))
        assert model.head.training is model.training is training


MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pool_images_normalise_like_the_formula(device, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 3, 5, 4), dtype=np.uint8)
    want = (images / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    pool = PoolImages(images, mean=MEAN, std=STD, batch_size=4, device=device, dtype=dtype)
    batches = list(pool)
    assert len(pool) == len(batches) == 3
    ids = torch.cat([batch[0] for batch in batches])
    inputs = torch.cat([batch[1] for batch in batches])
    assert ids.dtype == torch.int64
    assert ids.tolist() == list(range(11))
    assert inputs.dtype == dtype
    assert inputs.device.type == device
    rtol = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(inputs.cpu().double(), torch.from_numpy(want), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_pool_images_stream_the_given_samples_only(device):
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    whole = PoolImages(images, mean=0, std=1 / 255, batch_size=2, device=device)
    part = whole.with_ids(np.array([5, 0, 3], dtype=np.int32))
    assert part.images.data_ptr() == whole.images.data_ptr()
    assert [ids.tolist() for ids, _ in part] == [[5, 0], [3]]
    assert [inputs.flatten().round().tolist() for _, inputs in part] == [[5.0, 0.0], [3.0]]
    assert list(whole.with_ids([])) == []
    assert sum(len(ids) for ids, _ in whole) == 6


@pytest.mark.parametrize("device", DEVICES)
def test_pool_images_and_a_loader_give_the_same_outputs(device):
    images = torch.randint(0, 256, (23, 3, 8, 8), dtype=torch.uint8)
    pool = PoolImages(images, mean=MEAN, std=STD, batch_size=5, device=device)
    inputs = torch.cat([batch for _, batch in pool]).cpu()
    loader = DataLoader(list(zip(range(23), inputs, strict=True)), 5)
    model = network().to(device)
    assert torch.equal(run(model, pool).outputs(), run(model, loader).outputs())


def test_pool_images_read_a_memory_map(tmp_path):
    images = torch.randint(256, (5, 1, 4, 4), dtype=torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pools = [PoolImages(given, mean=0.5, std=0.25) for given in (images, mapped)]
    ((ids, ours), (other, theirs)) = (next(iter(pool)) for pool in pools)
    assert torch.equal(ids, other)
    assert torch.equal(ours, theirs)


def test_pool_images_refuse_what_they_cannot_be():
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    good = {"mean": MEAN, "std": STD}
    with pytest.raises(
        ValueError, match=r"images must be .* uint8, got \(4, 3, 2, 2\) torch.float"
    ):
        PoolImages(images.float(), **good)
    with pytest.raises(ValueError, match="images must be"):
        PoolImages(images[0], **good)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        PoolImages(images, **good, batch_size=0)
    with pytest.raises(
        ValueError, match=r"mean must be one number or one per channel \(3\), got 2"
    ):
        PoolImages(images, mean=(0, 0), std=1)
    with pytest.raises(ValueError, match="std must be positive"):
        PoolImages(images, mean=0, std=0)
    with pytest.raises(
        ValueError, match=r"sample_ids must be in \[0, 4\), got values from -1 to 3"
    ):
        PoolImages(images, **good, sample_ids=[3, -1])
    with pytest.raises(ValueError, match="sample_ids must be 1-D integers"):
        PoolImages(images, **good, sample_ids=[0.5])
