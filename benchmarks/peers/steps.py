"""The steps that are measured, each at its codebase's usual size: its defaults or its examples."""

from benchmarks.peers.libraries import baal, modal, scikit_activeml, small_text
from benchmarks.peers.research_code import (
    alipy,
    deep_active_learning,
    deep_al,
    deepcore,
    google,
    two_matrices,
)
from benchmarks.peers.step import Size, Step

STEPS = (
    Step(
        "scikit-activeml `CoreSet`", Size(50_000, 512, 1000, 1000), scikit_activeml, tried=(1000,)
    ),
    Step("small-text `GreedyCoreset`", Size(5452, 768, 100, 20), small_text, tried=(20,)),
    Step("modAL `uncertainty_batch_sampling`", Size(50_000, 784, 1000, 100), modal, tried=(5, 10)),
    Step("baal `BALD`", Size(20_000, 784, 200, 100), baal, tried=(100,)),
    Step(
        "google/active-learning",
        Size(15_000, 784, 300, 300),
        google,
        "active-learning",
        (
            "sampling_methods/kcenter_greedy.py",
            "kCenterGreedy",
            ("select_batch_", "update_distances"),
        ),
        "google/active-learning",
    ),
    Step(
        "ej0cl6/deep-active-learning",
        Size(10_000, 50, 2500, 1000),
        deep_active_learning,
        "deep-active-learning",
        ("query_strategies/kcenter_greedy.py", "KCenterGreedy", ("query",)),
        "ej0cl6/deep-active-learning, deepAL+",
        tried=(10, 30),
    ),
    Step(
        "JordanAsh/badge",
        Size(50_000, 512, 100, 100),
        two_matrices,
        "badge",
        ("query_strategies/core_set.py", "CoreSet", ("furthest_first",)),
        "JordanAsh/badge",
        tried=(10, 30),
    ),
    Step(
        "DISTIL",
        Size(50_000, 512, 1000, 1000),
        two_matrices,
        "distil",
        ("distil/active_learning_strategies/core_set.py", "CoreSet", ("furthest_first",)),
        "DISTIL",
        tried=(10, 30),
    ),
    Step(
        "DeepCore",
        Size(50_000, 512, 0, 5000),
        deepcore,
        "DeepCore",
        ("deepcore/methods/kcentergreedy.py", "", ("k_center_greedy",)),
        "DeepCore",
        tried=(10, 30),
    ),
    Step(
        "ALiPy",
        Size(1797, 64, 90, 10),
        alipy,
        "ALiPy",
        (
            "alipy/query_strategy/query_labels.py",
            "QueryInstanceCoresetGreedy",
            ("select", "update_distances"),
        ),
        "ALiPy",
    ),
    Step(
        "deep-al",
        Size(50_000, 512, 5000, 2500),
        deep_al,
        "TypiClust",
        ("deep-al/pycls/al/Sampling.py", "AdversarySampler", ("greedy_k_center", "compute_dists")),
        "deep-al (TypiClust, torchAL)",
        tried=(10, 30),
    ),
)
