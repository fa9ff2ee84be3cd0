"""What a net does with pictures, step by step: maps of its layers, its answer so far, the potential of single neurons.

On the way of the data: pictures, coded -> net -> **activations** -> figures. One forward pass in evaluation mode; the rest follows
from what runs between the layers (`signals`). The compiled operator of norm and neuron keeps potentials to itself, so those of the
traced neurons are found anew from what their layer reads, by the reference neuron. In float32 they, and the spikes told with them,
are those of a plain run; a potential at the very edge of the threshold may fall to the other side than in the compiled one.
Shapes: T time steps, B pictures, C channels, H x W pixels; of single neurons K channels at N places.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.errors import ConfigError
from snnseg.evaluation import tally
from snnseg.evaluation.layers import Layer, layers
from snnseg.evaluation.signals import watched
from snnseg.models.backbone import ConvUnit, exact
from snnseg.spiking import fused, unit
from snnseg.spiking import neuron as lif
from snnseg.spiking.encode import Coded, whole
from snnseg.spiking.neuron import LIF

Place = tuple[int, int]         # row, column


@dataclass(frozen=True)
class Traces:
    """Neurons of one layer. The rectified units of an ANN have values alone, as `before_TBKN`; the rest is None."""

    layer: str
    cells: tuple[Place, ...]            # in the layer's map, where the pixels asked for fall
    channels: tuple[int, ...]
    before_TBKN: np.ndarray             # potential with the step's current: what is held against the threshold
    after_TBKN: np.ndarray | None       # what the reset leaves of it
    spikes_TBKN: np.ndarray | None      # bool
    leak_K: np.ndarray | None
    threshold_K: np.ndarray | None


@dataclass(frozen=True)
class Activations:
    """Of a batch of pictures, step by step."""

    maps: dict[str, np.ndarray]         # by layer f32 [T,B,h,w]: spikes of the step, of an ANN values, the mean over channels
    answers_TBHW: np.ndarray            # u8: the class that the net would answer after that step
    traces: Traces


class Album:
    """Keeps what it is shown (`signals.Watcher`): of the layers `mapped` the mean over channels, of the signals `kept` all."""

    def __init__(self, mapped: Iterable[str], kept: Iterable[str]):
        self.mapped, self.kept = set(mapped), set(kept)
        self.maps: dict[str, Tensor] = {}
        self.whole: dict[str, Tensor] = {}

    def see(self, signal: str, x: Tensor | Coded) -> None:
        """Keep the signal x_TBCHW, or what is asked of it."""
        if signal in self.mapped:
            self.maps[signal] = exact(x).mean(2)
        if signal in self.kept:
            self.whole[signal] = exact(whole(x))

    def see_grid(self, layer: str, y_RBCHW: Tensor) -> None:
        """Nothing of it is kept."""


def membranes(current_TBKN: Tensor, neuron: LIF) -> tuple[Tensor, Tensor, Tensor]:
    """Potential before and behind the reset, and spikes, of each neuron at each step: the loop of `neuron.run` (eqs. 2, 3), told in full."""
    u, found = torch.zeros_like(current_TBKN[0]), []
    for current_BKN in current_TBKN:
        before = neuron.leak * u + current_BKN
        s, u = lif.step(current_BKN, u, neuron)
        found.append((before, u, s))
    before, after, spikes = (torch.stack(each) for each in zip(*found, strict=True))
    return before, after, spikes


def currents(model: nn.Module, layer: Layer, of: Mapping[str, Layer], signals: Mapping[str, Tensor]) -> Tensor:
    """What the neurons of a layer are given at each step, behind norm or skip: x_TBCHW, by torch's own operators."""
    module, x_TBCHW = model.get_submodule(layer.name), signals[layer.reads]
    if isinstance(module, ConvUnit):
        y_TBCHW = unit.plain(module.behind_max(x_TBCHW), module.conv.weight, unit.Wiring(module.conv.dilation[0], module.pooled))
        return y_TBCHW if isinstance(module.norm, nn.Identity) else fused.normalised(y_TBCHW, module.norm.normal(len(y_TBCHW)))[0]
    skip_NCHW = model.get_submodule(layer.joins)(signals[of[layer.joins].reads].flatten(0, 1))
    return module(x_TBCHW.flatten(0, 1), skip_NCHW).unflatten(0, x_TBCHW.shape[:2])


def _so_far(x_TBCHW: Tensor) -> Tensor:
    """The mean over the first step, the first two, and so on."""
    steps_T = torch.arange(1, len(x_TBCHW) + 1, device=x_TBCHW.device, dtype=x_TBCHW.dtype)
    return x_TBCHW.cumsum(0) / steps_T.view(-1, 1, 1, 1, 1)


def answers(model: nn.Module, last: Layer, of: Mapping[str, Layer], signals: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
    """The class of each pixel after each step, u8 [T,B,H,W]: what the net would answer if its input ended there.

    The last layer is linear and accumulates without leak, so its answer to the mean of the spikes so far is the answer so far.
    """
    module, mean_TBCHW = model.get_submodule(last.name), _so_far(signals[last.reads])
    if last.joins is None:
        logits = (F.interpolate(module(mean_BCHW), size, mode="bilinear", align_corners=True) for mean_BCHW in mean_TBCHW)
    else:
        skip = model.get_submodule(last.joins)
        logits = (module(mean, skip(feature)) for mean, feature in zip(mean_TBCHW, _so_far(signals[of[last.joins].reads]), strict=True))
    return torch.stack([tally.answers(logits_BCHW) for logits_BCHW in logits]).to(torch.uint8)


def named(of: Sequence[Layer], asked: Sequence[str] | None, key: str) -> list[Layer]:
    """The layers asked for; None = all that end in neurons, spiking or rectified. Raises ConfigError for another name."""
    known = {layer.name: layer for layer in of if layer.ends in ("fires", "rectifies")}
    if unknown := [name for name in asked or () if name not in known]:
        raise ConfigError(f"activations.{key}: no layer of this net that ends in neurons is named {unknown[0][:60]!r}. There are: {', '.join(known)}.")
    return [known[name] for name in (known if asked is None else dict.fromkeys(asked))]


def _cells(pixels: Sequence[Sequence[int]], layer: Layer, height: int, width: int) -> tuple[Place, ...]:
    """Where pixels of the picture fall in the layer's map. Raises ConfigError for one outside."""
    for row, column in pixels:
        if row >= height or column >= width:
            raise ConfigError(f"activations.pixels: [{row}, {column}] lies outside the pictures of {height} x {width} pixels. "
                              f"Rows are 0 to {height - 1}, columns 0 to {width - 1}.")
    h, w = layer.result_CHW[1:]
    return tuple((row * h // height, column * w // width) for row, column in pixels)


def _channels(asked: int | Sequence[int], layer: Layer, out_TBCHW: Tensor) -> tuple[int, ...]:
    """The channels asked for, or so many that did most, the first of equals. Raises ConfigError for one there is not."""
    channels = layer.out_CHW[0]
    if isinstance(asked, int):
        order = (-out_TBCHW.sum((0, 1, 3, 4), dtype=torch.float64)).argsort(stable=True)
        return tuple(order[:asked].tolist())
    if unknown := [c for c in asked if c >= channels]:
        raise ConfigError(f"activations.channels: {layer.name} has no channel {unknown[0]}. It has {channels}, 0 to {channels - 1}.")
    return tuple(asked)


def _traces(model: nn.Module, layer: Layer, of: Mapping[str, Layer], signals: Mapping[str, Tensor], cells: tuple[Place, ...],
            channels: tuple[int, ...]) -> Traces:
    rows, columns = map(list, zip(*cells, strict=True))

    def chosen(x_TBCHW: Tensor) -> Tensor:
        return x_TBCHW[:, :, list(channels)][..., rows, columns]

    if layer.ends == "rectifies":
        return Traces(layer.name, cells, channels, chosen(signals[layer.name]).cpu().numpy(), None, None, None, None)
    current_TBKN, module = chosen(currents(model, layer, of, signals)), model.get_submodule(layer.name)
    cell = module.cell if isinstance(module, ConvUnit) else model.cells[int(layer.name.rpartition(".")[2])]
    neuron = cell()
    leak_K1, threshold_K1 = (torch.as_tensor(value, dtype=current_TBKN.dtype, device=current_TBKN.device).expand(layer.out_CHW[0], 1, 1)[list(channels), 0]
                             for value in (neuron.leak, neuron.threshold))
    before, after, spikes = membranes(current_TBKN, neuron._replace(leak=leak_K1, threshold=threshold_K1))
    return Traces(layer.name, cells, channels, before.cpu().numpy(), after.cpu().numpy(), spikes.bool().cpu().numpy(),
                  leak_K1[:, 0].cpu().numpy(), threshold_K1[:, 0].cpu().numpy())


@torch.no_grad()
def measure(model: nn.Module, x: Tensor | Coded, shown: Sequence[str] | None, traced: str, pixels: Sequence[Sequence[int]],
            channels: int | Sequence[int]) -> Activations:
    """Run a DeepLab or an FCN over a batch x_TBCHW, there or coded, on its device. The net is left as it was.

    `shown` are layers by name, None all that end in neurons; `traced` is the layer whose neurons are followed, at rows and columns
    `pixels` of the picture, in `channels` (so many that did most, or their numbers). Raises ConfigError for what there is not.
    """
    height, width = x.shape[-2:]
    all_layers = layers(model, height, width)
    of, last = {layer.name: layer for layer in all_layers}, all_layers[-1]
    mapped, (layer,) = named(all_layers, shown, "layers"), named(all_layers, [traced], "traced")
    cells = _cells(pixels, layer, height, width)
    joined = [of[end.joins].reads for end in (last, layer) if end.joins]
    album, training = Album([m.name for m in mapped], [last.reads, layer.reads, layer.name, *joined]), model.training
    model.eval()
    try:
        with watched(model, album):
            model(x)
        found = answers(model, last, of, album.whole, (height, width))
        traces = _traces(model, layer, of, album.whole, cells, _channels(channels, layer, album.whole[layer.name]))
    finally:
        model.train(training)
    return Activations({m.name: album.maps[m.name].float().cpu().numpy() for m in mapped}, found.cpu().numpy(), traces)
