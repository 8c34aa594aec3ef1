"""Exact, fast selection for deep active learning."""

from dynal_fast._version import __version__

__all__ = ["__version__"]
