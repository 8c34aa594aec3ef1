"""The built-in strategies, registered in the order in which they are listed to users."""

import torch
from torch import Tensor

from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.pool.scores import SCORES
from dynal_fast.pool.top import top_k
from dynal_fast.strategies import (
    badge,
    committee,
    coreset,
    fused,
    graph,
    hybrid,
    learned_loss,
    representations,
    sraal,
    vaal,
)
from dynal_fast.strategies.registry import register_hybrid, register_strategy
from dynal_fast.strategies.strategy import SELECTS_FROM, Select, SelectionContext


@register_strategy("random", description="uniform over the pool", selects_from=SELECTS_FROM)
def _random(context: SelectionContext) -> Tensor:
    order = torch.randperm(len(context.candidates), generator=context.generator)
    return context.candidates[order[: context.budget]]


def _highest_tracked(score: str) -> Select:
    def select(context: SelectionContext) -> Tensor:
        return context.stats.select(
            score, context.budget, candidates=context.candidates, generator=context.generator
        )

    return select


def _highest_over_mc_dropout(score: str) -> Select:
    def select(context: SelectionContext) -> Tensor:
        return context.mc_dropout((score,)).select(
            score, context.budget, candidates=context.candidates, generator=context.generator
        )

    return select


for _name, _score in SCORES.items():
    if _score.observed_over == "epochs":
        register_strategy(
            _name,
            _highest_tracked(_name),
            description=_score.description,
            tracks=(_name,),
            aliases=_score.strategy_aliases,
            ranks_by=_name,
        )
    else:
        register_strategy(
            _name,
            _highest_over_mc_dropout(_name),
            description=_score.description,
            needs=("mc_dropout",),
            aliases=_score.strategy_aliases,
            ranks_by=_name,
        )
register_strategy(
    "mc_dropout_vote_entropy",
    _highest_over_mc_dropout("vote_entropy"),
    description="vote entropy of MC-dropout passes",
    needs=("mc_dropout",),
    ranks_by="vote_entropy",
)
for _name in fused.UNCERTAINTIES:
    for _way, _fuse, _words in (
        ("times", fused.product, "times"),
        ("rank", fused.rank_sum, "and by rank"),
    ):
        register_strategy(
            f"{fused.STABILITY}_{_way}_{_name}",
            fused.fused(_name, _fuse),
            description=f"prediction stability {_words} {_name} (its paper's future work, 5)",
            tracks=(fused.STABILITY, _name),
        )


@register_strategy(
    "farthest_first",
    description="farthest from labeled and picked, in embedding space (long tail, Algorithm 2)",
    needs=("embeddings",),
    aliases=("ff_active", "k_center_greedy", "k_center"),
)
def _farthest_first(context: SelectionContext) -> Tensor:
    """FF-Active: in each round the pool sample farthest from all labeled and picked ones.

    Algorithm 2 of Geifman and El-Yaniv, "Deep Active Learning over the Long Tail", lines 7-9; the
    greedy k-center of Sener and Savarese's Algorithm 1, "Active Learning for Convolutional Neural
    Networks: A Core-Set Approach".
    """
    traversal = farthest_first(
        context.embeddings(context.candidates),
        context.budget,
        labeled=context.embeddings(context.labeled),
    )
    return context.candidates[torch.as_tensor(traversal.indices).cpu()]


register_strategy(
    "farthest_first_mc_dropout",
    representations.select_in_ensemble,
    description="farthest-first in an ensemble of MC-dropout representations (long tail, 6)",
    needs=("embeddings", "mc_dropout"),
    aliases=("ff_mc_dropout",),
    options={"passes": representations.PASSES},
)
register_strategy(
    "badge",
    badge.select_badge,
    description="D² sampling over the last layer's gradients under predicted labels (Ash et al.)",
    needs=("embeddings",),
)
register_strategy(
    "query_by_committee",
    committee.most_disagreed("vote_entropy"),
    description="vote entropy of separately trained models (Dagan and Engelson)",
    needs=("committee",),
    aliases=("qbc",),
    options={"members": committee.MEMBERS},
    ranks_by="vote_entropy",
)
register_strategy(
    "query_by_committee_kl",
    committee.most_disagreed("consensus_kl"),
    description="mean divergence of separately trained models from their consensus (McCallum)",
    needs=("committee",),
    options={"members": committee.MEMBERS},
    ranks_by="consensus_kl",
)
register_strategy(
    "vaal",
    vaal.vaal(),
    description="least like the labeled to a variational autoencoder's adversary (Sinha et al.)",
    options=vaal.OPTIONS,
)
register_strategy(
    "sraal",
    sraal.sraal(),
    description="VAAL with the model's uncertainty as the state of the unlabeled (Zhang et al.)",
)
register_strategy(
    "ta_vaal",
    vaal.ta_vaal(),
    description="VAAL that sees the predicted rank of the loss (Kim et al.)",
    needs=("loss_prediction",),
    aliases=("ta-vaal",),
    options=learned_loss.RANKING,
)
register_strategy(
    "ll4al",
    learned_loss.ll4al,
    description="highest loss predicted by a module trained beside the task (Yoo and Kweon)",
    needs=("loss_prediction",),
    aliases=("learned_loss",),
    options=learned_loss.OPTIONS,
)
register_strategy(
    "uncertain_gcn",
    graph.uncertain_gcn,
    description="confidence of a graph network that a sample is labeled (Caramalau et al.)",
    needs=("embeddings",),
    options=graph.OPTIONS,
)
register_strategy(
    "core_gcn",
    graph.core_gcn,
    description="farthest-first in the hidden layer of a graph network (Caramalau et al.)",
    needs=("embeddings",),
    options=graph.OPTIONS,
)
register_hybrid("farthest_first", hybrid.diversified)
register_strategy(
    "farthest_first_stratified",
    hybrid.select_stratified,
    description="farthest-first within each pseudo-label class (long tail, sections 3 and 6)",
    needs=("embeddings",),
    aliases=("ff_stratified",),
)
register_strategy(
    "farthest_first_compress",
    hybrid.select_compressed,
    description="what a compression keeps: farthest-first in each class (long tail, Algorithm 1)",
    needs=("embeddings",),
    aliases=("ff_comp",),
    selects_from=("labeled",),
)
register_strategy(
    "coreset",
    coreset.select_centres,
    description="robust k-center by mixed-integer search (Sener and Savarese, Algorithm 2)",
    needs=("embeddings",),
    aliases=("robust_k_center",),
    options=coreset.OPTIONS,
)


@register_strategy(
    "oracle",
    description="analysis only: the misclassified, by their labels (label dispersion, 3.2)",
    needs=("oracle",),
)
def _oracle(context: SelectionContext) -> Tensor:
    """Pick misclassified samples at random; when there are no more, others.

    The oracle of "When Deep Learners Change Their Mind", sections 3.2 and 4.1: it uses the ground
    truth and queries what the model gets wrong, so that its accuracy on the queries is 0 (Fig. 3).
    """
    order = torch.randperm(len(context.candidates), generator=context.generator)
    ids = context.candidates
    wrong = context.predicted_labels(ids) != context.true_labels(ids)
    context.scores["oracle"] = wrong.float()
    ids, wrong = ids[order], wrong[order]
    return torch.cat([ids[wrong], ids[~wrong]])[: context.budget]


@register_strategy(
    "tod_code",
    description="COD as its authors' code has it: the lowest in cycle 0, the highest later",
    tracks=("cod",),
    needs=("independent_model",),
    aliases=("tod-code",),
    ranks_by="cod",
)
def _tod_code(context: SelectionContext) -> Tensor:
    """Cyclic output discrepancy (eq. 5) as github.com/siyuhuang/TOD computes and sorts it.

    Of "Semi-Supervised Active Learning with Temporal Output Discrepancy": half the sum over classes
    of the squared difference of the softmax outputs, against the model at the end of the last cycle
    (section 4.2). In the first cycle that is an independent, untrained network and the samples with
    the lowest scores are taken, where the paper takes the highest.
    """
    scores = context.stats.score("cod", form="tod_code")
    sign = -1 if context.cycle == 0 else 1
    return top_k(sign * scores, context.budget, context.candidates, context.generator)
