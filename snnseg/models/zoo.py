"""The four nets by name."""
from __future__ import annotations

import torch
from torch import nn

from snnseg.errors import ConfigError
from snnseg.models.backbone import Analog, Neurons, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.sections import Config
from snnseg.spiking import ways
from snnseg.spiking.integer import Integer
from snnseg.spiking.neuron import LIF
from snnseg.spiking.shared import Share
from snnseg.spiking.surrogate import SURROGATES

NETS = {"spiking_deeplab": DeepLab, "spiking_fcn": FCN, "ann_deeplab": DeepLab, "ann_fcn": FCN}


def neurons(config: Config, share: Share | None = None) -> Neurons:
    """What the config's net computes with. `share` adds a tensor up over all processes whose batches are normalised as one."""
    if not config.spiking:
        return Analog(config.timesteps, share)
    n = config.neuron
    spike = Integer(n.surrogate_scale, n.levels) if n.levels else SURROGATES[n.surrogate](n.surrogate_scale)
    lif = LIF(n.leak, n.threshold, spike, soft_reset=n.reset == "soft")
    return Spiking(config.timesteps, lif, config.model.norm, config.evaluate.past_trained, config.train.kernels, config.train.recompute,
                   config.train.give_back, n.learn_leak, n.learn_threshold, share)


def way(config: Config, device: torch.device) -> str:
    """How the config's spiking net runs norm and neuron on `device`: reference, cpu or triton. Raises ConfigError where `train.kernels` cannot be had."""
    made = neurons(config)
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    y_TBCHW = torch.empty(1, dtype=dtype, device=device).expand(config.timesteps, 1, 1, 1, 1)
    try:
        return ways.pick(y_TBCHW, None, made.make_cell(1).to(device)(), made.way)
    except ValueError as e:
        raise ConfigError(f"train.kernels: {e}. Set train.kernels to auto, which takes the fastest way that can.") from e


def compute_in(precision: str) -> None:
    """Have a GPU multiply in the config's precision from here on; torch's own convolutions would take TF32 for float32 unasked."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def build(config: Config, share: Share | None = None) -> nn.Module:
    """The net of `config`, its weights drawn from `train.seed`; the global random state stays as it was. `share` as in `neurons`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed)      # not torch.manual_seed: it would seed the GPUs too
        return NETS[config.model.name](config.classes, neurons(config, share), config.model.width, config.channels, config.model.pool)
