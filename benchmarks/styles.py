"""How others write a spiking net, each with its library's own neuron.

    paper           a loop over time and, within it, over the layers, of torch's own operators: as the paper's code
    spikingjelly    SpikingJelly 2: each layer takes all time steps at once (step_mode "m"), its own LIF kernels where it has some
    snntorch        the loop with snn.Leaky, which takes a reset off one step later than the others (its default)
    floor           ReLU for norm and neuron, time folded into the batch, the mean over time before what is linear:
                    the convolutions' own time

paper and spikingjelly give the spikes and gradients of snnseg's nets under BNTT: one BatchNorm2d a time step and layer. Under
`bn` a loop can only normalise step by step, with one gamma and beta for all. Shapes: x_TBCHW -> logits [B, classes, H, W].
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.nets import NETS, Net, Parts

LEAK, THRESHOLD, EPS = 0.99, 1.0, 1e-4


def batch_norm(channels: int, shift: bool) -> nn.BatchNorm2d:
    """As in the paper's code, where BNTT has no shift."""
    norm = nn.BatchNorm2d(channels, eps=EPS, momentum=0.1)
    if not shift:
        norm.bias = None
    return norm


class ByStep(nn.Module):
    """A net that is called once a time step; its norms and neurons know by themselves which step it is."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        for module in self.net.modules():
            if hasattr(module, "reset_mem"):        # snnTorch's name for it, and ours for those below
                module.reset_mem()
        total = 0
        for x_BCHW in x_TBCHW:
            total = total + self.net.score(*self.net.features(x_BCHW))
        return self.net.finish(total, len(x_TBCHW), x_TBCHW.shape[-2:])


class StepNorm(nn.Module):
    """A norm for each time step, taken in turn, or one for all."""

    def __init__(self, channels: int, norm: str, timesteps: int):
        super().__init__()
        self.norms = nn.ModuleList(batch_norm(channels, norm == "bn") for _ in range(1 if norm == "bn" else timesteps))
        self.reset_mem()

    def reset_mem(self) -> None:
        self.t = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        norm = self.norms[self.t % len(self.norms)]
        self.t += 1
        return norm(x_BCHW)


class Fire(torch.autograd.Function):
    """1 where m > 0; backward, the slope max(0, 1 - |m|)."""

    @staticmethod
    def forward(ctx, m: Tensor) -> Tensor:
        ctx.save_for_backward(m)
        return (m > 0).to(m.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (m,) = ctx.saved_tensors
        return grad * F.relu(1 - m.abs())


class PlainLIF(nn.Module):
    """The neuron in the operators of the paper's code, which clones the spikes too."""

    def __init__(self):
        super().__init__()
        self.reset_mem()

    def reset_mem(self) -> None:
        self.u = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        u = torch.zeros(x_BCHW.shape, device=x_BCHW.device) if self.u is None else self.u
        u = LEAK * u + x_BCHW
        m = u / THRESHOLD - 1
        self.u = u - (m > 0) * THRESHOLD
        return Fire.apply(m).clone()


def _average() -> nn.Module:
    return nn.AvgPool2d(3, 2, 1)


def paper(net: type[Net], classes: int, width: float, norm: str, timesteps: int) -> nn.Module:
    """The loop in plain torch."""
    parts = Parts(nn.Conv2d, nn.ConvTranspose2d, _average, lambda channels: StepNorm(channels, norm, timesteps), PlainLIF)
    return ByStep(net(parts, classes, width))


def snntorch(net: type[Net], classes: int, width: float, norm: str, timesteps: int) -> nn.Module:
    """The loop with snnTorch's neuron."""
    import snntorch as snn
    from snntorch import surrogate

    slope = surrogate.custom_surrogate(lambda x, grad, spikes: grad * F.relu(1 - x.abs()))
    parts = Parts(nn.Conv2d, nn.ConvTranspose2d, _average, lambda channels: StepNorm(channels, norm, timesteps),
                  lambda: snn.Leaky(beta=LEAK, threshold=THRESHOLD, spike_grad=slope, init_hidden=True, reset_mechanism="subtract"))
    return ByStep(net(parts, classes, width))


def spikingjelly(net: type[Net], classes: int, width: float, norm: str, timesteps: int) -> nn.Module:
    """All steps at once, layer after layer."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def lif() -> nn.Module:
        return neuron.LIFNode(tau=1 / (1 - LEAK), decay_input=False, v_threshold=THRESHOLD, v_reset=None, detach_reset=True,
                              surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0), step_mode="m")

    def normal(channels: int) -> nn.Module:
        if norm == "bn":
            return layer.BatchNorm2d(channels, eps=EPS, momentum=0.1, step_mode="m")
        return layer.BatchNormThroughTime2d(timesteps, channels, eps=EPS, momentum=0.1, step_mode="m")

    class AllSteps(nn.Module):
        def __init__(self, inner: Net):
            super().__init__()
            self.net = inner

        def forward(self, x_TBCHW: Tensor) -> Tensor:
            functional.reset_net(self)
            total = self.net.score(*self.net.features(x_TBCHW)).sum(0)
            return self.net.finish(total, len(x_TBCHW), x_TBCHW.shape[-2:])

    parts = Parts(lambda *a, **k: layer.Conv2d(*a, **k, step_mode="m"), lambda *a, **k: layer.ConvTranspose2d(*a, **k, step_mode="m"),
                  lambda: layer.AvgPool2d(3, 2, 1, step_mode="m"), normal, lif, lambda f, x: functional.seq_to_ann_forward(x, f))
    return AllSteps(net(parts, classes, width))


PLAIN = Parts(nn.Conv2d, nn.ConvTranspose2d, _average, lambda channels: nn.Identity(), nn.ReLU)


class Floor(nn.Module):
    """Convolutions, pools and ReLU of T * B pictures; what is linear sees the mean over time."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        features = self.net.features(x_TBCHW.flatten(0, 1))
        total = len(x_TBCHW) * self.net.score(*(s.unflatten(0, x_TBCHW.shape[:2]).mean(0) for s in features))
        return self.net.finish(total, len(x_TBCHW), x_TBCHW.shape[-2:])


def floor(net: type[Net], classes: int, width: float, norm: str, timesteps: int) -> nn.Module:
    """No norm, no neuron."""
    return Floor(net(PLAIN, classes, width))


STYLES = {"paper": paper, "spikingjelly": spikingjelly, "snntorch": snntorch, "floor": floor}


def build(style: str, net: str, classes: int, width: float, norm: str, timesteps: int) -> nn.Module:
    """A peer's net, its weights drawn as the paper's code does. Raises ImportError where the peer's package is missing."""
    torch.manual_seed(0)
    built = STYLES[style](NETS[net], classes, width, norm, timesteps)
    for module in built.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, gain=2)
    return built
