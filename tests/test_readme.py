"""The README's Python examples run as they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_there_are_examples():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_example_runs(block):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 8, generator=generator)
    loader = [(ids, inputs[ids]) for ids in torch.arange(300).split(64)]
    names = {
        "torch": torch,
        "pool": inputs,
        "pool_loader": loader,
        "num_epochs": 6,
        "model": torch.nn.Linear(8, 10),
        "train_one_epoch": lambda model: torch.nn.init.normal_(model.weight),
        "embeddings": inputs.numpy(),
        "labeled_ids": np.arange(10),
    }
    exec(block, names)
    if "picks" in names:
        assert names["picks"].shape == (100,)
    if "traversal" in names:
        assert len(set(names["traversal"].indices.tolist()) - set(range(10))) == 50
