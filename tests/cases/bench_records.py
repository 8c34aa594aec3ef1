"""Records of ``dynal-fast bench`` as it writes them, with made-up figures."""

from dynal_fast.bench.cases import StatisticsCase, TraversalCase, as_record
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.record import Growth, Measurement, Split, new_record

TRAVERSAL = TraversalCase("clustered", 300, 24, 20, labeled=40)
STATISTICS = StatisticsCase(150, 7, 4)


def a_record():
    record = new_record("dynal-fast bench", 2, "cpu")
    case = as_record(TRAVERSAL)
    exact = {"agreement": 1.0, "radius_ratio": 1.0}
    record.add(
        Measurement(
            case,
            OURS,
            [0.1, 0.2, 0.3],
            2e6,
            "test",
            exactness={"certified": True, "near_ties": 0, "gaps": 0, "largest_gap": 0.0},
        )
    )
    record.add(Measurement(case, "BLAS loop", [2.0], 3e6, "test", exactness=exact))
    record.add(Measurement(case, "torch.cdist loop", unavailable="no"))
    record.growth.append(Growth("farthest-first", "n", "d 3", [1, 10], [0.5, 5.0], 1.0, 0.5))
    record.splits.append(Split("one cycle", OURS, {"train": 1.0, "pick": 0.25}, 1e6))
    return record


def a_record_of_statistics(of=STATISTICS):
    record = new_record("dynal-fast bench", 2, "cpu")
    case = as_record(of)
    passes = {OURS: [0.003, 0.002, 0.009], "copy": [0.0015], "torch, in place": [0.024, 0.024]}
    for method, seconds in passes.items():
        record.add(Measurement(case, method, [0.1], 2e6, pass_seconds=seconds))
    record.measurements[2].extrapolated = "extrapolated from up to 2 epochs"
    record.add(Measurement(case, "torch, full history", [0.4], 3e6))
    record.add(Measurement(case, "torch.compile, in place", unavailable="no", note="slow"))
    return record
