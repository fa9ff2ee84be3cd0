"""A batch as the input of a net: bytes of pictures normalised and coded as the config says, frames of events as they are."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnseg import seeds
from snnseg.sections import Config
from snnseg.spiking import counter, encode
from snnseg.spiking.timed import Timed

DRAWN = "poisson", "signed_poisson"


def on(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The array as a tensor on `device`, itself if it is there already; does not wait for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
    return tensor.to(device, non_blocking=True)


def keys(index_B: np.ndarray, config: Config, draw: tuple[str, int]) -> np.ndarray | None:
    """i8 [B]: what rate coding draws a sample's spikes from, by its index; None where nothing is drawn.

    `draw` is the purpose and the epoch that make the key, with `train.seed`.
    """
    if not config.spiking or config.data.events or config.encode.coding not in DRAWN:
        return None
    purpose, epoch = draw
    return counter.keys([seeds.seed_of(purpose, config.train.seed, epoch, i) for i in index_B]).numpy()


def source(items: Tensor, key_B: Tensor | None, config: Config, timesteps: int | None = None) -> encode.Coded:
    """Pictures u8 [B,H,W,3] as inputs of T steps, float32 on their device; an ANN sees one step of the normalised picture.

    Frames of events f32 [B,T,2,H,W] are the T inputs, whatever the coding; an ANN sees them too and averages its features
    over them (section 5.1.1). `timesteps` are those of the config, if not given; `key_B` from `keys`.
    """
    if config.data.events:
        return encode.Frames(items)
    e = config.encode
    byte_BCHW = items.permute(0, 3, 1, 2).float().contiguous()
    normal_BCHW = (byte_BCHW - e.mean) / e.std
    if not config.spiking:
        return encode.Constant(normal_BCHW, 1)
    timesteps = timesteps or e.timesteps
    if e.coding == "direct":
        return encode.Constant(normal_BCHW, timesteps)
    if e.coding == "poisson":
        return encode.Rate(byte_BCHW / 255, key_B, timesteps)
    if e.coding == "signed_poisson":
        return encode.Rate(normal_BCHW, key_B, timesteps, signed=True)
    return Timed(byte_BCHW / 255, timesteps, e.coding)


def coded(items: np.ndarray | Tensor, index_B: np.ndarray, config: Config, device: torch.device, draw: tuple[str, int],
          timesteps: int | None = None) -> encode.Coded:
    """`source` of samples by their indices."""
    key_B = keys(index_B, config, draw)
    return source(on(items, device), None if key_B is None else on(key_B, device), config, timesteps)
