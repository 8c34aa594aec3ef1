"""The one strategy of modAL that works on the representation of samples."""

import modAL.batch

from benchmarks.peers.swaps import use_tests
from dynal_fast.integrations.modal import farthest_first

modAL.batch.uncertainty_batch_sampling = farthest_first
float = float  # which the tests name, and NumPy has dropped
use_tests(below="tests")
