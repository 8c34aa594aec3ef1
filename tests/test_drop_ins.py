"""The drop-ins for research code pick what the code before them picks, on the same interface."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "use-it-in-research-code.md"
TITLES, SECTIONS = [], {}
for part in re.split(r"^##+ ", PAGE.read_text(), flags=re.M)[1:]:
    title = part.splitlines()[0]
    SECTIONS[title] = re.findall(r"```python\n(.*?)```", part, re.S)
IMPORTS = re.findall(r"```python\n(.*?)```", PAGE.read_text().split("\n## ")[0], re.S)[0]
N, M, D, K = 90, 11, 6, 25


def functions(title):
    """Return the two functions of a section of the page, before and after."""
    found = []
    for block in SECTIONS[title]:
        names = {}
        exec(IMPORTS + block, names)
        name = re.search(r"^def (\w+)", block, re.M).group(1)
        found.append(names[name])
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def X():  # noqa: N802
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def labeled():
    return np.random.default_rng(1).permutation(N)[:M]


def mask_of(labeled):
    mask = np.zeros(N, dtype=bool)
    mask[labeled] = True
    return mask


def test_every_section_is_tested():
    code = Path(__file__).read_text()
    assert [title for title in SECTIONS if SECTIONS[title] and f'"{title}"' not in code] == []


class SamplingMethod:
    """google/active-learning's: ``SamplingMethod(X, y, seed)``, images flattened."""

    def __init__(self, X, y, seed, metric="euclidean"):
        self.X, self.y, self.seed, self.metric = X, y, seed, metric
        self.flat_X = X.reshape(len(X), -1)
        self.features = self.flat_X
        self.already_selected = []


def test_google_active_learning(X, labeled):
    before, after = functions("google/active-learning")
    model = SimpleNamespace(transform=lambda X: np.tanh(X) * 2)
    sampler = SamplingMethod(X, np.zeros(N), seed=0)
    wanted = before(sampler, model, labeled.tolist(), K)
    assert after(sampler, model, labeled.tolist(), N=K) == wanted
    images = SamplingMethod(X.reshape(N, 2, 3), np.zeros(N), seed=0)
    flat = before(images, SimpleNamespace(transform=lambda X: X.reshape(N, D)), labeled.tolist(), K)
    assert after(images, object(), labeled.tolist(), K) == flat
    assert after(sampler, model, [], 3)[0] == 0


class Data:
    """ej0cl6's ``Data``: a mask ``labeled_idxs`` over ``n_pool`` samples, and a handler."""

    def __init__(self, X, labeled):
        self.X_train, self.n_pool, self.labeled_idxs = torch.from_numpy(X), len(X), mask_of(labeled)

    def handler(self, X):
        """A data set of ``(inputs, label, position)``."""
        return [(x, 0, position) for position, x in enumerate(X)]

    def get_train_data(self):
        return self.labeled_idxs.copy(), self.handler(self.X_train)

    def get_unlabeled_data(self):
        unlabeled = np.arange(self.n_pool)[~self.labeled_idxs]
        return unlabeled, self.handler(self.X_train[unlabeled])


class Classifier(torch.nn.Module):
    """Returns logits and embeddings, as ej0cl6's nets do."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(D, 16), torch.nn.Linear(16, 10)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        embedding = torch.relu(self.hidden(x))
        return self.head(self.dropout(embedding)), embedding


class Strategy:
    """ej0cl6's ``Strategy(dataset, net)`` with the methods that query strategies call."""

    def __init__(self, dataset, n_drop=10):
        torch.manual_seed(0)
        clf = Classifier()
        self.dataset, self.n_drop = dataset, n_drop
        test_args = {"batch_size": 1000, "generator": torch.Generator()}
        self.net = SimpleNamespace(clf=clf, params={"test_args": test_args})

    def get_embeddings(self, data):
        with torch.no_grad():
            return self.net.clf.eval()(torch.stack([x for x, _, _ in data]))[1]

    def predict_prob_dropout_split(self, data, n_drop):
        loader = torch.utils.data.DataLoader(data, **self.net.params["test_args"])
        probs = torch.zeros(n_drop, len(data), 10)
        self.net.clf.train()
        with torch.no_grad():
            for passed in probs:
                for x, _, positions in loader:
                    passed[positions] = self.net.clf(x)[0].softmax(1)
        return probs


def test_deep_active_learning(X, labeled):
    before, after = functions("ej0cl6/deep-active-learning, deepAL+")
    strategy = Strategy(Data(X, labeled))
    picks = after(strategy, K)
    np.testing.assert_array_equal(picks, before(strategy, K))
    assert strategy.dataset.labeled_idxs.sum() == M  # the caller updates the mask


def test_bald_in_deep_active_learning(X, labeled):
    before, after = functions("BALD with dropout, in the same code")
    strategy = Strategy(Data(X, labeled), n_drop=7)
    torch.manual_seed(3)
    wanted = before(strategy, 20)
    torch.manual_seed(3)
    np.testing.assert_array_equal(after(strategy, 20), wanted)


@pytest.mark.parametrize("several", [0, 1, M])
def test_badge(X, labeled, several):
    """``query`` of BADGE's ``CoreSet`` hands rows of a NumPy matrix by the mask ``idxs_lb``."""
    before, after = functions("JordanAsh/badge")
    idxs_lb = mask_of(labeled[:several])
    rows = X[np.arange(N)[~idxs_lb], :], X[idxs_lb, :]
    assert after(None, *rows, K) == before(None, *rows, K)


def test_distil(X, labeled):
    before, after = functions("DISTIL")
    idxs_lb = mask_of(labeled)
    rows = torch.from_numpy(X[~idxs_lb]), torch.from_numpy(X[idxs_lb])
    assert after(None, *rows, K) == before(None, *rows, K)
    assert after(None, *map(torch.Tensor.double, rows), K) == before(None, *rows, K)
    assert len(set(after(None, rows[0], rows[1][:0], K))) == K


@pytest.mark.parametrize("several", [0, 1, M])
@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_deepcore(X, labeled, several, form):
    before, after = functions("DeepCore")
    options = {"metric": torch.cdist, "device": "cpu", "random_seed": 5, "print_freq": 20}
    index = np.arange(1000, 1000 + N)
    already = index[labeled[:several]]
    options |= {"index": index, "already_selected": already}
    wanted = before(torch.from_numpy(X), K, **options)
    np.testing.assert_array_equal(after(form(X), K, **options), wanted)
    assert len(after(form(X), 10 * N, **options)) == N


@pytest.mark.parametrize("collection", [list, np.asarray, tuple])
def test_alipy(X, labeled, collection):
    before, after = functions("ALiPy")
    train_idx = np.random.default_rng(3).permutation(1000)[:N]
    strategy = SimpleNamespace(X=X, features=X, train_idx=train_idx, metric="euclidean")
    label_index = collection(train_idx[labeled])
    unlabel_index = np.setdiff1d(train_idx, train_idx[labeled])
    picks = after(strategy, label_index, unlabel_index, batch_size=K)
    assert picks == before(strategy, label_index, unlabel_index, batch_size=K)
    assert set(picks) <= set(unlabel_index)


def test_deep_al(X, labeled):
    before, after = functions("deep-al (TypiClust, torchAL)")
    sampler = SimpleNamespace(
        cfg=SimpleNamespace(ACTIVE_LEARNING=SimpleNamespace(BUDGET_SIZE=K)),
        compute_dists=lambda A, B: ((A[:, None] - B) ** 2).sum(axis=2),
    )
    rows = X[labeled], X[~mask_of(labeled)]
    picks, rest = after(sampler, *rows)
    wanted, wanted_rest = before(sampler, *rows)
    assert picks == wanted
    np.testing.assert_array_equal(rest, np.sort(wanted_rest))
