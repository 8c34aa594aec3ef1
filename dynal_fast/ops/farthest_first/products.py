"""Points that are outer products of two vectors, held as the two: gradients of a last layer."""

import math
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, eq=False)
class OuterProducts:
    """Samples whose embeddings are the outer products of two vectors, which are never formed.

    Row i stands for ``left[i]`` ⊗ ``right[i]``, of C × d dimensions, and
    ``|q ⊗ h − q' ⊗ h'|² = |q|² |h|² + |q'|² |h'|² − 2 ⟨q, q'⟩ ⟨h, h'⟩``. The gradients of the last
    layer's weights are such points: (probabilities − one-hot label) ⊗ features.

    Parameters
    ----------
    left : (n, C) numbers
        The first factors, as :func:`~dynal_fast.farthest_first` takes embeddings.
    right : (n, d) numbers
        The second factors, on the same device. The dtypes may differ.

    Examples
    --------
    >>> import torch
    >>> from dynal_fast import farthest_first
    >>> points = OuterProducts(torch.tensor([[1.0], [2.0], [3.0]]), torch.eye(3))
    >>> farthest_first(points, 3).indices
    tensor([0, 2, 1])
    """

    left: Any
    right: Any

    def __len__(self) -> int:
        return len(self.left)

    @property
    def shape(self) -> tuple[int, int]:
        """Samples, and how many numbers are held of each: n, C + d."""
        return len(self.left), self.left.shape[1] + self.right.shape[1]

    def __getitem__(self, rows: Any) -> "OuterProducts":
        return replace(self, left=self.left[rows], right=self.right[rows])


def left_exponent(largest: float, columns: int) -> int:
    """The power of two by which the filter scales first factors of so many ``columns``.

    Scaled, they have norms up to 2^30, and so do the second factors, which get the rest of the
    common exponent.
    """
    root = ((columns - 1).bit_length() + 1) // 2
    return 30 - root - math.frexp(largest)[1] if largest > 0 else 0
