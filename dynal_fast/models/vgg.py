"""VGG-16 in the form that fits CIFAR's small images."""

from itertools import pairwise

from torch import Tensor, nn

# Filters of the convolutions; each block ends with 2x2 max-pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """VGG-16 (Simonyan and Zisserman 2015) with batch normalisation, for images of about 32x32.

    13 convolutions of 3x3, each followed by ReLU and batch normalisation, in five blocks that halve
    the image; a hidden layer of 512 (the embedding); the logits. This is the form of Liu and Deng
    (2015) with one hidden layer instead of VGG's two, which the author of the long-tail paper uses
    for CIFAR (github.com/geifmany/cifar-vgg), dropout included: 0.3 in the first block and 0.4 in
    the others after every convolution but the block's last, 0.5 around the hidden layer.
    14,991,946 parameters for 3x32x32 images and 10 classes.

    Convolutions start from He et al.'s (2015) normal distribution, linear layers from N(0, 0.01^2);
    the papers do not state it.

    Parameters
    ----------
    input_shape
        ``(channels, height, width)``, sides of at least 32.
    num_classes
        Number of logits.
    dropout
        False leaves every dropout layer out.

    >>> import torch
    >>> VGG16((3, 32, 32), 10).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_classes: int, dropout: bool = True
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for block, filters in enumerate(BLOCKS):
            for i, (before, after) in enumerate(pairwise((channels, *filters))):
                layers += [
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.BatchNorm2d(after),
                ]
                if dropout and i < len(filters) - 1:
                    layers.append(nn.Dropout(0.3 if block == 0 else 0.4))
            layers.append(nn.MaxPool2d(2))
            channels = filters[-1]
        layers += [
            *([nn.Dropout(0.5)] if dropout else []),
            nn.Flatten(),
            nn.Linear(channels * (height // 32) * (width // 32), 512),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(512),
            *([nn.Dropout(0.5)] if dropout else []),
        ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(512, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` for images ``(batch, *input_shape)``."""
        return self.head(self.features(images))
