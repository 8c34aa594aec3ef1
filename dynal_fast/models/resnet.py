"""Residual networks: the basic block, and ResNet-18 and -20 for CIFAR's small images."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut that adds the input.

    If the shape changes, the shortcut is a 1x1 convolution with batch normalisation (He et al.
    2016, option B).

    Parameters
    ----------
    before, after
        Channels in and out.
    stride
        Of the first convolution.
    dilation
        Of both convolutions.
    """

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, dilation, dilation, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, after, height / stride, width / stride)``."""
        outputs = torch.relu(self.norm1(self.conv1(inputs)))
        return torch.relu(self.norm2(self.conv2(outputs)) + self.shortcut(inputs))


class ResNet(nn.Module):
    """A residual network of basic blocks (He et al. 2016) for images of about 32x32.

    The stem is one 3x3 convolution with stride 1 and there is no max-pooling, so that the first
    stage sees the whole image. Later stages halve it; global average pooling, whose output is the
    embedding; the logits. Convolutions start from He et al.'s (2015) normal distribution, as in the
    ResNet paper.

    Parameters
    ----------
    input_shape
        ``(channels, height, width)``.
    num_classes
        Number of logits.
    channels
        Of each stage.
    blocks
        In each stage.
    dropout
        Rate after the embedding, for MC dropout (Gal et al. 2017); 0 leaves the layer out.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int],
        blocks: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], channels[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    BasicBlock(before, after, 1 if before == after else 2),
                    *(BasicBlock(after, after) for _ in range(blocks - 1)),
                )
                for before, after in itertools.pairwise([channels[0], *channels])
            )
        )
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(channels[-1], num_classes)
        he_initialisation(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` for images ``(batch, *input_shape)``."""
        return self.head(self.dropout(self.stages(self.stem(images)).mean((2, 3))))


class ResNet18(ResNet):
    """ResNet-18 in the form in which the label dispersion and output discrepancy papers train it.

    Four stages of two blocks with 64, 128, 256 and 512 channels: 11,173,962 parameters for 3
    channels and 10 classes. Parameters as of `ResNet`.

    >>> ResNet18((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__(input_shape, num_classes, (64, 128, 256, 512), 2, dropout)


class ResNet20(ResNet):
    """ResNet-20, with which He et al. (2016, section 4.2) train on CIFAR-10.

    Three stages of three blocks with 16, 32 and 64 channels. The paper's shortcuts between stages
    have no weights (option A); here they are 1x1 convolutions (option B): 272,474 parameters for 3
    channels and 10 classes. One image takes 41 million multiplications, a fourteenth of
    ResNet-18's, so that a CPU trains it. Parameters as of `ResNet`.

    >>> ResNet20((3, 32, 32), 10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, (16, 32, 64), 3)


def he_initialisation(model: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_out) (He et al. 2015, backward form)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
