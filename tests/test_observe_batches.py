import collections
import types
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import MutableMapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from dynal_fast import PoolImages, PoolStats, observe_pool
from dynal_fast.pool import forward
from dynal_fast.pool.batches import map_tensors
from tests.cases.observe import Images, Recorder, run

N = 11
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(1))
Named = namedtuple("Named", "inputs targets idx")


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding: a UserDict with something beside its data."""

    def __init__(self, data, encodings=None):
        super().__init__(data)
        self.encodings = encodings

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


@dataclass(frozen=True)
class Graphs:
    x: Tensor
    idx: Tensor
    name: str = "graphs"


class Linear(nn.Module):
    """Maps (batch, 6) to (batch, 3)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        return self.linear(x)


class Keywords(Linear):
    """As models of Hugging Face: keywords in, an output with logits out."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        logits = self.linear(input_ids) * attention_mask[:, None]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Output(logits, loss)


class TakesDict(Linear):
    """Takes one dict, and keeps what it was given."""

    def forward(self, batch):
        self.seen = batch
        return self.linear(batch["x"])


class Raises(nn.Module):
    """Must not be reached."""

    def forward(self, *args, **kwargs):
        raise AssertionError("the model was called")


def want():
    with torch.no_grad():
        return Linear()(X)


class Series:
    """As one of pandas with a filtered index: an array by position, else looked up by label."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)


def shuffled(make):
    """Batches of 4 in some order, made of their ids and inputs."""
    return [make(ids, X[ids]) for ids in ORDER.split(4)]


POOLS = {
    "pair": (shuffled(lambda ids, x: (ids, x)), None),
    "list": (shuffled(lambda ids, x: [ids, x]), None),
    "explicit": (shuffled(lambda ids, x: (ids, x)), 0),
    "inputs first": (shuffled(lambda ids, x: (x, ids)), 1),
    "from the end": (shuffled(lambda ids, x: (x, ids)), -1),
    "with targets": (shuffled(lambda ids, x: (x, Y[ids], ids)), 2),
    "ids first": (shuffled(lambda ids, x: (ids, x, Y[ids])), 0),
    "ids between": (shuffled(lambda ids, x: (x, ids, Y[ids])), np.int64(1)),
    "named": (shuffled(lambda ids, x: Named(x, Y[ids], ids)), "idx"),
    "named by position": (shuffled(lambda ids, x: Named(x, Y[ids], ids)), 2),
    "more parts": (shuffled(lambda ids, x: (x, None, ["a"] * len(ids), ids)), -1),
    "ids in a list": (shuffled(lambda ids, x: (ids.tolist(), x)), None),
    "ids in a tuple": (shuffled(lambda ids, x: (x, tuple(ids.tolist()))), 1),
    "ids as numbers": (shuffled(lambda ids, x: (list(ids), x)), None),
    "ids as an array": (shuffled(lambda ids, x: (ids.numpy(), x)), None),
    "ids of uint8": (shuffled(lambda ids, x: (ids.numpy().astype(np.uint8), x)), None),
    "ids of uint64": (shuffled(lambda ids, x: (ids.numpy().astype(np.uint64), x)), None),
    "ids of int16": (shuffled(lambda ids, x: (ids.short(), x)), None),
    "ids of int32": (shuffled(lambda ids, x: (ids.int(), x)), None),
    "ids in a Series": (shuffled(lambda ids, x: (Series(ids.numpy()), x)), None),
    "a column of ids": (shuffled(lambda ids, x: (ids[:, None], x)), None),
}


@pytest.mark.parametrize("name", POOLS)
def test_ids_are_found_where_they_are(name):
    pool, ids = POOLS[name]
    stats = run(Linear(), pool, ids=ids)
    assert stats.ids() == ORDER.tolist()
    assert torch.equal(stats.outputs(), want())
    assert all(batch[0].dtype in (torch.int64, torch.int32) for batch in stats.passes[0])


def rows():
    return [
        {"input_ids": X[i], "attention_mask": torch.tensor(1.0), "labels": Y[i], "idx": i}
        for i in ORDER.tolist()
    ]


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, Encoding])
def test_a_dict_reaches_a_model_that_takes_keywords(kind):
    def collate(samples):
        names = samples[0]
        return kind({k: torch.stack([torch.as_tensor(row[k]) for row in samples]) for k in names})

    loader = DataLoader(rows(), 4, collate_fn=collate)
    stats = run(Keywords(), loader, ids="idx")
    assert stats.ids() == ORDER.tolist()
    assert torch.equal(stats.outputs(), want())
    loader = DataLoader(rows(), 4, collate_fn=collate)
    teacher = run(Keywords(), loader, ids="idx", teacher=nn.DataParallel(Keywords()))
    assert torch.equal(teacher.outputs(2), want())


class OwnMapping(MutableMapping):
    """A mapping whose shallow copy shares its entries."""

    def __init__(self, entries):
        self.entries = dict(entries)

    def __getitem__(self, key):
        return self.entries[key]

    def __setitem__(self, key, value):
        self.entries[key] = value

    def __delitem__(self, key):
        del self.entries[key]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)


def test_the_batch_itself_is_left_as_it_was():
    batch = {"input_ids": X, "attention_mask": torch.ones(N), "idx": torch.arange(N)}
    for pool in ([batch], [Encoding(batch)], [OwnMapping(batch)]):
        run(Keywords(), pool, ids="idx")
        run(Keywords(), pool, ids="idx")
        assert pool[0]["input_ids"] is X
        assert set(pool[0]) == {"input_ids", "attention_mask", "idx"}


@pytest.mark.parametrize(
    "kind", [dict, OrderedDict, UserDict, Encoding, OwnMapping, types.MappingProxyType]
)
def test_a_model_that_takes_one_dict_gets_one(kind):
    batch = kind({"x": X, "idx": torch.arange(N), "name": ["a"] * N, "extra": None})
    model = TakesDict()
    assert torch.equal(run(model, [batch], ids="idx").outputs(), want())
    assert type(model.seen) is kind
    assert dict(model.seen).keys() == {"x", "name", "extra"}
    assert model.seen["name"] == ["a"] * N
    assert model.seen["extra"] is None
    assert torch.equal(run(TakesDict(), [(torch.arange(N), kind({"x": X}))]).outputs(), want())
    assert torch.equal(run(nn.Sequential(TakesDict()), [batch], ids="idx").outputs(), want())


def signature_cases():
    class Optional(TakesDict):
        def forward(self, batch=None, **options):
            assert not options
            return super().forward(batch)

    class OneKey(Linear):
        def forward(self, x):
            return self.linear(x)

    class Only(Linear):
        def forward(self, *, x, scale=1):
            return self.linear(x) * scale

    class Anything(Linear):
        def forward(self, **inputs):
            return self.linear(inputs["x"])

    class Wrapper(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, *args, **kwargs):
            return self.model(*args, **kwargs)

    x = {"x": X}
    yield "a default", Optional(), x
    yield "one argument of that name", OneKey(), x
    yield "keywords only", Only(), {"x": X, "scale": torch.tensor(1.0)}
    yield "any keywords", Anything(), {**x, "other": None}
    yield "a wrapper of one that takes a dict", Wrapper(TakesDict()), x
    yield "a wrapper of one that takes keywords", Wrapper(Wrapper(Only())), x
    yield "DataParallel", nn.DataParallel(TakesDict()), x
    yield "keys that are no names", Wrapper(IntKeys()), {0: X}


class IntKeys(Linear):
    def forward(self, batch):
        return self.linear(batch[0])


@pytest.mark.parametrize(("name", "model", "inputs"), list(signature_cases()))
def test_the_signature_says_how_a_dict_is_passed(name, model, inputs):
    assert torch.equal(run(model, [(torch.arange(N), inputs)]).outputs(), want())


def test_a_dict_that_fits_no_way_says_what_to_do():
    batch = {"image": X, "label": Y, "idx": torch.arange(N)}
    with pytest.raises(
        TypeError,
        match=r"Linear was given a dict with the keys 'image', 'lab.*model\(inputs\['image'\]\)",
    ):
        run(Linear(), [batch], ids="idx")
    got = run(Linear(), [batch], ids="idx", forward=lambda model, inputs: model(inputs["image"]))
    assert torch.equal(got.outputs(), want())


def test_a_models_signature_is_looked_at_once(monkeypatch):
    looks = []

    def looked_at(model, keys, takes_keywords=forward._takes_keywords):
        looks.append((model, keys))
        return takes_keywords(model, keys)

    monkeypatch.setattr(forward, "_takes_keywords", looked_at)
    model, pool = Keywords(), [{"input_ids": X, "attention_mask": torch.ones(N)}] * 3
    run(model, [{**batch, "idx": torch.arange(N)} for batch in pool], ids="idx")
    assert looks == [(model, ("input_ids", "attention_mask"))]


@pytest.mark.parametrize(
    "inputs",
    [
        Named(X, None, "text"),
        (X, None, ["text"], 3),
        [X, "text"],
        {"x": X, "y": [X, (X,)]},
        OrderedDict(x=X),
        collections.defaultdict(list, x=X),
        UserDict(x=X, y=None),
        Encoding({"x": X, "y": "text"}, encodings="kept"),
        Graphs(X, X),
        Output(X),
        types.SimpleNamespace(x=X),
        pack_sequence([X, X[:2]], enforce_sorted=False),
    ],
)
def test_inputs_keep_their_types(inputs):
    seen = []

    def forward(model, given):
        seen.append(given)
        return model(X)

    run(Linear(), [(torch.arange(N), inputs)], forward=forward)
    assert type(seen[0]) is type(inputs)
    assert getattr(seen[0], "encodings", None) == getattr(inputs, "encodings", None)
    doubled = map_tensors(lambda tensor: 2 * tensor, inputs)
    assert type(doubled) is type(inputs)
    if isinstance(inputs, PackedSequence):
        assert doubled.batch_sizes is inputs.batch_sizes
        assert torch.equal(doubled.data, 2 * inputs.data)


class Pair(tuple):
    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Two(list):
    def __init__(self, first, second):
        super().__init__([first, second])


@pytest.mark.parametrize(("kind", "plain"), [(Pair, tuple), (Two, list)])
def test_containers_that_cannot_be_made_of_their_parts_become_plain_ones(kind, plain):
    got = map_tensors(torch.neg, kind(torch.tensor(1), None))
    assert type(got) is plain
    assert got == plain([torch.tensor(-1), None])


def test_map_tensors_maps_every_tensor_and_nothing_else():
    one = torch.tensor(1)
    value = Named([one, {"a": (one, "text")}], Graphs(one, one), None)
    got = map_tensors(torch.neg, value)
    assert got == Named([-one, {"a": (-one, "text")}], Graphs(-one, -one), None)
    assert value.inputs[0] is one
    assert value.targets.x is one


def test_texts_and_none_reach_the_model():
    class Texts(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(text)), 0.0] for text in texts])

    data = [(i, "a" * i) for i in range(N)]
    assert run(Texts(), DataLoader(data, 4)).outputs()[:, 0].tolist() == list(range(N))
    batches = [(torch.arange(2), {"x": X[:2], "extra": None, "text": "b"})]
    model = TakesDict()
    run(model, batches)
    assert model.seen["extra"] is None
    assert model.seen["text"] == "b"


def output_cases():
    yield "logits", Output
    yield "a dict", lambda logits: {"loss": None, "logits": logits}
    yield "a UserDict", lambda logits: UserDict(logits=logits)
    yield "a named tuple", namedtuple("Outputs", "logits aux")._make
    yield "a tensor", lambda logits: logits


@pytest.mark.parametrize(("name", "wrap"), list(output_cases()))
def test_outputs_with_logits_are_understood(name, wrap):
    class Wrapped(Linear):
        def forward(self, x):
            logits = self.linear(x)
            return wrap((logits, None)) if name == "a named tuple" else wrap(logits)

    assert torch.equal(run(Wrapped(), [(torch.arange(N), X)]).outputs(), want())
    got = run(Wrapped(), [(torch.arange(N), X)], forward=lambda model, inputs: model(inputs))
    assert torch.equal(got.outputs(), want())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((torch.zeros(N, 3), None), r"returned tuple, not a tensor of logits.*forward="),
        ({"out": torch.zeros(N, 3)}, r"returned dict with the keys 'out'.*forward="),
        (None, "returned NoneType"),
        (Output(None), "returned Output"),
    ],
)
def test_outputs_without_logits_are_refused(output, message):
    with pytest.raises(TypeError, match=message):
        run(Linear(), [(torch.arange(N), X)], forward=lambda model, inputs: output)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (N, 7, 3),
            r"logits \(11, 7, 3\).*token logits.*pools them over the tokens.*flatten\(0, 1\)",
        ),
        ((N, 3, 4, 4), r"logits \(11, 3, 4, 4\).*pixels.*mean\(\(2, 3\)\)"),
        ((N, 3, 2, 4, 4), "pixels"),
        ((N,), r"logits \(11,\).*\(0, z\)"),
        ((), r"logits \(\)"),
        ((N - 1, 3), r"logits \(10, 3\) for 11 ids"),
        ((1, 3), r"logits \(1, 3\) for 11 ids"),
    ],
)
def test_logits_of_another_shape_are_refused_with_what_to_do(shape, message):
    stats = Recorder()
    pool = [(torch.arange(N), X)]
    with pytest.raises(ValueError, match=message):
        run(Linear(), pool, stats, forward=lambda model, inputs: torch.zeros(shape))
    assert stats.passes == [[]]
    with pytest.raises(ValueError, match=message):  # the teacher's, too
        run(
            Linear(),
            pool,
            teacher=Raises(),
            forward=lambda model, inputs: (
                torch.zeros(shape) if isinstance(model, Raises) else model(inputs)
            ),
        )


def test_the_advice_for_token_and_pixel_logits_works():
    class Tokens(Linear):
        def forward(self, x):
            return self.linear(x[:, None].expand(-1, 5, -1))

    class Pixels(Linear):
        def forward(self, x):
            return self.linear(x)[:, :, None, None].expand(-1, -1, 2, 2)

    ids = torch.arange(N)
    pooled = run(Tokens(), [(ids, X)], forward=lambda model, inputs: model(inputs).mean(1))
    torch.testing.assert_close(pooled.outputs(), want())
    pooled = run(Pixels(), [(ids, X)], forward=lambda model, inputs: model(inputs).mean((2, 3)))
    torch.testing.assert_close(pooled.outputs(), want())
    tokens = torch.arange(5 * N)
    flat = run(Tokens(), [(tokens, X)], forward=lambda model, inputs: model(inputs).flatten(0, 1))
    assert torch.equal(flat.outputs(), want().repeat_interleave(5, 0))
    pixels = torch.arange(4 * N)
    flat = run(
        Pixels(),
        [(pixels, X)],
        forward=lambda model, inputs: model(inputs).movedim(1, -1).flatten(0, -2),
    )
    assert torch.equal(flat.outputs(), want().repeat_interleave(4, 0))


@pytest.mark.parametrize(
    ("batch", "options", "error", "message"),
    [
        (X, {}, TypeError, r"must be \(sample_ids, inputs\), got Tensor; .*ids= says so"),
        (
            (torch.arange(N), X, Y),
            {},
            TypeError,
            r"tuple of \(Tensor, Tensor, Tensor\); .*ids=",
        ),
        ((X,), {}, TypeError, r"got tuple of \(Tensor\)"),
        ((X,), {"ids": 0}, ValueError, "ids=0 must be a position in the batch, beside the inputs"),
        (
            (X, Y),
            {},
            ValueError,
            r"\(batch,\) int.* got \(11, 6\) torch.float32; .*\"pos",
        ),
        ((X, Y), {"ids": 2}, ValueError, "ids=2 must be a position in the batch"),
        ((X, Y), {"ids": -3}, ValueError, "ids=-3 must be a position in the batch"),
        ((X, Y), {"ids": "idx"}, ValueError, "ids='idx' is no part of .* positions only"),
        (Named(X, Y, Y), {"ids": "id"}, ValueError, "ids='id' is no .* named inputs, targets, idx"),
        ({"x": X, "y": Y}, {}, TypeError, "dict with the keys 'x', 'y': ids= must name the one"),
        ({"x": X, "y": Y}, {"ids": 1}, TypeError, "ids= must name the one .* got ids=1"),
        ({"x": X, "y": Y}, {"ids": "idx"}, ValueError, "ids='idx' is no key .* have 'x', 'y'"),
        ((torch.rand(N), X), {}, ValueError, r"got \(11,\) torch.float32"),
        ((torch.rand(N) > 1, X), {}, ValueError, r"got \(11,\) torch.bool"),
        ((np.ones(N), X), {}, ValueError, "got .* torch.float64"),
        (([1.5] * N, X), {}, ValueError, "got .* torch.float32"),
        ((["a.png"] * N, X), {}, TypeError, "the samples' rows in the tracker, got list of str"),
        ((None, X), {}, TypeError, "got NoneType"),
        ((torch.tensor(3), X), {}, ValueError, r"got \(\) torch.int64"),
        ((3, X[0]), {}, ValueError, r"got \(\) torch.int64"),
        ((torch.zeros(N, 2).long(), X), {}, ValueError, r"got \(11, 2\) torch.int64"),
        ((torch.arange(N - 1), X), {}, ValueError, "10 ids for 11 samples"),
        ((torch.arange(N), X[:1]), {}, ValueError, "11 ids for 1 samples"),
        ((torch.arange(3), torch.zeros(5, 3, 8, 8)), {}, ValueError, "3 ids for 5 samples"),
        ((torch.arange(3), ["a", "b"]), {}, ValueError, "3 ids for 2 samples"),
        (({"a": X, "b": X}, torch.arange(3)), {"ids": 1}, ValueError, "3 ids for 11 samples"),
        (("text", X), {}, TypeError, "got str"),
        ("text", {}, TypeError, "got str"),
    ],
)
def test_ids_are_checked_before_the_forward_pass(batch, options, error, message):
    stats = Recorder()
    with pytest.raises(error, match=message):
        run(Raises(), [batch], stats, **options)
    assert stats.passes == []


@pytest.mark.parametrize("ids", [True, 1.0, [0], ("idx",), b"idx"])
def test_ids_of_another_type_are_refused(ids):
    with pytest.raises(TypeError, match="ids must be"):
        run(Raises(), [(torch.arange(N), X)], ids=ids)


@pytest.mark.parametrize(
    ("inputs", "forward"),
    [
        (torch.zeros(5, 3, 6), "time first"),
        (torch.zeros(5, 3, dtype=torch.long), "tokens, time first"),
        ((torch.zeros(70, 4), torch.zeros(2, 99)), "a graph"),
        ({"pos": torch.zeros(70, 3), "batch": torch.zeros(70, dtype=torch.long)}, "points"),
        ([torch.zeros(5, 4, 4), torch.zeros(5, 6, 6), torch.zeros(5, 2, 2)], "images of any size"),
        (pack_sequence([X, X, X]), "packed"),
        (types.SimpleNamespace(x=X), "anything"),
    ],
)
def test_inputs_that_do_not_tell_their_number_are_not_refused(inputs, forward):
    class Three(nn.Module):
        def forward(self, inputs):
            return torch.zeros(3, 2)

    if isinstance(inputs, dict):
        inputs = UserDict(inputs)
    assert run(Three(), [(torch.arange(3), inputs)]).ids() == [0, 1, 2]


# Positions


class Stream(IterableDataset):
    def __init__(self, samples=X):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def rows_of(targets):
    return [{"x": x, "y": y} for x, y in zip(X, targets, strict=True)]


IN_ORDER = {
    "plain": lambda: DataLoader(X, 4),
    "with targets": lambda: DataLoader(list(zip(X, Y, strict=True)), 4),
    "dicts": lambda: DataLoader([{"x": x} for x in X], 4),
    "named": lambda: [Named(X[:4], 1, 2), Named(X[4:], 1, 2)],
    "workers": lambda: DataLoader(X, 4, num_workers=2),
    "sampler": lambda: DataLoader(X, 4, sampler=SequentialSampler(X)),
    "range": lambda: DataLoader(X, 4, sampler=range(N)),
    "list": lambda: DataLoader(X, 4, sampler=list(range(N))),
    "batch sampler": lambda: DataLoader(X, batch_sampler=BatchSampler(range(N), 4, False)),
    "whole batches": lambda: DataLoader([X[:4], X[4:8], X[8:]], batch_size=None),
    "stream": lambda: DataLoader(Stream(), 4),
    "stream, one worker": lambda: DataLoader(Stream(), 4, num_workers=1),
    "stream of dicts with targets": lambda: DataLoader(Stream(rows_of(Y)), 4),
    "dicts of batches": lambda: [{"x": X[:4], "y": Y[:4]}, {"x": X[4:], "y": Y[4:]}],
    "batches": lambda: [X[:4], X[4:]],
    "a tuple of batches": lambda: ((X[:4], Y[:4]), (X[4:], Y[4:])),
}


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize("mc_passes", [0, 2])
def test_positions_in_a_loader_that_keeps_the_order(name, mc_passes):
    model = TakesDict() if "dicts" in name else Linear()
    if mc_passes:
        model.linear = nn.Sequential(nn.Dropout(0.5), model.linear)
    stats = run(model, IN_ORDER[name](), ids="position", mc_passes=mc_passes)
    assert len(stats.passes) == max(1, mc_passes)
    for index in range(len(stats.passes)):
        assert stats.ids(index) == list(range(N))
    if not mc_passes:
        assert torch.equal(stats.outputs(), want())


def test_positions_of_texts():
    class Texts(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(text)), 0.0] for text in texts])

    loader = DataLoader(["a" * i for i in range(N)], 4)
    assert run(Texts(), loader, ids="position").outputs()[:, 0].tolist() == list(range(N))


def test_positions_of_a_loader_that_drops_the_last_batch():
    loader = DataLoader(X, 4, drop_last=True)
    assert run(Linear(), loader, ids="position", partial=True).ids() == list(range(8))
    stats = PoolStats(N, 3, track=("margin",))
    with pytest.raises(ValueError, match="3 samples not seen"):
        observe_pool(Linear(), loader, stats, epoch=1, num_epochs=1, ids="position")


class Sorted(Sampler):
    """By length, say."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n))


class Reversed(SequentialSampler):
    def __iter__(self):
        return iter(range(len(self.data_source) - 1, -1, -1))


class Buckets(BatchSampler):
    def __iter__(self):
        return iter([[1, 0], [3, 2]])


SHUFFLED = {
    "shuffle": (lambda: DataLoader(X, 4, shuffle=True), "RandomSampler"),
    "random": (lambda: DataLoader(X, 4, sampler=RandomSampler(X)), "RandomSampler"),
    "subset": (lambda: DataLoader(X, 4, sampler=SubsetRandomSampler([3, 1])), "SubsetRandom"),
    "weighted": (
        lambda: DataLoader(X, 4, sampler=WeightedRandomSampler([1.0] * N, N)),
        "WeightedRandomSampler",
    ),
    "distributed": (
        lambda: DataLoader(X, 4, sampler=DistributedSampler(X, 2, 0, shuffle=False)),
        "DistributedSampler",
    ),
    "own sampler": (lambda: DataLoader(X, 4, sampler=Sorted(N)), "Sorted"),
    "own order": (lambda: DataLoader(X, 4, sampler=Reversed(X)), "Reversed"),
    "list": (lambda: DataLoader(X, 4, sampler=[2, 0, 1]), "list"),
    "batch sampler": (
        lambda: DataLoader(X, batch_sampler=BatchSampler(RandomSampler(X), 4, False)),
        "RandomSampler",
    ),
    "own batch sampler": (
        lambda: DataLoader(X, batch_sampler=Buckets(SequentialSampler(X), 2, False)),
        "Buckets",
    ),
    "list of batches": (lambda: DataLoader(X, batch_sampler=[[1, 0], [2]]), "list"),
    "whole batches": (lambda: DataLoader(X.split(4), batch_size=None, shuffle=True), "Random"),
    "workers of a stream": (lambda: DataLoader(Stream(), 4, num_workers=2), "2 workers"),
    "iterator": (lambda: iter(DataLoader(X, 4)), "got _SingleProcessDataLoaderIter"),
    "generator": (lambda: (x for x in X.split(4)), "got generator"),
}


@pytest.mark.parametrize("name", SHUFFLED)
def test_positions_are_refused_where_the_order_is_not_certain(name):
    pool, message = SHUFFLED[name]
    stats = Recorder(wanted=False)  # in the first epoch, not in the one that is observed
    with pytest.raises(ValueError, match=f'ids="position" needs .*{message}.*; let the data set'):
        observe_pool(Raises(), pool(), stats, epoch=1, num_epochs=2, ids="position")


@pytest.mark.skipif(
    not hasattr(DataLoader(X), "in_order"), reason="torch older than 2.6 always keeps the order"
)
def test_positions_are_refused_where_workers_may_overtake_each_other():
    with pytest.raises(ValueError, match="in_order=False"):
        run(Raises(), DataLoader(X, 4, num_workers=2, in_order=False), ids="position")


def test_a_collate_function_that_leaves_samples_out_does_not_shift_positions():
    def collate(samples):
        return torch.stack([x for x in samples if not torch.equal(x, X[5])])

    loader = DataLoader(X, 4, collate_fn=collate)
    stats = Recorder()
    with pytest.raises(ValueError, match=r'ids="position": batch 1 holds 3 samples.*put 4 into it'):
        run(Linear(), loader, stats, ids="position")
    with pytest.raises(ValueError, match=r"logits \(3, 3\) for 4 ids"):
        run(Linear(), loader, ids="position", forward=lambda model, inputs: model(inputs))


def test_positions_need_to_know_how_many_samples_a_batch_holds():
    with pytest.raises(TypeError, match='ids="position" cannot tell how many samples a Simple'):
        run(Raises(), [types.SimpleNamespace(x=X)], ids="position")
    for batch in ({"position": X}, namedtuple("Batch", "x position")(X, X)):
        with pytest.raises(ValueError, match='ids="position" is ambiguous'):
            run(Raises(), [batch], ids="position")


@pytest.mark.parametrize("ids", ["position", 0, "idx"])
def test_pool_images_have_ids_of_their_own(ids):
    pool = PoolImages(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), mean=0, std=1)
    with pytest.raises(ValueError, match="ids must be left out for PoolImages"):
        run(Raises(), pool, ids=ids)


def test_objects_may_hold_ids_beside_the_inputs():
    class Model(Linear):
        def forward(self, graphs):
            return self.linear(graphs.x)

    ids = torch.arange(N)
    assert run(Model(), [Graphs(X, ids)], ids="idx").ids() == ids.tolist()
    pool = [types.SimpleNamespace(x=X, idx=ids)]
    assert run(Model(), pool, ids="idx").ids() == ids.tolist()


def test_a_shuffled_loader_with_ids_is_right_with_any_form():
    data = Images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    stats = run(model, DataLoader([(x, i) for i, x in data], 5, shuffle=True), ids=1)
    with torch.no_grad():
        torch.testing.assert_close(stats.outputs(), model(data.images))
