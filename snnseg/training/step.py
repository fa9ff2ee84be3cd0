"""One training step: T inputs -> logits -> loss -> backpropagation through time -> update, all without waiting for the device.

On a GPU the kernels of a whole step, the optimiser's included, are captured once in a CUDA graph and replayed for every further
batch of the same shape: small kernels are then no longer waited for by the processor that launches them. Where a step cannot be
captured it is taken plainly, with the same numbers.

One of several ranks takes its slice of the batch. Pixels are counted over all ranks before, gradients added up after; then each
rank makes the same update by itself.
"""
from __future__ import annotations

import contextlib
import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snnseg.data.loader import Batch
from snnseg.errors import NotFinite
from snnseg.evaluation import tally
from snnseg.models import inputs, zoo
from snnseg.ranks import ALONE, Ranks
from snnseg.sections import Config
from snnseg.training import firing
from snnseg.training.checkpoint import State, still
from snnseg.training.loss import cross_entropy, sizes, weighted
from snnseg.training.optim import Adam
from snnseg.training.together import Together

PLAINLY = 3         # steps of a shape before it is captured: libraries choose their kernels, Triton compiles its own
LOG = logging.getLogger("snnseg")


class Told(NamedTuple):
    """What a step tells, on the device."""

    numbers: Tensor             # float32: loss, norm of all gradients together; spike rate, if penalised; with several ranks, how many were asked to stop
    tally: Tensor               # of the predictions before the update, this rank's


class Captured(NamedTuple):
    """A step of one shape: its graph, and the tensors that it reads and writes at every replay."""

    graph: torch.cuda.CUDAGraph
    reads: list[Tensor | None]
    told: Told


class Taken:
    """A step that was given to the device; `tally` of its predictions there, until the next step is given to it.

    `stops`: a rank was asked to stop before this step, and `rate`, spikes a neuron and step where they are penalised; known once the loss is.
    """

    def __init__(self, told: Told, batch: Batch, state: State, ranks: Ranks = ALONE, rated: bool = False):
        self.rated, self.rate = rated, None
        self.tally, self.all_B, self.at, self.ranks = told.tally, batch.all_B, (state.step, state.epoch), ranks
        self.told, self.counted, self.end, self.stops = still(told.numbers), None, None, False

    def count(self, counted: Tensor, kept: bool) -> None:
        """Add the tally to what was counted before, and keep what it is by then, over all ranks, as `self.counted`."""
        counted += self.tally
        self.counted = still(counted if self.ranks.alone else self.ranks.add(counted.clone())) if kept else None
        self._end()

    def _end(self) -> None:
        if self.tally.is_cuda:
            self.end = torch.cuda.current_stream(self.tally.device).record_event()

    def loss(self) -> float:
        """Waits for the end of the step. Raises NotFinite where loss or gradients are; the update was not made then."""
        if not self.end:
            self._end()
        if self.end:
            self.end.synchronize()
        (loss, norm, *asked), (step, epoch) = self.told.tolist(), self.at
        self.rate = asked.pop(0) if self.rated else None
        self.stops = any(asked)
        if math.isfinite(loss) and math.isfinite(norm):
            return loss
        samples = ", ".join(map(str, self.all_B[:8].tolist())) + (", ..." if len(self.all_B) > 8 else "")
        raise NotFinite(
            f"step {step}, epoch {epoch}: loss {loss}, gradient norm {norm} on training samples "
            f"{samples}. The update was not made. Lower optim.lr or set optim.clip_norm, and look at these samples."
        )


class Step:
    """Call it with a batch, in main memory or on the device.

    `behind` is how many steps may wait on the device before their loss is asked for, so that it has work while the next is prepared.
    """

    def __init__(self, model: nn.Module, optimizer: Adam, config: Config, device: torch.device, ranks: Ranks = ALONE):
        self.model, self.optimizer, self.config, self.device, self.ranks = model, optimizer, config, device, ranks
        self.penalty = config.loss.spike_rate if config.spiking else 0.0        # an ANN has no spikes
        weight_K = weighted(config.classes, config.loss.background)
        self.weight_K = None if weight_K is None else weight_K.to(device)
        self.together = None if ranks.alone else Together(optimizer.parameters, 3 if self.penalty else 2, ranks)
        self.answers = None if ranks.alone else torch.tensor([[0.0], [1.0]], device=device)     # to whether to stop
        zoo.compute_in(config.train.precision)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.behind = 1 if self.stream else 0
        self.captures = config.train.graph and self.stream is not None
        self.seen: dict[tuple[torch.Size, ...], int] = {}
        self.captured: dict[tuple[torch.Size, ...], Captured] = {}

    def __call__(self, batch: Batch, state: State, asked: bool = False) -> Taken:
        """Give a step to the device, which is not waited for. An update that is not finite is left out there.

        `asked`: this rank was asked to stop, which the others learn by this step.
        """
        key_B = inputs.keys(batch.index_B, self.config, ("poisson", state.epoch)) if batch.key_B is None else batch.key_B
        reads = [None if x is None else inputs.on(x, self.device) for x in (batch.input, batch.mask_BHW, key_B)]
        reads.append(None if self.ranks.alone else self.answers[int(asked)])
        now = self.stream and torch.cuda.current_stream(self.device)
        if now:
            self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):        # no stream, no change
            taken = Taken(self._given(reads), batch, state, self.ranks, bool(self.penalty))
        if now:
            now.wait_stream(self.stream)
        return taken

    def _given(self, reads: list[Tensor | None]) -> Told:
        """Replayed where the shapes are known well enough, else plainly."""
        shapes = tuple(x.shape for x in reads if x is not None)
        if shapes not in self.captured and self.captures and self.seen.get(shapes, 0) >= PLAINLY:
            self._capture(shapes, reads)
        if known := self.captured.get(shapes):
            for mine, given in zip(known.reads, reads, strict=True):
                if given is not None:
                    mine.copy_(given)
            known.graph.replay()
            return known.told
        self.seen[shapes] = self.seen.get(shapes, 0) + 1
        return self._plain(reads)

    def _capture(self, shapes: tuple[torch.Size, ...], reads: list[Tensor | None]) -> None:
        """Capture a step of these shapes; capturing computes nothing."""
        graph, mine = torch.cuda.CUDAGraph(), [x if x is None else x.clone() for x in reads]
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                told = self._plain(mine)
        except RuntimeError as e:
            self.captures = False
            LOG.warning("the training step cannot be captured in a CUDA graph and is taken plainly: %s", str(e).splitlines()[0])
            return
        self.captured[shapes] = Captured(graph, mine, told)

    def _plain(self, reads: list[Tensor | None]) -> Told:
        """A step whose every operation is the device's own."""
        items, mask_BHW, key_B, asked = reads
        config, model = self.config, self.model
        of = None if self.ranks.alone else self.ranks.add(sizes(mask_BHW, config.loss.void))
        x = inputs.source(items, key_B, config)
        self.optimizer.zero_grad()      # before the forward pass, whose end is where most memory is in use
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
            with firing.counted(model) if self.penalty else contextlib.nullcontext() as fired:
                logits_BCHW = model(x)
        loss, rates = cross_entropy(logits_BCHW, mask_BHW, config.loss.void, of, self.weight_K), ()
        if self.penalty:
            rate = fired.rate(*(() if of is None else (of[1],)))
            loss, rates = loss + self.penalty * rate, (rate.detach(),)
        loss.backward()
        loss, *more = (loss.detach(), *rates) if self.ranks.alone else self.together.add(loss.detach(), *rates, asked[0])
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.optimizer.parameters])
        told = torch.stack([loss, norm, *more])
        if config.optim.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.optimizer.parameters, config.optim.clip_norm, norm)
        self.optimizer.step(left_out=1 - told.isfinite().all().float())
        return Told(told, tally.counted(mask_BHW, tally.answers(logits_BCHW.detach()), config.classes))
