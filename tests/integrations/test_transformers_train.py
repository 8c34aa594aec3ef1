"""``PoolStatsCallback(train=True)`` for the Trainer beside what the model itself returned."""

import copy
from types import SimpleNamespace

import pytest
import torch

from dynal_fast import PoolStats

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate")

from dynal_fast.integrations.transformers import FILE, PoolStatsCallback  # noqa: E402
from tests.integrations import test_transformers as pool_tests  # noqa: E402
from tests.integrations.test_transformers import (  # noqa: E402
    Kill,
    KilledError,
    Weights,
    assert_same,
    bert,
    pad,
    texts,
)

N, C = 16, 3
TRAIN = [{**sample, "id": N - 1 - i} for i, sample in enumerate(texts(N, 1))]
LABELS = torch.tensor([sample["label"] for sample in reversed(TRAIN)])
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*num_epochs is None"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]


def pad_with_ids(samples):
    ids = {"id": torch.tensor([s["id"] for s in samples])} if "id" in samples[0] else {}
    return {**pad(samples), **ids}


def new_stats():
    return PoolStats(N, C, track=("bald",), training_dynamics=True)


def trainer(folder, *callbacks, **options):
    train = options.pop("train", TRAIN)
    own = pool_tests.trainer(
        folder, *callbacks, train=train, **{"remove_unused_columns": False, **options}
    )
    own.data_collator = pad_with_ids
    return own


def recorded(seen):
    """A model whose outputs in training are kept, as the loss saw them."""
    model = bert()
    model.register_forward_hook(
        lambda module, inputs, output: module.training and seen.append(output.logits.clone())
    )
    return model


class Ids:
    """The collator, which keeps the ids of each batch in turn."""

    def __init__(self):
        self.batches = []

    def __call__(self, samples):
        self.batches.append(torch.tensor([s["id"] for s in samples]))
        return pad_with_ids(samples)


def folded(ids, logits, epochs):
    stats, each = new_stats(), len(ids) // epochs
    for epoch in range(epochs):
        with stats.observe(epoch + 1, epochs):
            for number in range(epoch * each, (epoch + 1) * each):
                targets = LABELS[ids[number]]
                stats.update(ids[number], logits[number].detach(), targets=targets)
    return stats


@pytest.mark.parametrize(
    "options",
    [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}, {"label_smoothing_factor": 0.1}],
)
def test_sees_what_training_computes(tmp_path, options):
    stats, logits, collate = new_stats(), [], Ids()
    targets = LABELS if "label_smoothing_factor" in options else None
    callback = PoolStatsCallback(stats, id_column="id", train=True, targets=targets)
    own = trainer(tmp_path, callback, model=recorded(logits), **options)
    own.data_collator = collate
    own.train()
    assert_same(stats, folded(collate.batches, logits, 3))
    assert stats.training_dynamics().observations.tolist() == [3] * N


def test_training_is_bit_equal_with_and_without(tmp_path):
    runs = []
    for observed in (False, True):
        weights = Weights()
        train, callbacks = TRAIN, [weights]
        if observed:
            callbacks.append(PoolStatsCallback(new_stats(), id_column="id", train=True))
        else:
            train = [{k: v for k, v in sample.items() if k != "id"} for sample in TRAIN]
        own = trainer(
            tmp_path, *callbacks, train=train, evaluate=TRAIN[:3] if observed else train[:3]
        )
        own.train()
        own.evaluate()
        runs.append((weights.epochs, torch.get_rng_state()))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(runs[0][1], runs[1][1])


# The end of an epoch, and one step into the next, also with the callback that saw the exception.
@pytest.mark.parametrize(("step", "again"), [(3, False), (4, False), (4, True)])
def test_interrupted_and_resumed_is_one_training(tmp_path, step, again):
    whole = new_stats()
    options = {"save_strategy": "steps", "save_steps": step, "save_total_limit": 1}
    trainer(tmp_path / "a", PoolStatsCallback(whole, id_column="id", train=True), **options).train()
    first = PoolStatsCallback(new_stats(), id_column="id", train=True)
    with pytest.raises(KilledError):
        trainer(tmp_path / "b", first, Kill(step + 1), **options).train()
    checkpoint = tmp_path / "b" / f"checkpoint-{step}"
    assert (checkpoint / FILE).is_file()
    second = first if again else PoolStatsCallback(new_stats(), id_column="id", train=True)
    stats = second.stats
    own = trainer(tmp_path / "b", second, **options)
    own.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(stats.score("aum"), whole.score("aum"))
    assert stats.training_dynamics().observations.tolist() == [3] * N
    assert torch.equal(
        stats.training_dynamics().forgetting_events, whole.training_dynamics().forgetting_events
    )


def test_a_retry_after_an_exception_in_one_of_several_processes_is_saved(tmp_path):
    callback = PoolStatsCallback(new_stats(), id_column="id", train=True)
    with pytest.raises(KilledError):
        trainer(tmp_path, callback, Kill(1)).train()
    callback._training._shared.processes = SimpleNamespace(size=2)  # as if there were another
    with pytest.warns(UserWarning, match="an exception ended a pass over the pool"):
        trainer(tmp_path, callback, save_strategy="epoch").train()
    saved = [torch.load(path, weights_only=True) for path in tmp_path.glob(f"*/{FILE}")]
    assert len(saved) == 3
    assert all(state["stats"] for state in saved)
    assert callback.stats.training_dynamics().observations.tolist() == [3] * N


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(ValueError, match="train=True give id_column="):
        PoolStatsCallback(new_stats(), train=True)
    with pytest.raises(ValueError, match="pass train=True"):
        PoolStatsCallback(new_stats(), TRAIN, targets="labels")
    callback = PoolStatsCallback(new_stats(), id_column="id", train=True)
    with pytest.raises(ValueError, match="have no id_column 'id', but input_ids"):
        trainer(tmp_path, copy.copy(callback), remove_unused_columns=True).train()
    with pytest.raises(ValueError, match="targets must say where"):
        trainer(tmp_path, callback, label_smoothing_factor=0.1).train()
