"""Where the Triton kernels run in this process: a GPU, the interpreter, or nowhere."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
RUNS = INTERPRETED or DEVICE == "cuda"

needs_triton = pytest.mark.skipif(
    not RUNS, reason="no GPU; tests/test_interpreter.py runs this under TRITON_INTERPRET=1"
)
