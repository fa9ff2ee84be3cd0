"""ANN-SNN conversion: a folded ANN twin as integrate-and-fire neurons (section 3 of the paper; Diehl et al. 2015, Rueckauer et al. 2017).

    u <- leak u + I;  s = [u > threshold];  u <- u - threshold s        I = w * (threshold' s') + b

A spike of the layer before stands for its threshold', one number or one a channel, so over time threshold s / T comes near to
relu(w * x + b). The thresholds are multiplied into the weights that read the spikes, of the next layer, the classifier, the score
and each skip, so that convolutions see 0 and 1; a bias is a current of every step and stays as it is. `balancing` finds thresholds.
"""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.errors import ConfigError
from snnseg.models.backbone import ConvUnit
from snnseg.models.deeplab import DeepLab
from snnseg.models.folding import Folded, Net, layers, weighted
from snnseg.models.thresholds import Thresholds
from snnseg.spiking.encode import Constant, Rate
from snnseg.spiking.fused import empty_rows

PIECE = 4       # time steps that are convolved together, as many as share a draw of rate coding (`counter.STEPS`)


class Integrator(nn.Module):
    """The neurons of a layer: soft reset, a threshold a channel. `start` is their first potential, in thresholds."""

    def __init__(self, channels: int, leak: float, start: float):
        super().__init__()
        self.register_buffer("threshold", torch.ones(channels, 1, 1))
        self.leak, self.start = leak, start

    def forward(self, current_TBCHW: Tensor, potential_BCHW: Tensor | None) -> tuple[Tensor, Tensor]:
        """Spikes [T, B, C, H, W] and the potential that remains; None is where time begins. A potential that is given is walked over.

        The bits of `spiking.neuron.run`, without gradient, in four walks through a step's memory instead of nine.
        """
        threshold = self.threshold
        u = torch.zeros_like(current_TBCHW[0]) + self.start * threshold if potential_BCHW is None else potential_BCHW
        spikes_TBCHW = empty_rows(current_TBCHW)
        for current_BCHW, s in zip(current_TBCHW, spikes_TBCHW, strict=True):
            (u if self.leak == 1 else u.mul_(self.leak)).add_(current_BCHW)
            torch.div(u, threshold, out=s).gt_(1)
            u.addcmul_(s, threshold, value=-1)
        return spikes_TBCHW, u


def taps(net: Net) -> dict[str, nn.Conv2d]:
    """The layers whose activations the read-out sees, and the convolution that sees them."""
    if isinstance(net, DeepLab):
        return {"head": net.classifier}
    return {"block1.1": net.skips[0], "block2.1": net.skips[1], "block3.2": net.skips[2], "head.1": net.score}


def read_out(net: Net, seen: dict[str, Tensor], size: Sequence[int]) -> Tensor:
    """Logits [B, classes, *size] from what the taps saw, [B, C, H, W] each.

    All of it is linear, for the ANN-FCN has no ReLU between its upsamplings: voltages that are accumulated without leak and
    divided by T are the read-out of mean spikes, and neurons there would only cut off what is negative.
    """
    score_BCHW, *skips = (conv(seen[name]) for name, conv in reversed(taps(net).items()))
    if isinstance(net, DeepLab):
        return F.interpolate(score_BCHW, size, mode="bilinear", align_corners=True)
    for up, skip_BCHW in zip(net.ups, skips, strict=True):
        score_BCHW = up(score_BCHW, skip_BCHW)
    return score_BCHW


def readers(net: Net, name: str) -> list[nn.Conv2d]:
    """The convolutions that take the spikes of layer `name`: the next layer's, the read-out's, or both."""
    names = list(layers(net))
    following = [layers(net)[after].conv for after in names[names.index(name) + 1:][:1]]
    return following + [conv for tap, conv in taps(net).items() if tap == name]


class Converted(nn.Module):
    """A folded ANN twin (`folding.fold`) whose units spike, with thresholds of 1 until `balance` sets them.

    Made anew from the twin's config, it takes the state of a saved one: `Converted(fold(zoo.build(config)), leak, start)`.
    `amplitude` is what an input spike of rate coding stands for, so that pictures beyond 1 are not cut off.
    Raises ConfigError for a net that is not folded, and for numbers that no neuron has.
    """

    def __init__(self, folded: Net, leak: float = 1.0, start: float = 0.0):
        super().__init__()
        check_folded(folded)
        if not 0 < leak <= 1:
            raise ConfigError(f"leak is {leak}, which no neuron has. Take one above 0, up to 1.")
        if not 0 <= start <= 1:
            raise ConfigError(f"start is {start} thresholds, where a neuron would fire of itself or be held back. Take one from 0 to 1.")
        self.net = copy.deepcopy(folded)
        self.register_buffer("amplitude", torch.ones(()))
        for layer in layers(self.net).values():
            layer.cell = Integrator(layer.conv.out_channels, leak, start).to(layer.conv.weight.device)

    @torch.no_grad()
    def balance(self, name: str, threshold: Tensor) -> None:
        """Give layer `name` its threshold, [1] or [C], in units of the ANN's activations."""
        cell = layers(self.net)[name].cell
        threshold_C = threshold.to(cell.threshold).expand(len(cell.threshold))
        for conv in readers(self.net, name):        # their weights hold the threshold before, at first 1
            conv.weight.mul_((threshold_C / cell.threshold[:, 0, 0]).view(1, -1, 1, 1))
        cell.threshold.copy_(threshold_C.view(-1, 1, 1))

    def forward(self, x_BCHW: Tensor, timesteps: int, key_B: Tensor | None = None) -> Tensor:
        """Logits [B, classes, H, W] after so many steps; see `anytime`."""
        (_, logits_BCHW), = self.anytime(x_BCHW, [timesteps], key_B)
        return logits_BCHW

    @torch.no_grad()
    def anytime(self, x_BCHW: Tensor, at: Sequence[int], key_B: Tensor | None = None, piece: int = PIECE) -> Iterator[tuple[int, Tensor]]:
        """T and the logits [B, classes, H, W] after T steps, for each T of `at` in rising order: one pass, as long as the longest.

        The picture is the current of each step, or, with keys (`counter.keys`), the rate of signed Poisson spikes. Logits are voltages
        accumulated without leak and divided by T, the FCN's too, so that they come near to the ANN's. Time is walked in pieces of so
        many steps, potentials go from one to the next, so memory does not grow with T. Every piece is whole, so each answer has the
        bits of a run that ends there. Raises ConfigError for a T below 1.
        """
        at = times(at)
        potentials, counts = dict.fromkeys(layers(self.net)), dict.fromkeys(taps(self.net), 0)
        for first in range(0, at[-1], piece):
            ends, seen = [T - first for T in at if first < T <= first + piece], {name: [] for name in counts}
            for name, spikes_TBCHW in self._fire(layers(self.net), self._inputs(x_BCHW, key_B, first, first + piece), potentials):
                if name in counts:      # sums of 0 and 1 are exact, in any order
                    seen[name] = [counts[name] + spikes_TBCHW[:end].sum(0) for end in ends]
                    counts[name] = counts[name] + spikes_TBCHW.sum(0)
            for k, end in enumerate(ends):
                yield first + end, read_out(self.net, {name: seen[name][k] / (first + end) for name in seen}, x_BCHW.shape[-2:])

    @torch.no_grad()
    def currents(self, name: str, x_BCHW: Tensor, timesteps: int, key_B: Tensor | None = None, piece: int = PIECE) -> Iterator[Tensor]:
        """The weighted input of layer `name` over time, piece by piece [<= piece, B, C, H, W], while those before it fire."""
        units = layers(self.net)
        before = {earlier: units[earlier] for earlier in list(units)[:list(units).index(name)]}
        potentials = dict.fromkeys(before)
        for first in range(0, timesteps, piece):
            x_TBCHW = self._inputs(x_BCHW, key_B, first, min(first + piece, timesteps))
            for _, spikes_TBCHW in self._fire(before, x_TBCHW, potentials):
                x_TBCHW = spikes_TBCHW
            yield weighted(units[name].conv, x_TBCHW, units[name].pooled)

    def _inputs(self, x_BCHW: Tensor, key_B: Tensor | None, first: int, last: int) -> Tensor:
        """x_TBCHW of those steps."""
        if key_B is None:
            return Constant(x_BCHW, last).steps(first, last)
        return self.amplitude * Rate(x_BCHW / self.amplitude, key_B, last, signed=True).steps(first, last)

    @staticmethod
    def _fire(units: dict[str, ConvUnit], x_TBCHW: Tensor, potentials: dict[str, Tensor | None]) -> Iterator[tuple[str, Tensor]]:
        """The spikes of each layer in turn; `potentials` go on to the end of these steps."""
        for name, layer in units.items():
            x_TBCHW, potentials[name] = layer.cell(weighted(layer.conv, x_TBCHW, layer.pooled), potentials[name])
            yield name, x_TBCHW


def convert(folded: Net, thresholds: Thresholds, leak: float = 1.0, start: float = 0.0) -> Converted:
    """The spiking net. A `start` of 0.5 rounds to the nearest number of spikes instead of down, which helps at few steps (Bu et al. 2022).

    Raises ConfigError as `Converted` does, and where the thresholds are another net's.
    """
    net = Converted(folded, leak, start)
    shapes = {name: layer.conv.out_channels for name, layer in layers(folded).items()}
    if shapes.keys() != thresholds.by_layer.keys() or any(len(found) not in (1, shapes[name]) for name, found in thresholds.by_layer.items()):
        raise ConfigError(f"the thresholds are of layers {', '.join(thresholds.by_layer)}, not of this net's. Balance this net.")
    net.amplitude.fill_(thresholds.amplitude)
    for name, found in thresholds.by_layer.items():
        net.balance(name, torch.tensor(found))
    return net


def check_folded(net: nn.Module) -> None:
    """Raises ConfigError for anything but what `folding.fold` makes."""
    if not isinstance(net, Net) or any(not isinstance(layer.neurons, Folded) for layer in layers(net).values()):
        raise ConfigError(f"{type(net).__name__} still has its norms or is no ANN twin: it cannot be converted. Fold a trained ann_deeplab or ann_fcn first.")


def times(at: Sequence[int]) -> list[int]:
    """Numbers of time steps in rising order, each once. Raises ConfigError for none, and for one below 1."""
    if not at or min(at) < 1:
        raise ConfigError(f"time steps {list(at)}: a net answers after 1 or more. Take whole numbers from 1 on.")
    return sorted(set(at))
