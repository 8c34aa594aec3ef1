"""A diverse batch from embeddings that you have: farthest-first traversal (core-set selection).

The embeddings here are the pixels of scikit-learn's digits; yours would be what the last layer of a
network is given. The command line does the same with files: ``dynal-fast select``.

    pip install 'dynal_fast[experiment]'
    python examples/own_embeddings.py
"""

import numpy as np
from sklearn.datasets import load_digits

from dynal_fast import Traversal, assign_to_picks, farthest_first


def main(k: int = 20) -> Traversal:
    """Return the traversal of the digits."""
    digits = load_digits()
    embeddings = np.ascontiguousarray(digits.data, dtype=np.float32)
    labeled = np.arange(10)  # positions in the pool that have labels already

    traversal = farthest_first(embeddings, k, labeled=labeled, progress=False)
    picks = traversal.indices.numpy()
    print(f"picks: {picks.tolist()}")
    print(f"their classes: {np.bincount(digits.target[picks], minlength=10).tolist()}")
    print(f"the first pick was {traversal.distances[0]:.1f} from everything labeled")
    print(f"now no sample is farther than {traversal.radius:.1f} from a labeled or picked one")

    covered = assign_to_picks(embeddings, picks, labeled=labeled, progress=False)
    represented = np.bincount(covered.pick[covered.pick >= 0], minlength=k)
    print(f"samples that lie nearest to each pick: {represented.tolist()}")
    return traversal


if __name__ == "__main__":
    main()
