"""A strategy of your own beside the built-in ones, in the package's experiment loop.

A strategy is a function that gets a context and returns ids; what it needs it declares. This one
takes the least certain samples, but no more than its share from any predicted class.

    pip install 'dynal_fast[experiment]'
    python examples/own_strategy.py
"""

import torch

from dynal_fast import register_strategy
from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training, load_data


@register_strategy(
    "balanced_margin",
    description="smallest margin, in equal shares of the predicted classes",
    tracks=("margin",),
)
def balanced_margin(context):
    """Return ``context.budget`` ids out of ``context.candidates``."""
    margins = context.stats.score("margin")[context.candidates]  # higher is less certain
    predicted = context.predicted_labels(context.candidates)
    order = margins.argsort(descending=True)
    rank_in_class = torch.empty_like(order)
    for label in predicted.unique():
        members = order[predicted[order] == label]
        rank_in_class[members] = torch.arange(len(members))
    # The first of every class, then the second of every class, ...; within a rank by margin.
    taken = order[rank_in_class[order].argsort(stable=True)][: context.budget]
    return context.candidates[taken]


def main(epochs: int = 30) -> dict[str, list[float]]:
    """Return the accuracies of the strategies after each training, by strategy."""
    data = load_data("digits")
    curves = {}
    for strategy in ("balanced_margin", "margin", "random"):
        run = ActiveLearningExperiment(
            data,
            "mlp",
            strategy,
            protocol=Protocol(initial=30, budget=30, cycles=3),
            training=Training(epochs=epochs, batch_size=16, optimizer="adam", learning_rate=1e-3),
        ).run()
        curves[strategy] = run.accuracies
        print(f"{strategy:16} accuracy", " ".join(f"{100 * a:5.1f}%" for a in run.accuracies))
    return curves


if __name__ == "__main__":
    main()
