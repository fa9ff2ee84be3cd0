"""Normalisation of the input currents x_TBCHW, with what each way knows about time.

    BNTT   statistics and gamma a time step, no beta (Kim and Panda 2021; the paper's choice)
    tdBN   statistics over time and batch together, gamma starting at the threshold (Zheng et al. 2021, eqs. 5-7)
    BN     the same statistics, plain gamma and beta

All keep running statistics (momentum 0.1) for evaluation and use eps 1e-4, as the authors' code. Where several processes train
one net, `share` adds a tensor up over them, and the statistics of a batch are those of all their batches.
"""
from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.spiking import fused
from snnseg.spiking.fused import Normal
from snnseg.spiking.shared import Share

EPS = 1e-4
MOMENTUM = 0.1
PastTrained = Literal["hold", "cycle", "skip"]


@torch.no_grad()
def _remember(running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, values: int | Tensor) -> None:
    running_mean.lerp_(mean.to(running_mean.dtype), MOMENTUM)
    running_var.lerp_(var.to(running_var.dtype) * (values / (values - 1)), MOMENTUM)


def _together(norm: BNTT | BatchNorm, x_TBCHW: Tensor) -> Tensor:
    """Normalised by the statistics of all processes' batches, which become part of the running ones."""
    z_TBCHW, *statistics = fused.normalised(x_TBCHW, norm.normal(len(x_TBCHW)))
    norm.remember(*statistics)
    return z_TBCHW


class BNTT(nn.Module):
    """Batch normalisation through time: time step t has its own statistics and gamma.

    Steps beyond the trained ones use the last one's (`hold`), begin anew (`cycle`) or pass unchanged (`skip`); the
    paper shows such steps (figure 13) without a rule. Training with more steps than there are gammas is an error.
    """

    def __init__(self, channels: int, timesteps: int, past_trained: PastTrained = "hold", share: Share | None = None):
        super().__init__()
        self.past_trained, self.share = past_trained, share
        self.gamma_TC = nn.Parameter(torch.ones(timesteps, channels))
        self.register_buffer("mean_TC", torch.zeros(timesteps, channels))
        self.register_buffer("var_TC", torch.ones(timesteps, channels))

    def _statistics_of(self, t: int) -> int | None:
        trained = len(self.gamma_TC)
        if t < trained:
            return t
        return {"hold": trained - 1, "cycle": t % trained, "skip": None}[self.past_trained]

    def normal(self, steps: int) -> Normal:
        """The tables of so many time steps, for the fused operator. Raises ValueError as `forward`."""
        self._check(steps)
        if self.training:
            return Normal(self.gamma_TC[:steps], None, True, EPS, None, None, self.share)
        places = [self._statistics_of(t) for t in range(steps)]
        gamma, mean, var = (torch.stack([neutral.expand(table.shape[1]) if k is None else table[k] for k in places])
                            for table, neutral in zip((self.gamma_TC, self.mean_TC, self.var_TC), self.mean_TC.new_tensor([1, 0, 1 - EPS]), strict=True))
        return Normal(gamma, None, True, EPS, mean, var)

    def remember(self, mean_TC: Tensor, var_TC: Tensor, values: int | Tensor) -> None:
        """Take a batch's statistics, each of so many values, into the running ones: the unbiased variance, as torch does."""
        _remember(self.mean_TC[: len(mean_TC)], self.var_TC[: len(var_TC)], mean_TC, var_TC, values)

    def _check(self, steps: int) -> None:
        if self.training and steps > len(self.gamma_TC):
            raise ValueError(f"BNTT has {len(self.gamma_TC)} time steps, it cannot be trained with {steps}")

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        self._check(len(x_TBCHW))
        if self.training and self.share:
            return _together(self, x_TBCHW)
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

    def __init__(self, channels: int, gamma: float | None, share: Share | None = None):
        super().__init__()
        self.share = share
        self.norm = nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM, affine=gamma is not None)
        if gamma is not None:
            nn.init.constant_(self.norm.weight, gamma)

    def normal(self, steps: int) -> Normal:
        """The tables for the fused operator."""
        n = self.norm
        gamma, beta = (None, None) if n.weight is None else (n.weight[None], n.bias[None])
        return Normal(gamma, beta, False, EPS, *((None, None) if self.training else (n.running_mean[None], n.running_var[None])), self.share)

    def remember(self, mean_TC: Tensor, var_TC: Tensor, values: int | Tensor) -> None:
        """Take a batch's statistics, each of so many values, into the running ones."""
        self.norm.num_batches_tracked += 1
        _remember(self.norm.running_mean[None], self.norm.running_var[None], mean_TC, var_TC, values)

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        if self.training and self.share:
            return _together(self, x_TBCHW)
        return self.norm(x_TBCHW.flatten(0, 1)).unflatten(0, x_TBCHW.shape[:2])
