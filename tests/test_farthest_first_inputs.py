"""farthest_first on inputs as people have them: the picks of the same numbers as a plain array."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynal_fast import assign_to_picks, farthest_first, farthest_first_compress, verify_traversal
from dynal_fast.ops.farthest_first import arrays
from tests.cases.farthest_first import clustered, expected, gaussian

pd = pytest.importorskip("pandas", reason="pandas is not installed")
pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parent.parent
BACKENDS = ["reference", "cpu", "reference-heads"]
INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
POOL, LABELED = clustered(60, 9), clustered(7, 9, seed=1)


def assert_same(got, want):
    indices, distances, radius = want
    np.testing.assert_array_equal(got.indices.numpy(), indices)
    np.testing.assert_array_equal(got.distances.numpy(), distances)
    assert got.radius == radius


def swapped(array):
    return array.astype(array.dtype.newbyteorder(">" if sys.byteorder == "little" else "<"))


def unaligned(array):
    """The rows as a field of packed records, an odd number of bytes apart."""
    kind = np.dtype([("id", "u1"), ("row", array.dtype, array.shape[1:])])
    records = np.zeros(len(array), kind)
    records["row"] = array
    return records["row"]


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "other byte order": swapped,
    "unaligned": unaligned,
    "read only": read_only,
    "np.matrix": lambda a: a.view(np.matrix),
    "list of lists": lambda a: a.tolist(),
    "list of arrays": list,
    "list of tensors": lambda a: list(torch.from_numpy(a)),
    "tuple of tuples": lambda a: tuple(map(tuple, a.tolist())),
    "DataFrame": pd.DataFrame,
    "filtered DataFrame": lambda a: (
        pd.DataFrame(np.repeat(a, 2, axis=0)).iloc[::2].set_index(np.arange(len(a))[::-1])
    ),
    "DataFrame of columns": lambda a: pd.DataFrame({str(i): c for i, c in enumerate(a.T)}),
    "nullable DataFrame": lambda a: pd.DataFrame(a.astype(np.float64)).astype("Float64"),
    "tensor, transposed": lambda a: torch.from_numpy(a.T.copy()).T,
    "tensor, strided": lambda a: torch.from_numpy(np.repeat(a, 3, axis=1))[:, 1::3],
    "parameter": lambda a: torch.nn.Parameter(torch.from_numpy(a)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_taken_as_they_are(layout, backend):
    change = LAYOUTS[layout]
    want = expected(POOL, 60, LABELED)
    assert_same(farthest_first(change(POOL), 60, LABELED, backend=backend), want)
    assert_same(farthest_first(POOL, 60, change(LABELED), backend=backend), want)
    got = farthest_first(change(POOL), 60, change(LABELED), backend=backend)
    assert_same(got, want)
    assert verify_traversal(change(POOL), got, change(LABELED), progress=False).valid


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [*INTEGERS, "?"])
def test_integers_are_exact(kind, backend, metric):
    rng, kind = np.random.default_rng(0), np.dtype(kind)
    most = 1 if kind.kind == "b" else min(np.iinfo(kind).max, 2**53 - 1)
    least = -most if kind.kind == "i" else 0
    pool, labeled = (
        rng.integers(least, most, size=(n, 7), endpoint=True).astype(kind) for n in (50, 9)
    )
    pool[0] = most
    pool[:, 0] |= kind.type(1)  # no row is zero
    labeled[:, 0] |= kind.type(1)
    want = expected(pool.astype(np.float64), 50, labeled.astype(np.float64), metric)
    for change in (np.asarray, np.asfortranarray, swapped):
        got = farthest_first(change(pool), 50, change(labeled), metric=metric, backend=backend)
        assert_same(got, want)
    tensors = [torch.from_numpy(rows) for rows in (pool, labeled)]
    assert_same(farthest_first(tensors[0], 50, tensors[1], metric=metric, backend=backend), want)


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_integers_that_float64_does_not_hold_are_refused(kind, as_tensor):
    pool = np.ones((5, 2), kind)
    pool[3, 1] = 2**53 + 1
    pool = torch.from_numpy(pool) if as_tensor else pool
    with pytest.raises(ValueError, match=r"pool must hold integers up to 2\^53.*9007199254740993"):
        farthest_first(pool, 2)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["euclidean", "cosine"]))
def test_any_two_types_and_layouts_compare_exactly(data, metric):
    kinds = st.sampled_from([*INTEGERS, "f2", "f4", "f8"])
    change = st.sampled_from([np.asarray, np.asfortranarray, swapped, unaligned, read_only])
    seed, d = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([1, 2, 3, 17, 40]))
    rng = np.random.default_rng(seed)
    rows = []
    for size in (30, 8):
        kind = np.dtype(data.draw(kinds))
        values = rng.integers(1, 100, size=(size, d)) + (rng.random() if kind.kind == "f" else 0)
        rows.append(data.draw(change)(values.astype(kind)))
    pool, labeled = rows
    want = expected(pool.astype(np.float64), 30, labeled.astype(np.float64), metric)
    assert_same(farthest_first(pool, 30, labeled, metric=metric, backend="cpu"), want)
    centers = np.concatenate([labeled.astype(np.float64), pool.astype(np.float64)[want[0][:5]]])
    got = assign_to_picks(pool, want[0][:5], labeled, metric=metric)
    again = assign_to_picks(pool, want[0][:5], labeled, metric=metric, backend="reference")
    assert len(centers) == 13
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.float32])
def test_labeled_of_another_float_type(narrow, backend):
    pool = torch.from_numpy(clustered(40, 9)).to(narrow)
    labeled = torch.from_numpy(clustered(7, 9, seed=1)).double() + 1e-9
    for x, y in ((pool, labeled), (labeled, pool)):
        want = expected(x.double().numpy(), len(x), y.double().numpy())
        assert_same(farthest_first(x, len(x), y, backend=backend), want)


IDS = [5, 0, 59, 5]
MASK = np.isin(np.arange(60), IDS)
WAYS = {
    "list": IDS,
    "tuple": tuple(IDS),
    "int8": np.array(IDS, np.int8),
    "uint64": np.array(IDS, np.uint64),
    "other byte order": swapped(np.array(IDS)),
    "column": np.array(IDS)[:, None],
    "tensor, column": torch.tensor(IDS)[:, None],
    "uint8 tensor": torch.tensor(IDS, dtype=torch.uint8),
    "list of lists": [[i] for i in IDS],
    "list of tensors": list(torch.tensor(IDS)),
    "read only": read_only(np.array(IDS)),
    "Series": pd.Series(IDS, index=[9, 9, 1, 0]),
    "nullable Series": pd.Series(IDS, dtype="Int64"),
    "Index": pd.Index(IDS),
    "one column": pd.DataFrame({"id": IDS}),
    "mask": MASK,
    "mask tensor": torch.from_numpy(MASK),
    "mask list": MASK.tolist(),
    "mask Series": pd.Series(MASK, index=np.arange(60)[::-1]),
    "nullable mask": pd.Series(MASK, dtype="boolean"),
    "mask column": MASK[:, None],
    "read-only mask": read_only(MASK),
}


@pytest.mark.parametrize("way", WAYS)
def test_labeled_ids_and_masks(way):
    want = expected(POOL, 57, excluded=np.unique(IDS))
    got = farthest_first(POOL, 57, WAYS[way])
    assert_same(got, want)
    assert verify_traversal(POOL, got, WAYS[way], progress=False).valid


def test_nothing_labeled():
    want = expected(POOL, 9)
    for nothing in ([], np.empty(0), torch.empty(0), np.zeros(60, bool), pd.Series([], dtype=int)):
        assert_same(farthest_first(POOL, 9, nothing), want)


def test_a_column_of_integers_is_rows_of_a_pool_with_one_column():
    pool = np.arange(9)[:, None]
    assert farthest_first(pool, 1, np.array([[8], [7]])).indices.tolist() == [0]
    assert farthest_first(pool, 1, [0, 1]).indices.tolist() == [8]
    assert farthest_first(range(0) or [[0.0], [3.0], [9.0]], 1, range(1)).indices.tolist() == [2]


class Foreign:
    def __init__(self, **members):
        vars(self).update(members)

    def __getattr__(self, name):
        raise AttributeError(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labeled": MASK[:59]}, r"labeled must have one entry for each of the 60 .* got 59"),
        ({"labeled": [True] * 61}, r"labeled must have one entry for each of the 60 .* got 61"),
        ({"labeled": [0.0, 1.0]}, r"labeled with one axis must hold integer pool indices"),
        ({"labeled": [60]}, r"labeled holds pool index 60, outside \[0, 60\)"),
        ({"labeled": np.array([2**64 - 1], np.uint64)}, r"pool index 18446744073709551615"),
        ({"labeled": 3}, r"labeled must be .* got int"),
        ({"labeled": np.int64(3)}, r"labeled must be .* got int64"),
        ({"labeled": torch.tensor(3)}, r"labeled must be .* pass a list of indices"),
        ({"labeled": {3, 4}}, r"labeled must be .* got set; pass sorted\(labeled\)"),
        ({"labeled": {3: 4}.keys()}, r"got dict_keys; pass list\(labeled\)"),
        ({"labeled": ["a"]}, r"labeled must hold numbers, got dtype <U1"),
        ({"labeled": [[1.0], [1.0, 2.0]]}, r"labeled must be a list of numbers or of rows alike"),
        ({"labeled": pd.Series([1, None], dtype="Int64")}, r"labeled must have no missing values"),
        ({"labeled": pd.Series([1, None])}, r"labeled with one axis must hold integer"),
        ({"labeled": pd.Series(["a"])}, r"labeled must hold numbers"),
        ({"pool": POOL[0]}, r"pool must have shape .*pool\[:, None\]"),
        ({"pool": pd.Series(POOL[0])}, r"pool must have shape .*pool\[:, None\]"),
        ({"pool": POOL.reshape(20, 3, 9)}, r"pool\.reshape\(len\(pool\), -1\) has two axes"),
        ({"pool": pd.Series(list(POOL))}, r"got dtype object; np\.stack\(pool\) makes a matrix"),
        (
            {"pool": pd.DataFrame({"x": [1.0], "name": ["a"]})},
            r"pool must hold numbers only, got column 'name' of .*select_dtypes",
        ),
        (
            {"pool": pd.DataFrame({"x": [1.0, None]}).astype("Float32")},
            r"pool column 'x' must have no missing values|pool row 1 holds a NaN",
        ),
        (
            {"pool": pd.DataFrame({"x": [2**53 + 1], "y": [0.5]})},
            r"pool column 'x' must hold integers up to 2\^53",
        ),
        ({"pool": POOL.astype(object)}, r"pool must hold numbers, got dtype object"),
        ({"pool": POOL.astype(np.longdouble)}, r"pool must be float16, .* got float128|longdouble"),
        ({"pool": torch.zeros(3, 3, dtype=torch.float8_e5m2)}, r"got torch.float8_e5m2; convert"),
        ({"pool": Foreign(__dlpack__=None)}, r"got Foreign; pass torch\.from_dlpack\(pool\)"),
        ({"pool": Foreign(__array__=None)}, r"got Foreign; pass np\.asarray\(pool\)"),
        ({"pool": Foreign(toarray=None)}, r"got Foreign; pass pool\.toarray\(\)"),
        ({"pool": "features.npy"}, r"pool must be .* got str$"),
    ],
)
def test_what_is_refused_says_what_mends_it(change, message):
    arguments = {"pool": POOL, "k": 1, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        farthest_first(**arguments)


def test_a_table_of_columns_is_copied_up_to_a_tile_and_then_refused(monkeypatch):
    frame = pd.DataFrame({str(i): column for i, column in enumerate(POOL.T)})
    frame["0"] = frame["0"].astype(np.float64)
    assert_same(farthest_first(frame, 9), expected(POOL.astype(np.float64), 9))
    monkeypatch.setattr(arrays, "TILE_BYTES", 1000)
    with pytest.raises(TypeError, match=r"pass pool\.to_numpy\('float64'\), a copy"):
        farthest_first(frame, 9)
    block = pd.DataFrame(POOL)
    assert np.shares_memory(arrays.as_array(block, "pool"), POOL) or not np.shares_memory(
        block.to_numpy(), POOL
    )
    assert_same(farthest_first(block, 9), expected(POOL, 9))


def test_nothing_is_copied_and_read_only_memory_brings_no_warning(tmp_path):
    np.save(tmp_path / "pool.npy", POOL)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = read_only(np.arange(60) % 3)
        assert_same(farthest_first(mapped, 9, read_only(LABELED)), expected(POOL, 9, LABELED))
        assert len(farthest_first_compress(mapped, labels, 9)) == 9
        assert len(assign_to_picks(mapped, read_only(np.arange(3))).pick) == 60
    for array in (mapped, mapped.T, mapped[::-1], swapped(POOL)):
        assert np.shares_memory(arrays.as_array(array, "pool"), array)


@pytest.mark.parametrize("change", [list, pd.Series, lambda a: a[:, None], swapped, torch.tensor])
def test_compress_takes_labels_and_embeddings_alike(change):
    labels = np.arange(60) % 4
    pick = [torch.Generator().manual_seed(1) for _ in range(2)]
    want = farthest_first_compress(POOL, labels, 12, generator=pick[0])
    got = farthest_first_compress(pd.DataFrame(POOL), change(labels), 12, generator=pick[1])
    assert torch.equal(got, want)


def test_pandas_is_not_imported():
    code = (
        "import sys, numpy as np; from dynal_fast import farthest_first; "
        "farthest_first([[1.0], [2.0]], 1, [0]); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_gaussian_rows_as_a_broadcast_view():
    rows = np.broadcast_to(gaussian(1, 5), (9, 5))
    assert farthest_first(rows, 3).indices.tolist() == [0, 1, 2]
    assert farthest_first(torch.ones(1, 5).expand(9, 5), 3).indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(1, 30, dtype=np.uint8)[0],
        np.zeros(30, dtype=np.int64),
        torch.ones(30, dtype=torch.uint8),
        [0, 1] * 15,
        np.eye(30, 1, dtype=np.int8),
    ],
)
def test_a_mask_of_zeros_and_ones_is_not_taken_for_ids(mask):
    pool = np.arange(60.0).reshape(30, 2)
    with pytest.raises(ValueError, match="labeled holds a 0 or 1 for each of the 30 pool samples"):
        farthest_first(pool, 3, labeled=mask)
    with pytest.raises(ValueError, match="picks holds a 0 or 1 for each"):
        assign_to_picks(pool, mask)
    assert farthest_first(pool, 1, labeled=[0, 1]).indices.tolist() == [29]
    assert farthest_first(pool[:2], 0, labeled=[0, 1]).radius == 0
