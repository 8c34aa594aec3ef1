"""Check a traversal with float64 matrix products on the pool's device: a second at full size.

`dynal_fast.ops.farthest_first.verify_traversal` does the same on the CPU, in a minute.
"""

from typing import Any

import torch
from torch import Tensor

VALUES = 2**26  # rows times steps at once: 512 MB
CENTERS = 2**27  # rows times labeled samples at once: 1 GB


def shortfall(pool: Tensor, picks: Tensor, labeled: Tensor | None) -> dict[str, Any]:
    """How far each of the picks (k,) was nearer than the farthest sample of its step, relatively.

    ``error``: the largest shortfall in squared distance; 1.2e-7 is a tie after the one rounding to
    float32. ``wrong``: the picks that fell short by more than a millionth.
    """
    picks, k = picks.long(), len(picks)
    if len(picks.unique()) < k:
        return {"error": float("inf"), "wrong": k}
    origin = pool[:: max(1, len(pool) // 1024)].double().mean(0)
    taken = torch.full((len(pool),), k, device=pool.device)
    taken[picks] = torch.arange(k, device=pool.device)
    centers = pool[picks].double() - origin
    steps = torch.arange(k, device=pool.device)
    farthest = torch.zeros(k, dtype=torch.float64, device=pool.device)
    own = torch.zeros(k, dtype=torch.float64, device=pool.device)
    most = max(1, min(VALUES // k, CENTERS // max(1, 0 if labeled is None else len(labeled))))
    for rows in torch.arange(len(pool), device=pool.device).split(most):
        x = pool[rows].double() - origin
        first = torch.full((len(rows), 1), float("inf"), dtype=torch.float64, device=pool.device)
        if labeled is not None:
            first = squared_distances(x, labeled.double() - origin).amin(1, keepdim=True)
        # column t: the distance to the nearest labeled sample or pick before step t
        reach = torch.cat([first, squared_distances(x, centers[:-1])], 1).cummin(1).values
        chosen = taken[rows] < k
        at = taken[rows[chosen]]
        own[at] = reach[chosen, at]
        reach.masked_fill_(steps > taken[rows][:, None], 0.0)
        farthest = torch.maximum(farthest, reach.amax(0))
    gap = torch.where(farthest.isinf(), 0.0, (farthest - own) / farthest.clamp(min=1e-300))
    return {"error": float(gap.max()), "wrong": int((gap > 1e-6).sum())}


def squared_distances(x: Tensor, y: Tensor) -> Tensor:  # (rows, d), (centers, d)
    products = torch.addmm((y * y).sum(1), x, y.T, alpha=-2)
    return products.add_((x * x).sum(1)[:, None]).clamp_(min=0)
