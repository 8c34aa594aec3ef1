"""``CoreSet.furthest_first``, imported without DISTIL's other strategies and what they need."""

import importlib
import sys
import types

from benchmarks.peers.swaps import SOURCES, use_tests
from dynal_fast import farthest_first

PACKAGES = ("distil", "distil.active_learning_strategies", "distil.utils", "distil.utils.models")
for package in PACKAGES:
    module = types.ModuleType(package)
    module.__path__ = [str(SOURCES / package.replace(".", "/"))]
    sys.modules[package] = module


def furthest_first(self, unlabeled_embeddings, labeled_embeddings, n):
    return farthest_first(unlabeled_embeddings, n, labeled=labeled_embeddings).indices.tolist()


core_set = importlib.import_module("distil.active_learning_strategies.core_set")
core_set.CoreSet.furthest_first = furthest_first
use_tests()
