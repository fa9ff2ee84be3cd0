"""Spikes by layer of all nets, from the files of the stage energy."""
import csv
import json

from snnseg.report import side_by_side


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
    side_by_side.write(tmp_path / "result", tmp_path, names)
    with open(tmp_path / "spikes.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["benchmark"], r["layer"], float(r["rate"]), float(r["rate_per_step"]), r["timesteps"], r["dead"]) for r in rows] == [
        ("voc", "block1.0", 0.75, 0.375, "2", "0"), ("voc", "head", 0.125, 0.0625, "2", "3"),
        ("ddd17", "block1.0", 4.0, 1.0, "4", "0"), ("ddd17", "ups.1", 2.0, 0.5, "4", "0")]
    assert list(rows[0]) == side_by_side.SPIKES
