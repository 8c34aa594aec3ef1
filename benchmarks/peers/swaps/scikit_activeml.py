"""The library as it is installed, and beside it the tests of its sources."""

import skactiveml
import skactiveml.pool

from benchmarks.peers.swaps import SOURCES

skactiveml.__path__.append(str(SOURCES / "skactiveml"))
skactiveml.pool.__path__.append(str(SOURCES / "skactiveml" / "pool"))
