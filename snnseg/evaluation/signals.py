"""What runs between the layers of a net while it answers: hooks that see it, and leave the answer as it is.

A signal is named by the layer that made it (`layers.Layer.name`), or INPUT. Nothing is kept here: a signal is shown as it
comes by, so memory is that of the forward pass.
Shapes: T time steps, B pictures, C channels, H x W pixels.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from snnseg.evaluation.layers import INPUT
from snnseg.models.backbone import ConvUnit, exact
from snnseg.models.fcn import FCN
from snnseg.spiking.encode import Coded


class Watcher(Protocol):
    """Who is shown the signals."""

    def see(self, signal: str, x: Tensor | Coded) -> None:
        """x_TBCHW of the net's input, there or coded, or what a layer made: spikes, or values."""

    def see_grid(self, layer: str, y_RBCHW: Tensor) -> None:
        """What a layer resizes, at the R steps at which it does: T, or 1 where it has accumulated or averaged."""


@contextlib.contextmanager
def watched(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """While it lasts, each forward pass of a DeepLab or an FCN shows its signals to `watcher`."""
    pictures = 0

    def of_input(_, args):
        nonlocal pictures
        pictures = args[0].shape[1]
        watcher.see(INPUT, args[0])

    def steps(x_NCHW: Tensor) -> Tensor:
        return x_NCHW.unflatten(0, (-1, pictures))

    def output(name: str):
        return lambda _, args, x_TBCHW: watcher.see(name, x_TBCHW)

    def grid(name: str):
        return lambda _, args, y_NCHW: watcher.see_grid(name, steps(y_NCHW))

    with contextlib.ExitStack() as stack:
        def hook(handle) -> None:
            stack.callback(handle.remove)

        hook(model.register_forward_pre_hook(of_input))
        for name, module in model.named_modules():
            if isinstance(module, ConvUnit):
                hook(module.register_forward_hook(output(name)))
        if not isinstance(model, FCN):
            hook(model.classifier.register_forward_hook(grid("classifier")))
        else:
            for k, up in enumerate(model.ups):
                hook(up.conv.register_forward_hook(grid(f"ups.{k}")))
            for k, name in enumerate(("score", "ups.0")):
                hook(model.ups[k].register_forward_pre_hook(lambda _, args, name=name: watcher.see(name, steps(args[0]))))

            def second(_, args, current_NCHW):
                # the last stage is given the mean of these spikes alone, so they are fired once more, by the same function
                watcher.see("ups.1", model.neurons.between_upsamplings(model.cells[1], exact(steps(current_NCHW))))

            hook(model.ups[1].register_forward_hook(second))
        yield
