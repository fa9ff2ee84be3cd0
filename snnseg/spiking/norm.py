"""Normalisation of the input currents x_TBCHW, with what each way knows about time.

    BNTT   statistics and gamma a time step, no beta (Kim and Panda 2021; the paper's choice)
    tdBN   statistics over time and batch together, gamma starting at the threshold (Zheng et al. 2021, eqs. 5-7)
    BN     the same statistics, plain gamma and beta

All keep running statistics (momentum 0.1) for evaluation and use eps 1e-4, as the authors' code.
"""
from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-4
MOMENTUM = 0.1
PastTrained = Literal["hold", "cycle", "skip"]


class BNTT(nn.Module):
    """Batch normalisation through time: time step t has its own statistics and gamma.

    Steps beyond the trained ones use the last one's (`hold`), begin anew (`cycle`) or pass unchanged (`skip`); the
    paper shows such steps (figure 13) without a rule. Training with more steps than there are gammas is an error.
    """

    def __init__(self, channels: int, timesteps: int, past_trained: PastTrained = "hold"):
        super().__init__()
        self.past_trained = past_trained
        self.gamma_TC = nn.Parameter(torch.ones(timesteps, channels))
        self.register_buffer("mean_TC", torch.zeros(timesteps, channels))
        self.register_buffer("var_TC", torch.ones(timesteps, channels))

    def _statistics_of(self, t: int) -> int | None:
        trained = len(self.gamma_TC)
        if t < trained:
            return t
        return {"hold": trained - 1, "cycle": t % trained, "skip": None}[self.past_trained]

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        if self.training and len(x_TBCHW) > len(self.gamma_TC):
            raise ValueError(f"BNTT has {len(self.gamma_TC)} time steps, it cannot be trained with {len(x_TBCHW)}")
        out = []
        for t, x_BCHW in enumerate(x_TBCHW):
            k = self._statistics_of(t)
            out.append(x_BCHW if k is None else F.batch_norm(
                x_BCHW, self.mean_TC[k], self.var_TC[k], self.gamma_TC[k], None, self.training, MOMENTUM, EPS))
        return torch.stack(out)


class BatchNorm(nn.Module):
    """Batch normalisation over time and batch together; `gamma` is where the scale starts, None for none at all.

    With gamma = threshold this is tdBN, with gamma = 1 plain BN, and with None the ANN twins' (affine=False).
    """

    def __init__(self, channels: int, gamma: float | None):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM, affine=gamma is not None)
        if gamma is not None:
            nn.init.constant_(self.norm.weight, gamma)

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        return self.norm(x_TBCHW.flatten(0, 1)).unflatten(0, x_TBCHW.shape[:2])
