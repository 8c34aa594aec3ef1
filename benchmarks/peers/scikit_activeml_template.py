"""scikit-activeml's template for query strategies, its own tests of ``CoreSet`` and ``Badge``."""

import unittest

import numpy as np
import torch
from skactiveml.pool.tests import test_badge as theirs_of_badge
from skactiveml.pool.tests import test_core_set as theirs
from skactiveml.tests.template_query_strategy import TemplateSingleAnnotatorPoolQueryStrategy

from dynal_fast import PoolStats
from dynal_fast.integrations.skactiveml import Badge, FarthestFirst, TrackedScore

theirs.CoreSet = FarthestFirst  # which all tests of the class below make
theirs_of_badge.Badge = Badge


class TestFarthestFirst(theirs.TestCoreSet):
    """All that ``CoreSet`` is tested for, and the one parameter that the template cannot know."""

    def test_init_param_metric(self):
        self._test_param(
            "init",
            "metric",
            [("cosine", None), ("euclidean", None), ("manhattan", ValueError), (1, ValueError)],
            replace_query_params={"X": 1 + np.arange(20.0).reshape(10, 2)},
        )

    def test_init_param_metric_dict(self):
        self.skipTest("FarthestFirst has no metric_dict")


class TestBadge(theirs_of_badge.TestBadge):
    """All that ``Badge`` is tested for."""


class TestTrackedScore(TemplateSingleAnnotatorPoolQueryStrategy, unittest.TestCase):
    """The template alone, for a score of 10 samples."""

    def setUp(self):
        stats = PoolStats(10, 2, track=("margin",))
        with stats.observe(1, 1):
            stats.update(torch.arange(10), torch.arange(20.0).reshape(10, 2).sin())
        super().setUp(
            qs_class=TrackedScore,
            init_default_params={"stats": stats, "score": "margin"},
            query_default_params_clf={
                "X": np.linspace(0, 1, 20).reshape(10, 2),
                "y": np.hstack([[0, 1], np.full(8, np.nan)]),
            },
        )

    def test_init_param_stats(self):
        self._test_param("init", "stats", [(None, TypeError), ("stats", TypeError)])

    def test_init_param_score(self):
        self._test_param("init", "score", [("margin", None), ("cod", ValueError)])

    def test_query(self):
        stats = self.init_default_params["stats"]
        picks, utilities = TrackedScore(stats, "margin").query(
            **self.query_default_params_clf, batch_size=3, return_utilities=True
        )
        scores = stats.score("margin").numpy()
        np.testing.assert_array_equal(picks, 2 + (-scores[2:]).argsort()[:3])
        np.testing.assert_array_equal(utilities[0, 2:], scores[2:])


del TemplateSingleAnnotatorPoolQueryStrategy  # which pytest would collect, as a mixin alone
