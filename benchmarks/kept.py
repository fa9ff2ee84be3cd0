"""What a net keeps between its forward and its backward pass, counted as autograd saves it.

Each storage counts once; parameters and the input do not. The hooks see what is saved for the backward pass and nothing else:
neither gradients nor what a pass needs only for itself, which are in the peak of a whole step.
"""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import forms, nets, styles
from benchmarks.forms import Form, Ready, Work


def neurons(work: Work) -> int:
    """Spiking neurons of the work's net for a picture."""
    with torch.device("meta"):
        return nets.NETS[work.net](styles.PLAIN, forms.CLASSES, work.width).neurons(work.size)


def bytes_per_neuron_step(form: Form, work: Work) -> float:
    """What a further picture adds, a neuron and time step: weights in another dtype are kept as well, but not once a picture."""
    few, more = (_bytes(form.ready(one), one) for one in (replace(work, batch=1), replace(work, batch=2)))
    return (more - few) / (neurons(work) * work.timesteps)


def _bytes(ready: Ready, work: Work) -> int:
    x_TBCHW = forms.coded(forms.normal_pictures(work), work)
    apart = {t.untyped_storage().data_ptr() for t in (x_TBCHW, *ready.model.parameters())}
    found: dict[int, torch.UntypedStorage] = {}         # held, so that no two have one address

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in apart:
            found[storage.data_ptr()] = storage
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        logits_BCHW = ready.forward(x_TBCHW)
    del logits_BCHW
    return sum(storage.nbytes() for storage in found.values())
