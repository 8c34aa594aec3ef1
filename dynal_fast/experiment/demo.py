"""What ``make demo`` runs: an experiment that takes about a minute on an idle machine."""

from typing import Any

DEMO: dict[str, Any] = {
    "data": "digits",
    "model": "mlp",
    "strategies": [
        "random",
        "least_confidence",
        "margin",
        "label_dispersion",
        "prediction_stability",
        "cod",
        "farthest_first",
    ],
    "threads": 1,
    "seeds": [0, 1, 2],
    "protocol": {"initial": 30, "balanced": True, "budget": 30, "cycles": 6},
    "training": {"epochs": 50, "batch_size": 16, "optimizer": "adam", "learning_rate": 1e-3},
    "schedules": {"prediction_stability": {"last": 5, "interval": 5}},
}
