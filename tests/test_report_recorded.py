"""What a strategy ranks by, as the report reads it from the recordings."""

import numpy as np
import pytest

from dynal_fast.experiment.grid import run_grid
from dynal_fast.report.analyses import loss_by_rank
from dynal_fast.report.recorded import PORTIONS, read_recorded
from dynal_fast.report.runs import load_experiments, methods
from dynal_fast.report.write import write_report
from tests.cases.experiment import blobs, grid_config
from tests.report_pages import Page, sections_of

pytestmark = pytest.mark.usefixtures("one_thread")
STRATEGIES = ["tod_code", "oracle", "vaal", "cod+farthest_first"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    run_grid(grid_config(strategies=STRATEGIES, seeds=[0], analysis=True), folder, data=blobs())
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    listed = methods(load_experiments([folder]))
    return {method.strategy: method.runs[0] for method in listed}


def test_the_code_of_tod_ranks_the_lowest_discrepancy_first_in_the_first_cycle(folder, runs):
    cycles, ranking = runs["tod_code"].recordings(), read_recorded(runs["tod_code"]).ranking
    for cycle, arrays in cycles.items():
        cod = arrays["score.cod"]
        sign = -1 if cycle == 0 else 1
        picked = np.isin(arrays["ids"], arrays["picks"])
        assert (sign * cod[picked]).min() >= (sign * cod[~picked]).max()
        np.testing.assert_array_equal(
            ranking.losses[cycle], loss_by_rank(arrays["loss"], sign * cod)
        )
        assert ranking.means[cycle][0] == pytest.approx(cod.mean())
    assert ranking.negated
    first = cycles[0]
    assert ranking.lowest_pick == -first["score.cod"][np.isin(first["ids"], first["picks"])].max()
    assert (
        "tod_code (negated: the lowest are queried)"
        in sections_of(write_report([folder], folder / "report").read_text())["scores"]
    )


def test_the_oracle_is_a_line_at_zero_as_long_as_there_are_mistakes(folder, runs):
    recorded = read_recorded(runs["oracle"])
    wrong = 1 - recorded.pool_accuracy
    expected = np.maximum(0, 1 - wrong / PORTIONS)
    np.testing.assert_allclose(recorded.ranking.accuracies, expected, atol=0.02)
    assert recorded.ranking.accuracies[0] == recorded.picks_accuracy == 0
    page = Page(write_report([folder], folder / "report").read_text())
    cells = page.row("Accuracy (%) on the queried portion of the pool", "oracle")
    drawn = [cell for cell in cells if cell]
    assert len(drawn) > 5
    assert drawn[0] == "0.0"


def test_the_adversary_of_vaal_ranks_and_a_hybrid_does_not(runs):
    ranking = read_recorded(runs["vaal"]).ranking
    first = runs["vaal"].recordings()[0]
    picked = np.isin(first["ids"], first["picks"])
    assert first["score.vaal"][picked].min() >= first["score.vaal"][~picked].max()
    assert ranking.lowest_pick == first["score.vaal"][picked].min()
    assert not ranking.negated
    assert read_recorded(runs["cod+farthest_first"]).ranking is None
