"""Query by committee: each member's outputs are folded into the statistics in one pass."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dynal_fast.pool import PoolStats, observe_pool
from dynal_fast.strategies.strategy import Select, SelectionContext

MEMBERS = 5  # as in Beluch et al., "The Power of Ensembles for Active Learning", CVPR 2018
COMMITTEE_SCORES = ("vote_entropy", "consensus_kl")


def committee_stats(
    committee: Iterable[nn.Module],
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    num_samples: int,
    num_classes: int,
    *,
    track: tuple[str, ...] = COMMITTEE_SCORES,
    device: torch.device | str = "cpu",
) -> PoolStats:
    """Return statistics over the members' outputs: ``score("vote_entropy")`` and the like.

    Query by committee (Seung, Opper and Sompolinsky 1992), the members' disagreement measured by
    vote entropy (Dagan and Engelson, "Committee-Based Sampling for Training Probabilistic
    Classifiers", 1995) or by the mean divergence from their consensus, ``consensus_kl`` (McCallum
    and Nigam, "Employing EM and Pool-Based Active Learning for Text Classification", 1998). Both
    formulas are in section 3.2 of Settles, "Active Learning Literature Survey", 2009.
    The outputs of all members are never in memory together, and an iterable may load one member at
    a time.

    Parameters
    ----------
    committee
        Models of the same classes; each gives one vote for each sample.
    batches
        Called once for each member; yields ``(sample_ids, inputs)``. Samples that are left out
        score NaN.

    Raises
    ------
    ValueError
        The committee is empty.

    >>> always = [nn.Linear(1, 2) for _ in range(2)]
    >>> for label, member in enumerate(always):
    ...     _ = nn.init.zeros_(member.weight), nn.init.zeros_(member.bias)
    ...     member.bias.data[label] = 9.0
    >>> pool = lambda: [(torch.tensor([0]), torch.ones(1, 1))]
    >>> committee_stats(always, pool, 1, 2).score("vote_entropy")
    tensor([0.6931])
    """
    stats = PoolStats(num_samples, num_classes, track=track, device=device)
    members = 0
    for member in committee:
        observe_pool(member, batches(), stats, epoch=1, num_epochs=1, partial=True, progress=False)
        members += 1
    if members == 0:
        raise ValueError("committee must have at least one member, got none")
    return stats


def most_disagreed(score: str) -> Select:
    def select(context: SelectionContext) -> Tensor:
        """Pick what separately trained models disagree on most; see `committee_stats`.

        Networks of one architecture, trained on all labeled samples from different random weights:
        the ensembles of Beluch et al., "The Power of Ensembles for Active Learning in Image
        Classification", CVPR 2018.
        """
        members = int(context.strategy.options["members"])
        return context.committee(members, (score,)).select(
            score, context.budget, candidates=context.candidates, generator=context.generator
        )

    return select
