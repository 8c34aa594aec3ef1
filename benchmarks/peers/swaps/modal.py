"""The one strategy of modAL that works on the representation of samples."""

import modAL.batch
import numpy

from benchmarks.peers.swaps import use_tests
from dynal_fast.integrations.modal import farthest_first

modAL.batch.uncertainty_batch_sampling = farthest_first
vars(numpy)["float"] = float  # modAL's other modules name it, and NumPy has dropped it
use_tests(below="tests")
