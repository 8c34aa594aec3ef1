"""DRN-D-22, a dilated residual network for segmentation."""

from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.models.resnet import BasicBlock, he_initialisation


class DRND22(nn.Module):
    """DRN-D-22 (Yu, Koltun and Funkhouser 2017), which the output discrepancy paper uses (5.3).

    A residual network of 22 layers that halves the image only three times and enlarges the
    receptive field by dilation instead. It ends with plain convolutions of dilation 2 and 1, which
    remove the gridding artifacts of dilation. A 1x1 convolution gives the logits at an eighth of
    the size, which are scaled up bilinearly.

    ======== ======================== ======== ======== ========
    level    layers                   channels stride   dilation
    ======== ======================== ======== ======== ========
    0        7x7 convolution          16       1        1
    1        3x3 convolution          16       1        1
    2        3x3 convolution          32       2        1
    3        2 basic blocks           64       2        1
    4        2 basic blocks           128      2        1
    5        2 basic blocks           256      1        2
    6        2 basic blocks           512      1        4
    7        3x3 convolution          512      1        2
    8        3x3 convolution          512      1        1
    ======== ======================== ======== ======== ========

    Every convolution but the last is followed by batch normalisation and ReLU. 15,890,499
    parameters for 19 classes (16.4 million with ImageNet's 1,000, as published). The weights are
    He et al.'s (2015); the published results start from a network trained on ImageNet instead.
    There is no fully-connected layer, so `dynal_fast.models.embed` needs
    ``head="classifier"``.

    Parameters
    ----------
    input_shape
        ``(channels, height, width)``, sides of at least 8.
    num_classes
        Number of logits per pixel.
    dropout
        Drops whole channels before the classifier with this probability, for MC-dropout. The
        published network has no dropout, and where the authors of its MC-dropout baselines put it
        is not stated; other public code for segmentation has it there.

    >>> import torch
    >>> DRND22((3, 64, 96), 19)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 19, 64, 96])
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(input_shape[0], 16, kernel=7),
            _convolution(16, 16),
            _convolution(16, 32, stride=2),
            _level(32, 64, stride=2),
            _level(64, 128, stride=2),
            _level(128, 256, dilation=2),
            _level(256, 512, dilation=4),
            _convolution(512, 512, dilation=2),
            _convolution(512, 512),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(512, num_classes, 1)
        he_initialisation(self)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes, height, width)`` for ``(batch, *input_shape)``."""
        logits = self.classifier(self.dropout(self.features(images)))
        return functional.interpolate(
            logits, images.shape[2:], mode="bilinear", align_corners=False
        )


def _convolution(
    before: int, after: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Module:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def _level(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    return nn.Sequential(
        BasicBlock(before, after, stride, dilation), BasicBlock(after, after, dilation=dilation)
    )
