"""Rows that went to every rank and were not picked: they need not be sent again."""

import torch
from torch import Tensor

BYTES = 2**26  # of rows that are kept


class Kept:
    """The rows that were sent last, by global number; the same on every rank."""

    def __init__(self, row_bytes: int, least: int) -> None:
        """Keep up to ``BYTES``, but at least ``least`` rows."""
        self.most = max(least, BYTES // max(1, row_bytes))
        self._rows: dict[int, Tensor] = {}

    def holds(self, numbers: Tensor) -> Tensor:
        """Which of these rows (m,) are kept."""
        return torch.tensor([number in self._rows for number in numbers.tolist()], dtype=torch.bool)

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows that are kept, as bytes (m, row bytes); there must be one."""
        return torch.stack([self._rows[number] for number in numbers.tolist()])

    def keep(self, numbers: Tensor, sent: Tensor, chosen: Tensor) -> None:
        """Take in rows that were ``sent`` just now, but for the ``chosen`` ones, now picks."""
        left = torch.ones(len(numbers), dtype=torch.bool)
        left[chosen] = False
        for number in numbers.tolist():
            self._rows.pop(number, None)
        for number, row in zip(numbers[left].tolist(), sent[left], strict=True):
            self._rows[number] = row.clone()
        for number in list(self._rows)[: max(0, len(self._rows) - self.most)]:
            del self._rows[number]
