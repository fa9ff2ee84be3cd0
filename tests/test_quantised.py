"""Twins whose activations have few levels."""
import numpy as np
import pytest
import torch
from test_conversion import CPU, NETS, distance, logits_of, pencil, pictures, random_twin

from snnseg.errors import ConfigError
from snnseg.evaluation import converted
from snnseg.models import folding
from snnseg.models.deeplab import DeepLab
from snnseg.models.quantised import TRIED, Levels, quantise, tops
from snnseg.report import conversion
from snnseg.report.opened import opened

pytestmark = pytest.mark.usefixtures("one_thread")


def test_levels_by_hand():
    """Three levels above 0 up to 6 in the first channel, one up to 4 in another: halves go to the even one, beyond the last is cut off."""
    x_TBCHW = torch.tensor([0., .9, 1.1, 3, 4.9, 5.1, 100]).view(1, 1, 1, 1, 7)
    assert Levels(torch.tensor([6.]), 3)(x_TBCHW).flatten().tolist() == [0, 0, 2, 4, 4, 6, 6]
    assert Levels(torch.tensor([4.]), 1)(x_TBCHW).flatten().tolist() == [0, 0, 0, 4, 4, 4, 4]
    assert x_TBCHW.flatten()[1].item() == pytest.approx(.9)       # nothing is written over
    assert Levels(torch.tensor([1e-44]), 255)(torch.zeros(1, 1, 1, 1, 1)).item() == 0      # no 0 / 0


def test_the_top_that_loses_least_is_found():
    """One value of 24 among thousands below 1 is not worth their bits; a channel of equal values keeps them; a silent one has 1."""
    x_TBCHW = torch.zeros(1, 2, 3, 40, 40)
    x_TBCHW[:, :, 0] = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0))
    x_TBCHW[0, 1, 0, 3, 5] = 6.0
    x_TBCHW[:, :, 1] = 2.5
    for parts in ([x_TBCHW], x_TBCHW.split(1, 1)):
        first, second, silent = tops(lambda parts=parts: iter(parts), 3).tolist()
        assert first < 2 and second == 2.5 and silent == 1

    def lost(top):
        return (Levels(torch.tensor([top]), 3)(x_TBCHW[:, :, :1]) - x_TBCHW[:, :, :1]).square().sum().item()

    assert lost(first) == pytest.approx(min(lost(6.0 * k / TRIED) for k in range(1, TRIED + 1)))


@NETS
def test_more_bits_come_nearer_to_the_twin(net):
    folded, x_NCHW = folding.fold(random_twin(net)), pictures()
    expected = logits_of(folded, x_NCHW)
    far = [distance(logits_of(quantise(folded, x_NCHW, bits), x_NCHW), expected) for bits in (1, 2, 4, 8, 12)]
    assert far == sorted(far, reverse=True) and far[0] > .3 and far[-1] < 2e-3
    assert torch.equal(logits_of(folded, x_NCHW), expected)     # the folded net is as it was


@NETS
@pytest.mark.parametrize("bits", [1, 3])
def test_activations_have_so_many_levels(net, bits):
    quantised = quantise(folding.fold(random_twin(net)), pictures(), bits)
    for name, layer in folding.layers(quantised).items():
        seen = []
        layer.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out))
        logits_of(quantised, pictures(seed=5))
        levels = [len(np.unique((channel / layer.cell.part[c]).round().numpy())) for c, channel in enumerate(seen[0][0].unbind(1))]
        assert max(levels) == 2**bits, name


def test_what_cannot_be_quantised_is_refused():
    with pytest.raises(ConfigError, match="Fold a trained ann_deeplab or ann_fcn first"):
        quantise(random_twin(DeepLab), pictures(), 3)
    with pytest.raises(ConfigError, match="0 bits tell nothing. Take 1 or more"):
        quantise(folding.fold(pencil()), torch.ones(1, 1, 8, 8), 0)


def test_the_twin_is_scored_with_each_number_of_bits(trained):
    numbers = trained("ann_fcn", "conversion.pictures=null", "train.epochs=8", "conversion.calibration=48", "conversion.bits=[8,1,3,1]")
    found = conversion.measure(numbers.model_folder, numbers).summary
    assert {q["pictures"] for q in found["quantised"]} == {16} and [q["bits"] for q in found["quantised"]] == [1, 3, 8]
    one, three, eight = (abs(q["miou"] - found["ann_miou"]) for q in found["quantised"])
    assert eight < 0.5 and three <= one
    assert "... of  8 bits" in conversion.lines(found)
    net = opened(numbers.model_folder, numbers)
    none = numbers.model_copy(update={"conversion": numbers.conversion.model_copy(update={"bits": []})})
    assert converted.quantised(net.model, net.split("train"), net.split("test"), none, CPU) == {}
