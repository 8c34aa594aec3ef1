"""Observing the pool while a model trains: statistics, schedules, streaming, the EMA teacher."""

from dynal_fast.pool.ema import EMATeacher
from dynal_fast.pool.observe import PoolImages, observe_pool

__all__ = ["EMATeacher", "PoolImages", "observe_pool"]
