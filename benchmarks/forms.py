"""The forms of one training step that are compared: snnseg's, its peers', and the floor, each made ready in a process of its own.

A step is: the pictures coded anew (signed Poisson spikes, or the same values at each step), forward, cross entropy, backward,
Adam. snnseg's is the one of its training loop, with all that it does besides: a stream of random numbers a picture, a check
that loss and gradients are finite, the confusion of the predictions.
"""
from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import styles
from snnseg import config, memory
from snnseg.errors import ConfigError, UsageError
from snnseg.sections import Config

CLASSES = 21
RATE = 1e-4         # of Adam; low, so that no form runs off over many steps on random masks
MEAN, STD = 116.0, 70.0


@dataclass(frozen=True)
class Work:
    """What a step has to do: so many pictures of size x size, so many time steps, a net of a width."""

    device: str         # cpu or cuda
    dtype: str          # fp32 or bf16 (autocast)
    net: str            # deeplab or fcn
    norm: str           # bntt or bn
    coding: str         # signed_poisson or direct
    timesteps: int
    batch: int
    size: int
    width: float
    params: str         # the params file that snnseg's own form reads

    @property
    def row(self) -> dict[str, Any]:
        """What the rows of a benchmark say of it."""
        return {k: v for k, v in asdict(self).items() if k != "params"}


class Ready(NamedTuple):
    """A form that was made ready: its step, its net, and its net's answer to coded pictures."""

    step: Callable[[], object]
    model: nn.Module
    forward: Callable[[Tensor], Tensor]     # x_TBCHW -> logits, under the work's autocast


class Form(NamedTuple):
    """A form by its kind (ours, peer, published or floor), what makes it ready, and the packages it needs beside snnseg's."""

    kind: str
    ready: Callable[[Work], Ready]
    needs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")


def pictures(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Bytes u8 [B,H,W,3] and classes u8 [B,H,W], drawn once."""
    rng, shape = np.random.default_rng(0), (work.batch, work.size, work.size)
    return rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, CLASSES, shape, np.uint8)


def coded(normal_BCHW: Tensor, work: Work) -> Tensor:
    """x_TBCHW: signed spikes with probability min(|x|, 1), drawn anew at each call, or the picture T times."""
    if work.coding == "direct":
        return normal_BCHW.expand(work.timesteps, *normal_BCHW.shape)
    uniform_TBCHW = torch.rand(work.timesteps, *normal_BCHW.shape, device=normal_BCHW.device)
    return (uniform_TBCHW <= normal_BCHW.abs()).to(normal_BCHW.dtype) * normal_BCHW.sign()


def normal_pictures(work: Work) -> Tensor:
    """x_BCHW of the pictures, on the device."""
    bytes_BHWC = torch.from_numpy(pictures(work)[0]).to(work.device)
    return (bytes_BHWC.permute(0, 3, 1, 2).float().contiguous() - MEAN) / STD


def _forward(model: nn.Module, work: Work) -> Callable[[Tensor], Tensor]:
    def forward(x_TBCHW: Tensor) -> Tensor:
        with torch.autocast(work.device, torch.bfloat16, enabled=work.dtype == "bf16"):
            return model(x_TBCHW)

    return forward


def numbers(work: Work, *changes: str) -> Config:
    """The config of snnseg's own form: the neuron and the optimiser that the others have. Raises ConfigError."""
    return config.load(work.params, f"voc/spiking_{work.net}", [
        f"encode.coding={work.coding}", f"encode.timesteps={work.timesteps}", f"encode.mean={MEAN}", f"encode.std={STD}",
        f"neuron.leak={styles.LEAK}", f"neuron.threshold={styles.THRESHOLD}", "neuron.reset=soft", "neuron.surrogate=triangle", "neuron.surrogate_scale=1.0",
        f"data.size={work.size}", f"model.width={work.width}", f"model.norm={work.norm}", f"train.batch={work.batch}", f"train.precision={work.dtype}",
        f"optim.lr={RATE}", "optim.weight_decay=0.0", "optim.amsgrad=false", "optim.clip_norm=null", *changes])


def ours(work: Work, *changes: str) -> Ready:
    """snnseg's training step as its own loop takes it, with the numbers changed so."""
    from snnseg.data.loader import Batch  # here, so that the others' processes hold nothing of it
    from snnseg.models import zoo
    from snnseg.models.feed import fed
    from snnseg.models.inputs import keys
    from snnseg.training import optim
    from snnseg.training.checkpoint import State
    from snnseg.training.step import Step

    asked, device = numbers(work, *changes), torch.device(work.device)
    memory.set_up(asked.train)        # as a training has it
    model = zoo.build(asked).to(device).train()
    update = Step(model, optim.build(asked.optim, model), asked, device)
    index_B, there = np.arange(work.batch), pictures(work)
    batches = (Batch(index_B, *there, key_B=keys(index_B, asked, ("poisson", k))) for k in itertools.count())       # other spikes each time

    def steps() -> Iterator[object]:
        with fed(batches, device) as here:
            for each in here:
                yield update(each, State())

    return Ready(steps().__next__, model, _forward(model, work))


def another(work: Work, style: str, channels_last: bool = False, cudnn: bool = True) -> Ready:
    """The step around a net in another style, with TF32 on a GPU, and torch's fastest Adam."""
    torch.backends.cudnn.enabled = cudnn
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = styles.build(style, work.net, CLASSES, work.width, work.norm, work.timesteps).to(work.device).train()
    normal_BCHW = normal_pictures(work)
    if channels_last:
        model, normal_BCHW = model.to(memory_format=torch.channels_last), normal_BCHW.to(memory_format=torch.channels_last)
    mask_BHW = torch.from_numpy(pictures(work)[1]).to(work.device).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    forward = _forward(model, work)

    def step() -> float:
        loss = F.cross_entropy(forward(coded(normal_BCHW, work)), mask_BHW)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Ready(step, model, forward)


def floor(work: Work, channels_last: bool = False) -> Ready:
    """The convolutions alone, with the memory that snnseg's form has: it is a limit, no library that somebody would use."""
    memory.keep_freed()
    return another(work, "floor", channels_last)


def _last(form: Form) -> Form:
    """The same, weights and pictures with the channels innermost."""
    return form._replace(ready=partial(form.ready, channels_last=True))


_PAPER = Form("peer", partial(another, style="paper"))
_JELLY = Form("peer", partial(another, style="spikingjelly"), ("spikingjelly",))
_TORCH = Form("peer", partial(another, style="snntorch"), ("snntorch",))
_FLOOR = Form("floor", floor)

FORMS = {
    "snnseg": Form("ours", lambda work: ours(work, "train.kernels=auto")),
    "snnseg reference": Form("ours", lambda work: ours(work, "train.kernels=reference")),
    "snnseg tf32": Form("ours", lambda work: ours(work, "train.kernels=auto", "train.precision=tf32"), devices=("cuda",)),
    "snnseg lean": Form("ours", lambda work: ours(work, "train.kernels=auto", "train.give_back=true")),
    "snnseg recompute": Form("ours", lambda work: ours(work, "train.kernels=auto", "train.recompute=true")),
    "snnseg integer": Form("ours", lambda work: ours(work, "train.kernels=auto", "neuron.levels=4")),
    "snnseg integer reference": Form("ours", lambda work: ours(work, "train.kernels=reference", "neuron.levels=4")),
    "paper": _PAPER, "paper channels_last": _last(_PAPER),
    "paper without cuDNN": Form("published", partial(another, style="paper", cudnn=False), devices=("cuda",)),      # as the authors' train.py has it
    "spikingjelly": _JELLY, "spikingjelly channels_last": _last(_JELLY),
    "snntorch": _TORCH, "snntorch channels_last": _last(_TORCH),
    "floor": _FLOOR, "floor channels_last": _last(_FLOOR),
}


def measurable(names: list[str], work: Work) -> list[str]:
    """Those of `names` that can be measured here; one line on stderr for each package that is missing.

    Raises UsageError for a name there is not.
    """
    if unknown := [name for name in names if name not in FORMS]:
        raise UsageError(f"--forms: no form is named {unknown[0]!r}. Known: {', '.join(FORMS)}.")
    missing = {name: [package for package in FORMS[name].needs if importlib.util.find_spec(package) is None] for name in names}
    for package in dict.fromkeys(itertools.chain(*missing.values())):
        print(f"{package} is not installed, its rows are left out. To have them: pip install -c constraints.txt -e '.[bench]'", file=sys.stderr)
    return [name for name in names if not missing[name] and work.device in FORMS[name].devices and _accepted(name, work)]


def _accepted(name: str, work: Work) -> bool:
    """TF32 is a form of fp32 alone; a form is left out where snnseg has no such number."""
    if name == "snnseg tf32":
        return work.dtype == "fp32"
    number = {"snnseg lean": "train.give_back=true", "snnseg recompute": "train.recompute=true"}.get(name)
    if number is None:
        return True
    try:
        numbers(work, number)
    except ConfigError:
        return False
    return True


def checked_device(name: str | None) -> str:
    """cpu or cuda; a GPU where there is one, if not named. Raises UsageError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no GPU that torch can use was found. Measure on the processor: --device cpu")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")
