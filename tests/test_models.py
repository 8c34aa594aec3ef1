"""The papers' models: sizes, shapes, seeds, initialisation; and the embedding of any model."""

import math

import pytest
import torch
from torch import nn

from dynal_fast.models import MODELS, build_model, embed, penultimate

# Published: LeNet as the CNN of McMahan et al. (2017), VGG-16 as the summary of the author's Keras
# model prints it, ResNet-18 as everybody counts it, DRN-D-22 as 16.4 million in its README.
PARAMETERS = [
    ("lenet", (1, 28, 28), 10, 1_663_370),
    ("vgg16", (3, 32, 32), 10, 14_991_946),
    ("vgg16", (3, 32, 32), 100, 14_991_946 + 90 * 513),
    ("resnet18", (3, 32, 32), 10, 11_173_962),
    ("resnet18", (3, 32, 32), 100, 11_173_962 + 90 * 513),
    ("resnet20", (3, 32, 32), 10, 272_474),
    ("drn-d-22", (3, 64, 64), 1000, 16_393_752),
    ("drn-d-22", (3, 64, 64), 19, 16_393_752 - 981 * 513),
]
SMALL = [
    ("lenet", (1, 8, 8)),
    ("lenet", (3, 33, 28)),
    ("cnn-bn", (1, 28, 28)),
    ("cnn-bn", (3, 1, 5)),
    ("vgg16", (3, 32, 32)),
    ("vgg16", (1, 33, 64)),
    ("resnet18", (3, 8, 8)),
    ("resnet18", (1, 9, 7)),
    ("resnet18-dropout", (3, 8, 8)),
    ("resnet20", (3, 5, 8)),
]


@pytest.mark.parametrize(("name", "shape", "classes", "count"), PARAMETERS)
def test_number_of_parameters(name, shape, classes, count):
    with torch.device("meta"):
        model = build_model(name, shape, classes)
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_depth_is_in_the_name():
    """Weight layers on the longest path, shortcuts aside."""
    for name, layers in (("resnet18", 18), ("resnet20", 20), ("drn-d-22", 22), ("vgg16", 15)):
        with torch.device("meta"):
            model = build_model(name, (3, 32, 32), 10)
        weighted = [
            part
            for part, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in part
        ]
        assert len(weighted) == layers, name  # VGG-16's CIFAR form has one hidden layer, not two


@pytest.mark.parametrize(("name", "shape"), SMALL)
def test_logits_have_one_column_a_class(name, shape):
    model = build_model(name, shape, 7)
    logits = model(torch.zeros(3, *shape))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_drn_gives_logits_for_every_pixel_from_an_eighth_of_the_size():
    model = build_model("drn-d-22", (3, 40, 56), 5).eval()
    with torch.no_grad():
        images = torch.randn(1, 3, 40, 56)
        assert model.features(images).shape == (1, 512, 5, 7)
        logits = model(images)
    assert logits.shape == (1, 5, 40, 56)


def test_drn_sees_far_beyond_its_strides():
    """Dilation widens the view: the receptive field of a pixel is the published network's."""
    model = build_model("drn-d-22", (3, 64, 64), 2).eval()
    dilations = {
        name: layer.dilation[0]
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    }
    by_level = {}
    for name, dilation in dilations.items():
        by_level.setdefault(int(name.split(".")[1]), set()).add(dilation)
    assert by_level == {1: {1}, 2: {1}, 3: {1}, 4: {1}, 5: {2}, 6: {4}, 7: {2}, 8: {1}}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_seed_decides_the_weights(name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([w.flatten() for w in build_model(name, (3, 32, 32), 10).parameters()])

    with torch.random.fork_rng():
        first = weights(0)
        assert torch.equal(first, weights(0))
        assert not torch.equal(first, weights(1))


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "drn-d-22"])
def test_convolutions_start_from_he_et_als_distribution(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(name, (3, 32, 32), 10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2))
            tolerance = 5 / math.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(expected, rel=tolerance)
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()


def test_vgg16_has_the_published_dropout_rates():
    model = build_model("vgg16", (3, 32, 32), 10)
    rates = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.3] + [0.4] * 7 + [0.5] * 2


def test_resnet18_has_dropout_where_it_is_asked_for_and_the_same_weights():
    plain, dropped = (
        build_model(name, (3, 8, 8), 10).eval() for name in ("resnet18", "resnet18-dropout")
    )
    rates = [layer.p for layer in dropped.modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.5]
    assert not any(isinstance(layer, nn.Dropout) for layer in plain.modules())
    dropped.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain(images), dropped(images))
    dropped.dropout.train()
    assert not torch.equal(dropped(images), dropped(images))


@pytest.mark.parametrize(("name", "shape"), [("mlp", (8,)), ("mlp", (1, 8, 8)), ("cnn", (3, 5, 2))])
def test_small_models_take_small_inputs(name, shape):
    assert build_model(name, shape, 7)(torch.zeros(3, *shape)).shape == (3, 7)


def test_unknown_names_and_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"model must be one of .*vgg16, got 'alexnet'"):
        build_model("alexnet", (3, 32, 32), 10)
    with pytest.raises(ValueError, match=r"vgg16 takes images .* at least 32, got \(3, 32, 31\)"):
        build_model("vgg16", (3, 32, 31), 10)
    with pytest.raises(ValueError, match=r"lenet takes images \(channels, height, width\)"):
        build_model("lenet", (64,), 10)


# Embeddings


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("lenet", 512),
        ("vgg16", 512),
        ("resnet18", 512),
        ("resnet18-dropout", 512),
        ("resnet20", 64),
    ],
)
def test_the_head_maps_the_embedding_to_the_logits(name, width):
    model = build_model(name, (3, 32, 32), 10).eval()
    images = torch.randn(2, 3, 32, 32)
    embedding = embed(model, images)
    assert embedding.shape == (2, width)
    with torch.no_grad():
        assert torch.equal(model.head(embedding), model(images))


class TwoHeads(nn.Module):
    """Registers the auxiliary head last and runs it only while training."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"main": nn.Sequential(nn.ReLU(), nn.Linear(4, 2))})
        self.trunk = nn.Linear(3, 4)
        self.auxiliary = nn.Linear(4, 2)

    def forward(self, inputs):
        features = self.trunk(inputs)
        logits = self.heads["main"](features)
        return logits + self.auxiliary(features.sin()) if self.training else logits


def test_the_head_is_the_layer_that_runs_last_wherever_it_is_registered():
    model, inputs = TwoHeads().eval(), torch.randn(5, 3)
    assert torch.equal(embed(model, inputs), model.trunk(inputs).relu())
    model.train()
    assert torch.equal(embed(model, inputs), model.trunk(inputs).sin())
    assert torch.equal(embed(model, inputs, head="heads.main.1"), model.trunk(inputs).relu())
    assert torch.equal(embed(model, inputs, head="heads.main"), model.trunk(inputs))


def test_a_head_called_with_its_input_by_name_is_seen():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, inputs):
            return self.head(input=inputs + 1)

    assert torch.equal(embed(Named(), torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_spatial_inputs_of_a_named_head_are_averaged():
    model = build_model("drn-d-22", (3, 16, 16), 4).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model.features(images).mean((2, 3))
    assert torch.equal(embed(model, images, head="classifier"), expected)


def test_one_pass_gives_logits_and_embedding_with_gradients_if_wanted():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with penultimate(model) as embedding:
        logits = model(torch.ones(5, 4))
        features = embedding()
    assert torch.equal(model[2](features), logits)
    assert features.requires_grad
    assert not embed(model, torch.ones(5, 4)).requires_grad


def test_hooks_are_gone_afterwards_also_after_an_error():
    model = TwoHeads()
    with pytest.raises(RuntimeError):
        embed(model, torch.ones(5, 99))
    embed(model, torch.ones(5, 3))
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_an_embedding_is_given_out_once():
    model = nn.Linear(2, 2)
    with penultimate(model) as embedding:
        with pytest.raises(ValueError, match=r"no nn.Linear of Linear ran since"):
            embedding()
        model(torch.ones(1, 2))
        embedding()
        with pytest.raises(ValueError, match="call the model first"):
            embedding()


def test_a_compiled_model_is_embedded_by_the_module_it_wraps():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    compiled = torch.compile(model, backend="eager")
    compiled(torch.ones(5, 4))
    assert torch.equal(embed(compiled, torch.ones(5, 4)), embed(model, torch.ones(5, 4)))


def test_a_model_without_a_linear_layer_is_refused():
    with pytest.raises(ValueError, match=r"DRND22 has no nn.Linear .*name the submodule"):
        embed(build_model("drn-d-22", (3, 16, 16), 4), torch.zeros(1, 3, 16, 16))


def test_an_unknown_head_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"submodule of TwoHeads, got 'fc'; .*heads, trunk"):
        embed(TwoHeads(), torch.ones(1, 3), head="fc")


def test_embeddings_that_are_not_one_vector_a_sample_are_refused():
    with pytest.raises(ValueError, match=r"given \(2, 6, 4\), which is not one vector"):
        embed(nn.Linear(4, 3), torch.ones(2, 6, 4))
