"""How batches reach a CUDA device, on simulated streams: nothing is read early or freed early."""

import pytest
import torch

from dynal_fast.pool import transfer
from tests.simulated_streams import Gpus, SimulatedTensor, Stream

GPU, OTHER_GPU, CPU = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    transfer.copy_stream.cache_clear()
    yield Gpus(monkeypatch)
    transfer.copy_stream.cache_clear()


def loader(gpus, places, made):
    """A batch for each of ``places``, made as it is asked for: where ids and two inputs are."""
    for i, where in enumerate(places):
        values = torch.arange(2) + 2 * i, torch.full((2, 3, 2, 2), float(i)), torch.ones(2) * i
        ids, image, extra = (
            gpus.tensor(value, device) for value, device in zip(values, where, strict=True)
        )
        made += [ids, image, extra]
        yield ids, {"image": image, "extra": extra}


def consume(gpus, places, channels_last=False):
    """Compute on each batch, on the stream that is current; return what the loader made."""
    made, moved, order = [], [], []
    for ids, inputs in transfer.on_device(loader(gpus, places, made), GPU, channels_last):
        tensors = ids, inputs["image"], inputs["extra"]
        computing = gpus.current[GPU]
        for tensor in tensors:
            assert tensor.device == GPU
            gpus.read(tensor, computing)
        computing.kernel()
        moved += tensors
        order.append(ids.values().tolist())
    assert order == [[2 * i, 2 * i + 1] for i in range(len(places))]
    for tensor in made + moved:
        gpus.check_recorded(tensor)
    return made


PLACES = [
    (CPU, CPU, CPU),
    (CPU, GPU, CPU),  # images that a loader decodes or augments on the device
    (CPU, GPU, GPU),
    (GPU, CPU, CPU),
    (GPU, GPU, GPU),  # PoolImages
    (OTHER_GPU, OTHER_GPU, OTHER_GPU),  # PoolImages on another device
    (CPU, OTHER_GPU, GPU),
]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("side_stream", [False, True])
def test_nothing_is_read_before_it_is_written(where, channels_last, side_stream, gpus):
    if side_stream:
        gpus.current[GPU] = Stream(GPU, "the caller's stream")
    consume(gpus, [where] * 4, channels_last)
    assert gpus.faults == []
    if all(place == GPU for place in where):
        assert gpus.made == []


def test_batches_of_every_kind_stay_in_order(gpus):
    consume(gpus, PLACES + PLACES[::-1], channels_last=True)
    assert gpus.faults == []


def test_images_become_channels_last_behind_the_loaders_kernels(gpus):
    made = consume(gpus, [(CPU, GPU, GPU)] * 4, channels_last=True)
    copying = transfer.copy_stream(GPU)
    assert gpus.log.count(("layout", copying)) == 4
    assert [image.recorded >= {copying} for image in made[1::3]] == [True] * 4


@pytest.mark.parametrize("where", [(CPU, GPU, GPU), (CPU, GPU, CPU)])
def test_the_simulation_finds_a_wait_that_is_missing(where, gpus, monkeypatch):
    monkeypatch.setattr(Stream, "wait_stream", lambda self, stream: None)
    consume(gpus, [where] * 2, channels_last=True)
    assert any("has not written yet" in fault for fault in gpus.faults)


@pytest.mark.parametrize("where", PLACES[:4])
def test_the_simulation_finds_memory_that_nobody_recorded(where, gpus, monkeypatch):
    monkeypatch.setattr(SimulatedTensor, "record_stream", lambda self, stream: None)
    consume(gpus, [where] * 2, channels_last=True)
    assert any("that is free" in fault for fault in gpus.faults)


def test_a_device_keeps_its_copy_stream(gpus):
    for _ in range(3):
        consume(gpus, [(CPU, CPU, CPU)] * 2)
    assert len(gpus.made) == 1
    assert transfer.copy_stream(OTHER_GPU) is not transfer.copy_stream(GPU)
    assert gpus.made[1].device == OTHER_GPU


def test_the_next_batch_is_copied_before_this_one_is_computed(gpus):
    batches = transfer.on_device(loader(gpus, [(CPU, CPU, CPU)] * 4, []), GPU, False)
    for i, _ in enumerate(batches):
        assert len(gpus.log) == 3 * min(i + 2, 4)
    assert {stream for _, stream in gpus.log} == {transfer.copy_stream(GPU)}
