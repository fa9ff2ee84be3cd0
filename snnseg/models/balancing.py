"""Threshold balancing: thresholds of a folded ANN's layers, from a calibration set of pictures.

    of activations   from the ANN's own activations (Rueckauer et al. 2017, data-based normalisation)
    of currents      from the weighted inputs over T steps, layer after layer, while those before it spike (Sengupta et al. 2019,
                     spike-norm; the paper's layer-wise conversion): larger, so more steps are needed

By layer or by channel (Kim et al. 2020, Spiking-YOLO; the paper's channel-wise conversion), by `thresholds.Rule`.
"""
from __future__ import annotations

import torch
from torch import Tensor

from snnseg import seeds
from snnseg.data.store import Split
from snnseg.errors import DataError
from snnseg.models.conversion import Converted, check_folded, times
from snnseg.models.folding import Net, layers
from snnseg.models.inputs import on, source
from snnseg.models.thresholds import SET, Largest, Rule, Thresholds
from snnseg.sections import Config
from snnseg.spiking.encode import whole


@torch.no_grad()
def of_activations(folded: Net, pictures_NCHW: Tensor, rule: Rule, batch: int = 32) -> Thresholds:
    """Thresholds from the activations of a folded ANN.

    Raises ConfigError for a net that is not folded, DataError for too few pictures (one, or what the percentile needs of the smallest
    layer), NotFinite.
    """
    largest = _begun(folded, pictures_NCHW, rule, 1)
    for x_TBCHW in pictures_NCHW[None].split(batch, 1):
        for name, layer in layers(folded).items():
            x_TBCHW = layer(x_TBCHW)
            largest[name].add(x_TBCHW)
    return Thresholds.found("activations", rule, None, len(pictures_NCHW), 1, amplitude(pictures_NCHW), largest)


@torch.no_grad()
def of_currents(folded: Net, pictures_NCHW: Tensor, rule: Rule, timesteps: int, key_N: Tensor | None = None, leak: float = 1.0,
                start: float = 0.0, batch: int = 32) -> Thresholds:
    """Thresholds from weighted inputs over time, direct coding or signed Poisson (with keys, `counter.keys`), of neurons with that leak and start.

    For a layer all before it are run anew, as their thresholds have to be known first: half the layers' number times T forward passes.
    Raises as `of_activations`, and ConfigError for T < 1.
    """
    times([timesteps])
    largest, net = _begun(folded, pictures_NCHW, rule, timesteps), Converted(folded, leak, start)
    net.amplitude.fill_(amplitude(pictures_NCHW))
    for name, seen in largest.items():
        for k in range(0, len(pictures_NCHW), batch):
            for current_TBCHW in net.currents(name, pictures_NCHW[k:k + batch], timesteps, None if key_N is None else key_N[k:k + batch]):
                seen.add(current_TBCHW)
        net.balance(name, seen.thresholds(name))
    coding = "direct" if key_N is None else "signed_poisson"
    return Thresholds.found("currents", rule, coding, len(pictures_NCHW), timesteps, amplitude(pictures_NCHW), largest)


def calibration_set(split: Split, config: Config, pictures: int, device: torch.device) -> Tensor:
    """So many items of a split, drawn by `train.seed`, as the ANN sees them: x_NCHW; each frame of events is a picture.

    Raises DataError where the split has fewer.
    """
    if not 1 <= pictures <= len(split):
        raise DataError(SET, f"{pictures} pictures of a split that has {len(split)}", f"Take 1 to {len(split)}")
    index = seeds.generator("calibrate", config.train.seed).permutation(len(split))[:pictures]
    return whole(source(on(split.take(index)[0], device), None, config)).flatten(0, 1)


def amplitude(pictures_NCHW: Tensor) -> float:
    """The largest value of pictures, either sign; 1 if all are 0."""
    return float(pictures_NCHW.abs().max()) or 1.0


def _begun(folded: Net, pictures_NCHW: Tensor, rule: Rule, timesteps: int) -> dict[str, Largest]:
    """What will find each layer's thresholds. Raises ConfigError for a net that is not folded, DataError where the pictures are too few."""
    check_folded(folded)
    if not len(pictures_NCHW):
        raise DataError(SET, "holds no picture", "Give at least 1")
    each, x_TBCHW = {}, pictures_NCHW[None, :1]         # values that one picture gives for one threshold
    for name, layer in layers(folded).items():
        x_TBCHW = layer(x_TBCHW)
        each[name] = timesteps * x_TBCHW.numel() // (x_TBCHW.shape[2] if rule.per == "channel" else 1)
    least, pictures = min(each, key=each.get), len(pictures_NCHW)
    if pictures * each[least] < rule.values:
        raise DataError(SET, f"{pictures} pictures give {pictures * each[least]} values a {rule.per} of {least}, where percentile {rule.percentile} "
                        f"needs {rule.values}", f"Give at least {-(-rule.values // each[least])} pictures, or lower the percentile")
    return {name: Largest(rule, pictures * values) for name, values in each.items()}
