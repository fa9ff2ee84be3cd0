"""What ranks of one training have to know of one another's step: one sum a step over all gradients and a few numbers beside them."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snnseg.ranks import Ranks


class Together:
    """Gradients of all weights in one piece of memory, as they lie in it: float32 [all of them, then `numbers` numbers].

    Made once, so that a captured step finds it in the same place at each replay.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], numbers: int, ranks: Ranks):
        self.parameters, self.ranks = parameters, ranks
        sizes = [p.numel() for p in parameters]
        self.flat = parameters[0].new_zeros(sum(sizes) + numbers)
        *parts, self.numbers = self.flat.split([*sizes, numbers])
        self.gradients = [part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters, strict=True)]

    @torch.no_grad()
    def add(self, *numbers: Tensor) -> Tensor:
        """Give each weight the sum of its gradients over all ranks, and return the sums of the numbers [numbers]."""
        torch._foreach_copy_(self.gradients, [p.grad for p in self.parameters])
        self.numbers.copy_(torch.stack(numbers))
        self.ranks.add(self.flat)
        for p, gradient in zip(self.parameters, self.gradients, strict=True):
            p.grad = gradient
        return self.numbers.clone()         # the memory is the next step's


@torch.no_grad()
def level(model: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics, where each has kept its own.

    They are moving averages, so it does not matter at which steps this is done.
    """
    own = [x for x in model.buffers() if x.is_floating_point()]
    if ranks.alone or not own:
        return
    flat = ranks.add(torch.cat([x.flatten() for x in own])) / ranks.size
    for x, part in zip(own, flat.split([x.numel() for x in own]), strict=True):
        x.copy_(part.view_as(x))
