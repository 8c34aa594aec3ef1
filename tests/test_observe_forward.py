"""How `observe_pool` calls a model with a batch, and which outputs it understands."""

import types
from collections import OrderedDict, UserDict, namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
)

from dynal_fast.pool import forward
from tests.cases.observe import (
    ORDER,
    Encoding,
    Keywords,
    Linear,
    N,
    Output,
    OwnMapping,
    Raises,
    Recorder,
    TakesDict,
    X,
    Y,
    run,
    want,
)


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
