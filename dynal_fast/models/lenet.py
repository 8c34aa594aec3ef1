"""The LeNet of the long-tail paper."""

from torch import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions, one fully-connected hidden layer, and the layer that gives the logits.

    That is what the long-tail paper (4.1) says; the sizes are the common ones: 32 and 64 filters of
    5x5 that keep the image's size, each followed by ReLU and 2x2 max-pooling, then the hidden ReLU
    layer, whose output is the embedding. 1,663,370 parameters for 28x28 images and 10 classes.
    Initial weights are PyTorch's defaults, as the paper does not state others.

    Parameters
    ----------
    input_shape
        ``(channels, height, width)``, sides of at least 4.
    num_classes
        Number of logits.
    hidden
        Width of the hidden layer.
    dropout
        Rate after the hidden layer, for MC dropout; the paper mentions none.

    >>> import torch
    >>> LeNet((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` for images ``(batch, *input_shape)``."""
        return self.head(self.features(images))
