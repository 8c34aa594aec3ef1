"""Observing the pool while a model trains: statistics, schedules, streaming, the EMA teacher."""

from dynal_fast.normalize import Normalize
from dynal_fast.pool.accelerator import Accelerator
from dynal_fast.pool.ema import EMATeacher
from dynal_fast.pool.errors import PoolObservationError
from dynal_fast.pool.images import PoolImages
from dynal_fast.pool.observe import observe_pool
from dynal_fast.pool.pool_stats import PoolStats
from dynal_fast.pool.schedule import Epochs, EveryEpoch, FromEpoch, LastEpochs, Schedule
from dynal_fast.pool.shard_sampler import PoolShardSampler
from dynal_fast.pool.store import embedding_store

__all__ = [
    "Accelerator",
    "EMATeacher",
    "Epochs",
    "EveryEpoch",
    "FromEpoch",
    "LastEpochs",
    "Normalize",
    "PoolImages",
    "PoolObservationError",
    "PoolShardSampler",
    "PoolStats",
    "Schedule",
    "embedding_store",
    "observe_pool",
]
