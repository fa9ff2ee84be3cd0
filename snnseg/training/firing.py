"""How much a net fires while it is trained: the mean number of spikes a neuron and step, with its gradient.

On the way of the data: T inputs -> net -> logits, and beside them **the rate**, which `loss.spike_rate` makes a part of the loss.
All neurons of all layers that fire count alike, those between the FCN's upsamplings too. Hooks add spikes up as they come by and keep
none; the gradient of a sum is one number, seen at each spike, from where the surrogate takes it on.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.models.backbone import ConvUnit
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN


class _Sum(torch.autograd.Function):
    """Of all values, in float32 at least; its gradient takes no memory. torch's own is made whole where the dtype is another."""

    @staticmethod
    def forward(ctx, x):
        ctx.shape, ctx.dtype = x.shape, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            return x.sum(dtype=torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g.to(ctx.dtype).expand(ctx.shape)


class Firing:
    """What fired in one forward pass: sums of spikes, layer by layer, and how many of them there could have been."""

    def __init__(self):
        self.steps, self.pictures, self.spikes, self.places = 0, 0, [], 0

    def add(self, spikes: Tensor, times: int = 1) -> None:
        """A layer's spikes at all steps, or their mean over so many."""
        self.spikes.append(times * _Sum.apply(spikes))
        self.places += times * spikes.numel()

    def rate(self, pictures: Tensor | int | None = None) -> Tensor:
        """Spikes a neuron and step, []. Where the batch is a part of one, `pictures` are the whole's: the parts' rates add up to its mean."""
        return torch.stack(self.spikes).sum() / (self.places // self.pictures * (self.pictures if pictures is None else pictures))


@contextlib.contextmanager
def counted(model: DeepLab | FCN) -> Iterator[Firing]:
    """While it lasts, one forward pass of a spiking net is added up. Its answer and gradients stay as they are."""
    firing = Firing()

    def of_input(_, args):
        firing.steps, firing.pictures = args[0].shape[:2]

    def of_unit(_, args, spikes_TBCHW: Tensor):
        firing.add(spikes_TBCHW)

    handles = [model.register_forward_pre_hook(of_input)]
    handles += [unit.register_forward_hook(of_unit) for unit in model.modules() if isinstance(unit, ConvUnit)]
    if isinstance(model, FCN):      # what fires between the upsamplings is seen by the next; the last is given its mean over time
        handles.append(model.ups[1].register_forward_pre_hook(lambda _, args: firing.add(args[0])))
        handles.append(model.ups[2].register_forward_pre_hook(lambda _, args: firing.add(args[0], firing.steps)))
    try:
        yield firing
    finally:
        for handle in handles:
            handle.remove()
