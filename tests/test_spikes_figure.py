"""Spikes by layer of all nets, from the files of the stage energy."""
import csv
import json

from snnseg.report import spikes_figure

PLACES = "block1.0", "block1.1"


def counted(folder, benchmark, experiment, rates, dead=None):
    """The files of a net whose layers fire with these rates, step by step; none for an ANN."""
    place = folder / benchmark / experiment
    place.mkdir(parents=True)
    spikes = {"dead_channels": dead or {}, "saturated_channels": {}} if rates else None
    steps = len(next(iter(rates.values()))) if rates else 1
    (place / "energy.json").write_text(json.dumps({"benchmark": benchmark, "experiment": experiment, "timesteps": steps, "spikes": spikes}))
    lines = [f"{layer},4,64,{t + 1},{rate}" for layer, of in rates.items() for t, rate in enumerate(of)]
    (place / "spikes.csv").write_text("\n".join(["layer,channels,neurons,step,rate", *lines]) + "\n")
    return f"{benchmark}/{experiment}"


def test_rates_are_those_of_the_paper(tmp_path):
    """R_s of eq. 8: 0.25 + 0.5 spikes a neuron over two steps."""
    names = [counted(tmp_path / "result", "voc", "spiking_deeplab", {"block1.0": [0.25, 0.5], "head": [0.0, 0.125]}, {"head": 3}),
             counted(tmp_path / "result", "voc", "ann_deeplab", {}), "voc/not_counted",
             counted(tmp_path / "result", "ddd17", "spiking_fcn", {"block1.0": [1.0] * 4, "ups.1": [0.5] * 4})]
    assert spikes_figure.write(tmp_path / "result", tmp_path, names)
    with open(tmp_path / "spikes.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["benchmark"], r["layer"], float(r["rate"]), float(r["rate_per_step"]), r["timesteps"], r["dead"]) for r in rows] == [
        ("voc", "block1.0", 0.75, 0.375, "2", "0"), ("voc", "head", 0.125, 0.0625, "2", "3"),
        ("ddd17", "block1.0", 4.0, 1.0, "4", "0"), ("ddd17", "ups.1", 2.0, 0.5, "4", "0")]
    assert list(rows[0]) == spikes_figure.COLUMNS


def test_layers_stand_in_the_way_of_the_data_whichever_net_comes_first():
    chains = {"spiking_fcn": ["block1.0", "block1.1", "head.0", "ups.0"], "spiking_deeplab": ["block1.0", "block1.1", "head"]}
    for order in (list(chains), list(reversed(chains))):
        found = spikes_figure._order([{"benchmark": "voc", "experiment": net, "layer": layer} for net in order for layer in chains[net]])
        assert found[:2] == ["block1.0", "block1.1"] and found.index("head.0") < found.index("ups.0") and len(found) == 5


def test_a_figure_is_made_of_what_there_is(tmp_path):
    """Also of nothing; a net more has bars more."""
    sizes = []
    for k in range(3):
        names = [counted(tmp_path / f"{k}", "voc", f"spiking_{n}", dict.fromkeys(PLACES, [0.1, 0.2])) for n in range(k)]
        spikes_figure.write(tmp_path / f"{k}", tmp_path, names)
        data = (tmp_path / "spikes.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        sizes.append(len(data))
    assert sizes[0] < sizes[1] < sizes[2]
