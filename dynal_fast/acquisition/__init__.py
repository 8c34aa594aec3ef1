"""The earlier paths of ``dynal_fast.strategies`` and of the scores, deprecated."""

import importlib
import sys
import warnings

_NOW = {
    "combined": "dynal_fast.strategies.hybrid",
    "committee": "dynal_fast.strategies.committee",
    "context": "dynal_fast.strategies.strategy",
    "discrepancy": "dynal_fast.pool.discrepancy",
    "registry": "dynal_fast.strategies.registry",
    "robust_k_center": "dynal_fast.strategies.coreset",
    "scores": "dynal_fast.pool.scores",
    "top": "dynal_fast.pool.top",
    "vaal": "dynal_fast.strategies.vaal",
}

warnings.warn(
    "dynal_fast.acquisition is now dynal_fast.strategies; scores, top and discrepancy are in "
    "dynal_fast.pool",
    DeprecationWarning,
    stacklevel=2,
)
for _old, _new in _NOW.items():
    globals()[_old] = sys.modules[f"{__name__}.{_old}"] = importlib.import_module(_new)
