"""anomalib: PatchCore's core-set of patch features.

``KCenterGreedy`` stands in for ``anomalib.models.components.KCenterGreedy``. A model takes it where
the module that builds its core-set names it::

    from anomalib.models.image.patchcore import torch_model
    from dynal_fast.integrations.anomalib import KCenterGreedy

    torch_model.KCenterGreedy = KCenterGreedy
"""

from numbers import Real

import torch
from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy as Projected

from dynal_fast.ops.farthest_first import farthest_first

__all__ = ["KCenterGreedy"]


class KCenterGreedy(Projected):
    """k-center greedy core-set, exact on the features as they are.

    anomalib's own class draws a random first sample and then picks on a sparse random projection of
    the features to some 300 dimensions, in the dtype of the features. This one takes the same first
    sample, and each further pick is the farthest in the features themselves, as
    :func:`dynal_fast.farthest_first` defines it: the same on every device, and distinct. So it
    differs from anomalib's core-set by what the projection distorts; of features with more than two
    axes, which anomalib does not project, both give the same one, up to rounding.

    Parameters
    ----------
    embedding : (n, d) or (n, ...) float tensor
        Patch features.
    sampling_ratio : float
        The core-set has ``int(n * sampling_ratio)`` samples.

    Raises
    ------
    ValueError
        The core-set would be empty or larger than n; a feature is NaN or infinite.

    Notes
    -----
    The random first sample belongs to the core-set, as in anomalib 2.7; some earlier versions leave
    it out. With the same ``torch.manual_seed`` it is anomalib's: the projection is drawn, though it
    is not used, so that the generators are where anomalib leaves them.

    Examples
    --------
    >>> import torch
    >>> embedding = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    >>> sampler = KCenterGreedy(embedding, sampling_ratio=0.5)
    >>> len(sampler.select_coreset_idxs())
    2
    >>> sampler.sample_coreset().shape
    torch.Size([2, 1])
    """

    def __init__(self, embedding: torch.Tensor, sampling_ratio: float) -> None:
        if not (isinstance(sampling_ratio, Real) and sampling_ratio <= 1):  # NaN is not, either
            raise ValueError(f"sampling_ratio must be a number of at most 1, got {sampling_ratio}")
        super().__init__(embedding, sampling_ratio)

    def select_coreset_idxs(self) -> list[int]:
        """Return the indices of the core-set, in the order of the picks."""
        embedding: torch.Tensor = self.embedding
        if embedding.ndim == 2:
            self.model.fit(embedding)
        n = len(embedding)
        start = int(torch.randint(high=n, size=(1,), device=embedding.device))
        rows = embedding.reshape(n, -1)
        return farthest_first(rows, self.coreset_size, start=start).indices.tolist()
