"""Products of two factors that are not zero, one after the other: what the counts of `evaluation.synapses` are held to."""
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F


def convolved(x_CHW: np.ndarray, w_OIKK: np.ndarray, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Of a convolution: every output, every weight of it, and the input that it meets, if that lies on the map."""
    inputs, H, W = x_CHW.shape
    outputs, _, kernel, _ = w_OIKK.shape
    reach, count = dilation * (kernel - 1) + 1, 0
    rows, columns = ((n + 2 * padding - reach) // stride + 1 for n in (H, W))
    for o, y, x, i, ky, kx in product(*map(range, (outputs, rows, columns, inputs, kernel, kernel))):
        at_y, at_x = y * stride - padding + ky * dilation, x * stride - padding + kx * dilation
        if 0 <= at_y < H and 0 <= at_x < W and w_OIKK[o, i, ky, kx] * x_CHW[i, at_y, at_x] != 0:
            count += 1
    return count


def transposed(x_CHW: np.ndarray, w_IOKK: np.ndarray, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0) -> int:
    """Of a transposed convolution: every input is sent by every weight to an output, if that lies on the map."""
    inputs, H, W = x_CHW.shape
    _, outputs, kernel, _ = w_IOKK.shape
    rows, columns = ((n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1 for n in (H, W))
    count = 0
    for i, y, x, o, ky, kx in product(*map(range, (inputs, H, W, outputs, kernel, kernel))):
        to_y, to_x = y * stride - padding + ky * dilation, x * stride - padding + kx * dilation
        if 0 <= to_y < rows and 0 <= to_x < columns and w_IOKK[i, o, ky, kx] * x_CHW[i, y, x] != 0:
            count += 1
    return count


def pooled(x_CHW: np.ndarray) -> int:
    """Of the 3x3 pool of stride 2 and padding 1: every pixel of every window that is not zero."""
    C, H, W = x_CHW.shape
    count = 0
    for c, y, x, ky, kx in product(range(C), range((H + 1) // 2), range((W + 1) // 2), range(3), range(3)):
        at_y, at_x = 2 * y - 1 + ky, 2 * x - 1 + kx
        if 0 <= at_y < H and 0 <= at_x < W and x_CHW[c, at_y, at_x] != 0:
            count += 1
    return count


def largest(x_CHW: np.ndarray) -> np.ndarray:
    """Of the same windows, the largest value on the map."""
    C, H, W = x_CHW.shape
    out_CHW = np.empty((C, (H + 1) // 2, (W + 1) // 2), x_CHW.dtype)
    for c, y, x in product(*map(range, out_CHW.shape)):
        out_CHW[c, y, x] = max(x_CHW[c, at_y, at_x] for at_y in range(2 * y - 1, 2 * y + 2) for at_x in range(2 * x - 1, 2 * x + 2) if 0 <= at_y < H and 0 <= at_x < W)
    return out_CHW


def interpolation(side: int, to_side: int) -> np.ndarray:
    """torch's own weights of a bilinear resizing of one side, [to_side, side]: what it makes of each input alone."""
    units = torch.eye(side, dtype=torch.float64)[:, None, None]
    return F.interpolate(units, (1, to_side), mode="bilinear", align_corners=True)[:, 0, 0].T.numpy()


def resized(x_CHW: np.ndarray, height: int, width: int) -> int:
    """Of a bilinear resizing: every output, every input with a weight in it. Weights of 1e-12 are torch's rounding of zero."""
    C, H, W = x_CHW.shape
    down, right, count = interpolation(H, height), interpolation(W, width), 0
    for c, y, x, at_y, at_x in product(*map(range, (C, height, width, H, W))):
        if down[y, at_y] * right[x, at_x] > 1e-12 and x_CHW[c, at_y, at_x] != 0:
            count += 1
    return count
