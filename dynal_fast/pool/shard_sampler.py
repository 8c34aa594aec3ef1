"""`PoolShardSampler`: the samples of a rank, each once, without padding."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from dynal_fast.pool.pool_stats import PoolStats


class PoolShardSampler(Sampler[int]):
    """The samples that this rank owns in ``stats``, in order, without those that were dropped.

    For the ``DataLoader`` of the pool in data-parallel training, where torch's
    ``DistributedSampler`` would give some samples to two ranks, so that each rank has as many. Here
    no sample comes twice, and a rank may have fewer batches than others, or none.

    Parameters
    ----------
    stats
        Statistics with a ``group``; without one, all samples are this process's. A sample's index
        in the data set is its id.

    Raises
    ------
    TypeError
        ``stats`` is not a `PoolStats`.

    Examples
    --------
    >>> stats = PoolStats(4, 2, track=("margin",))
    >>> stats.drop([1])
    >>> sampler = PoolShardSampler(stats)
    >>> list(sampler), len(sampler)
    ([0, 2, 3], 3)
    """

    def __init__(self, stats: PoolStats) -> None:
        if not isinstance(stats, PoolStats):
            raise TypeError(f"stats must be a PoolStats, got {type(stats).__name__}")
        self.stats = stats

    def __iter__(self) -> Iterator[int]:
        return iter(self.stats.owned().tolist())

    def __len__(self) -> int:
        return len(self.stats.owned())
