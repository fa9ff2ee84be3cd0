"""A batch as the input of a net: bytes of pictures normalised and coded as the config says, frames of events as they are."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnseg import seeds
from snnseg.sections import Config
from snnseg.spiking import encode


def coded(items: np.ndarray, index_B: np.ndarray, config: Config, device: torch.device, draw: tuple[str, int],
          timesteps: int | None = None) -> Tensor:
    """Pictures u8 [B,H,W,3] -> x_TBCHW float32 on `device`; an ANN sees one step of the normalised picture.

    Frames of events f32 [B,T,2,H,W] are the T inputs, without Poisson coding; an ANN sees them too and averages its features
    over them (section 5.1.1).

    `timesteps` are those of the config, if not given. `draw` is the purpose and the epoch from which, with `train.seed`
    and the sample's index, rate coding draws.
    """
    if config.data.events:
        return torch.from_numpy(items).to(device).transpose(0, 1).contiguous()
    e = config.encode
    byte_BCHW = torch.from_numpy(np.ascontiguousarray(items)).to(device).permute(0, 3, 1, 2).float().contiguous()
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
