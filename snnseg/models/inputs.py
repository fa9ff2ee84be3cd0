"""Bytes of a batch as the input of a net: normalised and coded as the config says."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnseg import seeds
from snnseg.sections import Config
from snnseg.spiking import encode


def coded(image_BHWC: np.ndarray, index_B: np.ndarray, config: Config, device: torch.device, draw: tuple[str, int],
          timesteps: int | None = None) -> Tensor:
    """u8 pictures -> x_TBCHW float32 on `device`; an ANN sees one step of the normalised picture.

    `timesteps` are those of the config, if not given. `draw` is the purpose and the epoch from which, with `train.seed`
    and the sample's index, rate coding draws.
    """
    e = config.encode
    byte_BCHW = torch.from_numpy(np.ascontiguousarray(image_BHWC)).to(device).permute(0, 3, 1, 2).float().contiguous()
    normal_BCHW = (byte_BCHW - e.mean) / e.std
    if not config.spiking:
        return normal_BCHW[None]
    timesteps = timesteps or e.timesteps
    if e.coding == "direct":
        return encode.direct(normal_BCHW, timesteps)
    purpose, epoch = draw
    sample_seeds = [seeds.seed_of(purpose, config.train.seed, epoch, i) for i in index_B]
    uniform_TBCHW = encode.uniforms(sample_seeds, timesteps, byte_BCHW.shape[1:]).to(device)
    if e.coding == "poisson":
        return encode.poisson(byte_BCHW / 255, uniform_TBCHW)
    return encode.signed_poisson(normal_BCHW, uniform_TBCHW)
