"""Texts with Hugging Face's Trainer, from the first line to the picks; the three lines are marked.

With the folder ``package-synopses`` in ``DYNAL_FAST_DATA``, the task is the section of a software
package by its one-line description; without it, the module of a docstring of Python's own library.
A small BERT learns from nothing, its tokens are hashed words: no model and no tokenizer is fetched.
With ``AutoTokenizer`` and ``from_pretrained`` the same three lines stay as they are.

    pip install 'dynal_fast[experiment,transformers]'
    python examples/hugging_face_trainer.py
"""

import importlib
import inspect
import lzma
import os
import re
import tempfile
import zlib
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from dynal_fast import PoolStats
from dynal_fast.integrations.transformers import PoolStatsCallback

MODULES = (
    "argparse", "asyncio", "calendar", "collections", "datetime", "decimal", "email.message",
    "fractions", "http.client", "json", "logging", "pathlib", "shutil", "socket", "sqlite3",
    "statistics", "string", "tarfile", "threading", "unittest", "zipfile",
)  # fmt: skip
VOCABULARY, LONGEST, BUDGET = 5000, 24, 100


def texts_and_labels() -> tuple[list[str], list[str]]:
    """Return the texts of the task, each once, and the label of each."""
    synopses = Path(os.environ.get("DYNAL_FAST_DATA", "../shared/data")) / "package-synopses"
    if synopses.is_dir():
        with lzma.open(synopses / "synopses.tsv.xz", "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
        found = {text: label for label, _, text in rows}
    else:
        found = {}
        for name in MODULES:
            for _, member in inspect.getmembers(importlib.import_module(name)):
                for _, part in [("", member), *inspect.getmembers(member, inspect.isroutine)]:
                    text = getattr(part, "__doc__", None)
                    if getattr(part, "__module__", None) == name and isinstance(text, str):
                        found.setdefault(text, name)
    return list(found), list(found.values())


def tokens_of(text: str) -> list[int]:
    """Return a number for each word: 0 is left for padding."""
    words = re.findall(r"\w+", text.lower())[:LONGEST] or [""]
    return [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in words]


def pad(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Return a batch of samples, padded to the longest."""
    rows = [torch.tensor(sample["input_ids"]) for sample in samples]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.tensor([sample["label"] for sample in samples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def main(cycles: int = 3, epochs: int = 6, most: int = 4000) -> list[float]:
    """Return the accuracy on held-out texts after each cycle."""
    torch.manual_seed(0)
    texts, names = texts_and_labels()
    classes = sorted(set(names))
    chosen = torch.randperm(len(texts))[:most].tolist()
    samples = [{"input_ids": tokens_of(texts[i]), "label": classes.index(names[i])} for i in chosen]
    test, pool = samples[: len(samples) // 5], samples[len(samples) // 5 :]
    print(f"{len(pool)} texts to choose from, {len(test)} to test on, {len(classes)} classes")
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LONGEST,
        num_labels=len(classes),
    )
    labeled = torch.randperm(len(pool))[:BUDGET].tolist()
    accuracies = []
    for cycle in range(cycles):
        stats = PoolStats(len(pool), len(classes), track=("label_dispersion",))  # 1
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                BertForSequenceClassification(config),
                TrainingArguments(
                    folder,
                    num_train_epochs=epochs,
                    learning_rate=2e-3,
                    per_device_train_batch_size=16,
                    per_device_eval_batch_size=256,
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                ),
                data_collator=pad,
                train_dataset=[pool[i] for i in labeled],
                callbacks=[PoolStatsCallback(stats, pool)],  # 2
            )
            trainer.train()
            predicted = trainer.predict(test).predictions.argmax(1)
        correct = sum(int(p == sample["label"]) for p, sample in zip(predicted, test, strict=True))
        accuracies.append(correct / len(test))
        print(f"cycle {cycle}: {len(labeled)} labels, accuracy {100 * accuracies[-1]:.1f}%")
        stats.drop(labeled)
        picks = stats.select("label_dispersion", BUDGET).tolist()  # 3
        labeled += picks
    for pick in picks[:3]:
        print("to label next:", texts[chosen[len(test) + pick]].strip().splitlines()[0])
    return accuracies


if __name__ == "__main__":
    main()
