"""Spikes as bits on a GPU: `bits.plain_pack` and `plain_unpack` as one Triton kernel each; the plain forms write int64 in between."""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512         # bytes of a program, each of eight spikes


@triton.jit
def pack_kernel(values_ptr, bits_ptr, size, BLOCK: tl.constexpr):
    """Values [size] -> bytes; grid (blocks,)."""
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + place
    value = tl.load(values_ptr + at, mask=at < size, other=0.0).to(tl.float32)
    bits = tl.sum((value != 0.0).to(tl.int32) << place, axis=1)
    tl.store(bits_ptr + byte, bits.to(tl.uint8), mask=byte * 8 < size)


@triton.jit
def unpack_kernel(bits_ptr, values_ptr, size, BLOCK: tl.constexpr):
    """Bytes -> values [size]; grid (blocks,)."""
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + place
    bits = tl.load(bits_ptr + byte, mask=byte * 8 < size, other=0).to(tl.int32)
    tl.store(values_ptr + at, ((bits[:, None] >> place) & 1).to(tl.float32).to(values_ptr.dtype.element_ty), mask=at < size)


def pack(values: Tensor) -> Tensor:
    """`bits.plain_pack` of float32 or bfloat16."""
    bits = values.new_empty(-(-len(values) // 8), dtype=torch.uint8)
    with torch.cuda.device_of(values):
        pack_kernel[triton.cdiv(len(bits), BLOCK),](values, bits, len(values), BLOCK=BLOCK)
    return bits


def unpack(bits: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """`bits.plain_unpack` as float32 or bfloat16."""
    values = bits.new_empty(size, dtype=dtype)
    with torch.cuda.device_of(bits):
        unpack_kernel[triton.cdiv(len(bits), BLOCK),](bits, values, size, BLOCK=BLOCK)
    return values
