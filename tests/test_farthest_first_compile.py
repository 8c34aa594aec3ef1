"""The traversal as torch sees it: one operator under ``torch.compile``, on any default device."""

import pytest
import torch

from dynal_fast import farthest_first, farthest_first_compress, verify_traversal
from tests.cases.farthest_first import clustered

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LABELED = {
    "none": None,
    "rows": torch.from_numpy(clustered(9, 12, seed=1)),
    "indices": torch.tensor([3, 3, 40]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("labeled", LABELED)
def test_the_operator_is_registered_properly(labeled, device):
    pool = torch.from_numpy(clustered(60, 12)).to(device)
    labeled = LABELED[labeled]
    labeled = labeled.to(device) if labeled is not None else None
    operator = torch.ops.dynal_fast.farthest_first.default
    torch.library.opcheck(operator, (pool, 20, labeled, "euclidean", None))
    torch.library.opcheck(operator, (pool, 20, labeled, "cosine", 5))


@pytest.mark.parametrize(
    ("compiler", "device"),
    [("aot_eager", "cpu"), pytest.param("inductor", "cuda", marks=pytest.mark.gpu)],
)
def test_a_compiled_function_picks_the_same(compiler, device):
    def pick(pool, labeled, k):
        traversal = farthest_first(pool * 2, k, labeled * 2, metric="euclidean")
        return traversal.indices + 1, traversal.distances.sum(), traversal.radius

    pool = torch.from_numpy(clustered(60, 12)).to(device).requires_grad_()
    labeled = LABELED["rows"].to(device)
    compiled = torch.compile(pick, backend=compiler, fullgraph=True)
    for k in (20, 30):
        want, got = pick(pool, labeled, k), compiled(pool, labeled, k)
        assert torch.equal(got[0], want[0])
        torch.testing.assert_close(got[1], want[1])
        assert float(got[2]) == want[2]


def test_a_bad_row_is_named_inside_a_compiled_function():
    pool = torch.from_numpy(clustered(60, 12))
    pool[7, 3] = torch.nan
    compiled = torch.compile(farthest_first, backend="aot_eager", fullgraph=True)
    with pytest.raises(ValueError, match="pool row 7 holds a NaN"):
        compiled(pool, 5)


def test_the_default_device_of_the_caller_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(300, 8, generator=generator)
    labels = torch.arange(300) % 3
    want = farthest_first(pool, 20, pool[:5])
    with torch.device("meta"):
        got = farthest_first(pool, 20, pool[:5])
        operator = torch.ops.dynal_fast.farthest_first(pool, 20, pool[:5], "euclidean", None)
        kept = farthest_first_compress(pool, labels, 9, generator=generator)
        assert verify_traversal(pool, got, pool[:5], progress=False).valid
    assert got.indices.tolist() == want.indices.tolist() == operator[0].tolist()
    assert got.radius == want.radius == operator[2].item()
    assert kept.device.type == "cpu"
