"""Spikes as bits: what is kept of them for the backward pass, an eighth of a byte a neuron and time step.

`pack` and `unpack` have a plain form in torch, which is the oracle, one compiled for the CPU (`fused_cpu`) and one for a GPU
(`bits_triton`). The order is that of the memory. Spikes whose maker has written their bits beside them bring them along (`bring`).
"""
from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

BROUGHT = "_snnseg_bits"        # the attribute of a tensor of spikes


class Packed(NamedTuple):
    """Spikes [T, B, C, H, W] that lay in rows: `bits` u8, the first spike in the lowest bit."""

    bits: Tensor
    shape: torch.Size
    dtype: torch.dtype


def pack(spikes_TBCHW: Tensor) -> Packed:
    """0 and 1 in rows (see `fused.in_rows`) -> bits. Anything that is not 0 becomes 1."""
    brought = getattr(spikes_TBCHW, BROUGHT, None)
    if brought is not None and brought[1:] == (spikes_TBCHW._version, spikes_TBCHW.data_ptr()):
        return Packed(brought[0], spikes_TBCHW.shape, spikes_TBCHW.dtype)
    flat = spikes_TBCHW.detach().permute(0, 1, 3, 4, 2).reshape(-1)
    fast = _compiled(flat.device, flat.dtype)
    return Packed((fast.pack if fast else plain_pack)(flat), spikes_TBCHW.shape, spikes_TBCHW.dtype)


def bring(spikes_TBCHW: Tensor, bits: Tensor) -> None:
    """Let spikes in rows have these bits with them, for as long as they are not written over in a way that torch counts.

    Writes that it does not count (to `.data`, through NumPy) are not for spikes. Of inference tensors it counts none, so they bring nothing.
    """
    if not spikes_TBCHW.is_inference():
        setattr(spikes_TBCHW, BROUGHT, (bits, spikes_TBCHW._version, spikes_TBCHW.data_ptr()))


def unpack(packed: Packed) -> Tensor:
    """The spikes again, in rows."""
    T, B, C, H, W = packed.shape
    size = T * B * C * H * W
    fast = _compiled(packed.bits.device, packed.dtype)
    flat = (fast.unpack if fast else plain_unpack)(packed.bits, size, packed.dtype)
    return flat.view(T, B, H, W, C).permute(0, 1, 4, 2, 3)


def plain_pack(flat: Tensor) -> Tensor:
    """A tensor [n] of any dtype -> u8 [ceil(n / 8)]."""
    whole = torch.nn.functional.pad(flat != 0, (0, -len(flat) % 8)).view(-1, 8)
    return (whole << torch.arange(8, device=flat.device)).sum(1).to(torch.uint8)


def plain_unpack(bits: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """The way back: 0 and 1 [size]."""
    return ((bits[:, None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)) & 1).flatten()[:size].to(dtype)


def _compiled(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The module with a compiled form, imported where it is used; None where there is none, or where what it needs is not installed."""
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        if device.type == "cpu":
            from snnseg.spiking import fused_cpu

            return fused_cpu
        if device.type == "cuda":
            from snnseg.spiking import bits_triton

            return bits_triton
    except ImportError:
        return None
    return None
