"""Exact, fast selection for deep active learning."""

from dynal_fast._version import __version__
from dynal_fast.pool import EMATeacher, PoolImages, observe_pool

__all__ = ["EMATeacher", "PoolImages", "__version__", "observe_pool"]
