"""UncertainGCN and CoreGCN: a graph of labeled and unlabeled samples, and a network on it.

R. Caramalau, B. Bhattarai, T.-K. Kim. "Sequential Graph Convolutional Network for Active Learning",
CVPR 2021; baselines of the output discrepancy paper (Table 1). The nodes are embeddings of length
1, the weight of an edge is the cosine similarity. A graph convolutional network of two layers
learns which nodes are labeled. UncertainGCN picks by its confidence that a node is; CoreGCN picks
the nodes farthest from the labeled ones in the network's hidden layer.

With S = X Xᵀ and d the row sums of S - I, the adjacency is A = D⁻¹ (S - I) + I. It is never made:
A H = (X (Xᵀ H) - H) / d + H, so that memory is that of the embeddings and 50,000 nodes fit. (The
authors' code takes 10,000 of the pool, which ``protocol.subset`` does here.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dynal_fast.ops.farthest_first import farthest_first
from dynal_fast.pool.top import top_k
from dynal_fast.strategies.strategy import Select, SelectionContext

HIDDEN = 128
DROPOUT = 0.3
MARGIN = 0.1
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 5e-4
OPTIONS = {
    "epochs": 200,  # steps on the whole graph
    "unlabeled_weight": 1.2,  # the paper's lambda
    "code": 0,  # 1: as the authors' code differs from the paper
}


class Graph:
    """The adjacency of embeddings, as a product with node features.

    Parameters
    ----------
    embeddings
        Float ``(nodes, d)``, of any length. A node without any similarity has itself alone.
    columns
        Scale the columns of S - I by its sums, as the authors' code does, and not its rows.

    >>> graph = Graph(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
    >>> (graph @ torch.eye(3)).round(decimals=3)
    tensor([[1.0000, 1.0000, 0.0000],
            [0.4290, 1.0000, 0.5710],
            [0.0000, 1.0000, 1.0000]])
    """

    def __init__(self, embeddings: Tensor, columns: bool = False) -> None:
        self.nodes = functional.normalize(embeddings.float())
        self.own = self.nodes.square().sum(1, keepdim=True)  # 1, or 0 for a row of zeros
        sums = self.nodes @ self.nodes.sum(0)[:, None] - self.own
        isolated = sums.abs() < 1e-6
        self.inverse = torch.where(isolated, 0.0, 1 / torch.where(isolated, 1.0, sums))
        self.columns = columns

    def __matmul__(self, features: Tensor) -> Tensor:
        """Return A times node features ``(nodes, width)``."""
        scaled = features * self.inverse if self.columns else features
        spread = self.nodes @ (self.nodes.T @ scaled) - self.own * scaled
        return (spread if self.columns else spread * self.inverse) + features


class GraphNetwork(nn.Module):
    """Two graph convolutions: A X W1 + b1, ReLU, dropout, A H W2 + b2.

    >>> network = GraphNetwork(5)
    >>> hidden, odds = network(Graph(torch.randn(4, 5)))
    >>> hidden.shape, odds.shape
    (torch.Size([4, 128]), torch.Size([4]))
    """

    def __init__(self, width: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, 1)
        for layer in (self.first, self.second):
            bound = layer.out_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return the hidden layer ``(nodes, hidden)``, and the log-odds ``(nodes,)`` of labeled."""
        spread = graph @ functional.linear(graph.nodes, self.first.weight)
        hidden = functional.relu(spread + self.first.bias)
        dropped = functional.dropout(hidden, DROPOUT, self.training)
        odds = graph @ functional.linear(dropped, self.second.weight) + self.second.bias
        return hidden, odds[:, 0]


def graph_loss(labeled: Tensor, unlabeled: Tensor, unlabeled_weight: float) -> Tensor:
    """Return ``-mean log s(labeled) - lambda * mean log(1 - s(unlabeled))`` of log-odds.

    >>> labeled, unlabeled = torch.tensor([0.9]).logit(), torch.tensor([0.2, 0.05, 0.6]).logit()
    >>> round(graph_loss(labeled, unlabeled, 1.2).item(), 6)
    0.581652
    """
    known, unknown = functional.softplus(-labeled).mean(), functional.softplus(unlabeled).mean()
    return known + unlabeled_weight * unknown


def uncertain_scores(confidence: Tensor, code: bool = False) -> Tensor:
    """Return what UncertainGCN ranks by, the highest first: ``|s - 0.1|``.

    The authors' code takes the lowest instead, the nodes whose confidence is nearest to 0.1.

    Parameters
    ----------
    confidence
        ``(unlabeled,)``: the network's sigmoid output s.
    code
        As in the code: the negative.

    >>> s = torch.tensor([0.2, 0.05, 0.6])
    >>> uncertain_scores(s).argmax().item(), uncertain_scores(s, code=True).argmax().item()
    (2, 1)
    """
    distance = (confidence - MARGIN).abs()
    return -distance if code else distance


@dataclass(frozen=True)
class Trained:
    """A network's view of the graph in evaluation mode, labeled nodes first."""

    hidden: Tensor  # (nodes, hidden)
    odds: Tensor  # (nodes,)


def train_graph(
    labeled: Tensor, unlabeled: Tensor, *, epochs: int, unlabeled_weight: float, columns: bool
) -> Trained:
    """Train a network from scratch with Adam; random numbers come from torch's global generator.

    Parameters
    ----------
    labeled, unlabeled
        Embeddings ``(labeled, d)`` and ``(unlabeled, d)``, neither empty.
    epochs, unlabeled_weight, columns
        Steps, the weight of `graph_loss`, and as in `Graph`.
    """
    graph = Graph(torch.cat([labeled, unlabeled]), columns)
    network = GraphNetwork(graph.nodes.shape[1]).to(graph.nodes.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        _, odds = network(graph)
        loss = graph_loss(odds[: len(labeled)], odds[len(labeled) :], unlabeled_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return Trained(*network.eval()(graph))


def _select(name: str, pick: Callable[[SelectionContext, Trained], Tensor]) -> Select:
    """Return a strategy that trains the network and calls ``pick``, which returns rows."""

    def select(context: SelectionContext) -> Tensor:
        options = context.strategy.options
        for option, least in {"epochs": 1, "unlabeled_weight": 0}.items():
            if options[option] < least:
                raise ValueError(f"{name}.{option} must be at least {least}, got {options[option]}")
        seed = int(torch.randint(2**62, (), generator=context.generator))
        labeled = context.embeddings(context.labeled)
        unlabeled = context.embeddings(context.candidates)
        with torch.random.fork_rng([labeled.device] if labeled.is_cuda else []):
            torch.manual_seed(seed)
            trained = train_graph(
                labeled,
                unlabeled,
                epochs=int(options["epochs"]),
                unlabeled_weight=options["unlabeled_weight"],
                columns=bool(options["code"]),
            )
        return context.candidates[pick(context, trained)]

    return select


def _uncertain(context: SelectionContext, trained: Trained) -> Tensor:
    confidence = trained.odds[len(context.labeled) :].sigmoid().cpu()
    code = bool(context.strategy.options["code"])
    scores = context.scores["uncertain_gcn"] = uncertain_scores(confidence, code)
    return top_k(scores, context.budget, generator=context.generator)


def _core(context: SelectionContext, trained: Trained) -> Tensor:
    """Farthest-first in the hidden layer; in the authors' code with the log-odds beside it."""
    nodes = trained.hidden
    if context.strategy.options["code"]:
        nodes = torch.cat([nodes, trained.odds[:, None]], 1)
    known = len(context.labeled)
    traversal = farthest_first(nodes[known:], context.budget, labeled=nodes[:known])
    return torch.as_tensor(traversal.indices).cpu()


uncertain_gcn = _select("uncertain_gcn", _uncertain)
core_gcn = _select("core_gcn", _core)
