"""`snnseg data check` and `snnseg data fetch`: each planted defect is named with its place, and what is fetched is unpacked."""
import io
import re
import shutil
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from snnseg import config, seal
from snnseg.cli import main
from snnseg.data import check, sources, store, voc
from snnseg.data.prepare import prepare
from snnseg.errors import StoreMissing
from snnseg.report import pictures, store_sheet

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ["data.workers=1", "data.voc.sample.train=12", "data.voc.sample.test=6", "data.ddd17.sample.train=8", "data.ddd17.sample.test=4"]


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checked")
    shutil.copy(ROOT / "params.yaml", root)
    for benchmark in ("voc", "ddd17"):
        prepare(config.load(root / "params.yaml", benchmark, SAMPLE))
    return root


def stored(root: Path, benchmark: str) -> Path:
    return config.load(root / "params.yaml", benchmark, SAMPLE).store


@pytest.fixture
def copy(project_folder, tmp_path) -> Path:
    return Path(shutil.copytree(stored(project_folder, "voc"), tmp_path / "store"))


def again(folder: Path, change) -> check.Findings:
    """Change the arrays of the training split and seal the store anew, as a faulty maker would."""
    change(zarr.open_group(folder / "train.zarr", mode="r+"))
    (folder / "seal.json").unlink()
    seal.seal(folder)
    return check.check(folder)


def test_a_good_store_is_told_with_its_classes(project_folder):
    findings = check.check(stored(project_folder, "voc"))
    told = "\n".join(findings.lines)
    assert findings.faults == [] and "every byte is the one that was sealed" in told and "share no item" in told
    for split, count in (("train", 12), ("test", 6)):
        arrays, _ = store.arrays(stored(project_folder, "voc"), split)
        void = 100 * (arrays["mask"] == store.VOID).mean()
        assert f"{split}: {count} items, void {void:.2f} %" in told
        person = voc.CLASSES.index("person")
        share = 100 * (arrays["mask"] == person).sum() / (arrays["mask"] != store.VOID).sum()
        items = (arrays["mask"] == person).any(axis=(1, 2)).sum()
        assert f"{split}:   person                   {share:6.2f} % of the labelled pixels, in {items} items ({arrays['present'][:, person].sum()} before" in told


def test_events_are_told_by_recording(project_folder):
    findings = check.check(stored(project_folder, "ddd17"))
    assert findings.faults == [] and any("rec0000000001: " in line and "events read, counted" in line for line in findings.lines)


def set_label(group):
    group["mask"][3, 0, 0] = 77


def set_void(group):
    group["mask"][4:6] = np.full((2, 32, 32), store.VOID, np.uint8)


@pytest.mark.parametrize(("change", "fault"), [
    (set_label, r"train\.zarr/mask: label 77 beside the 21 classes in item 3 \(train_0000\d\)"),
    (lambda g: g.create_array("image", data=np.zeros((12, 16, 16, 3), np.uint8), overwrite=True), r"train\.zarr has image \(12, 16, 16, 3\) and masks"),
    (lambda g: g.create_array("image", data=np.zeros((12, 32, 32, 3), np.float32), overwrite=True), r"train\.zarr/image: items are float32 \[32, 32, 3\], not uint8"),
    (lambda g: g.create_array("name", data=np.zeros((3, 16), np.uint8), overwrite=True), r"train\.zarr/name: 3 items, the masks are 12"),
    (lambda g: g.__delitem__("mask"), r"train\.zarr holds image, name, present, source, not all"),
], ids=["label", "size", "type", "length", "no mask"])
def test_each_defect_is_named_with_its_place(copy, change, fault):
    findings = again(copy, change)
    assert len([f for f in findings.faults if re.search(fault, f)]) == 1, findings.faults


def test_what_is_in_both_splits_is_a_fault(copy):
    test = zarr.open_group(copy / "test.zarr", mode="r")["image"][2]
    findings = again(copy, lambda g: g["image"].__setitem__(7, test))
    assert [f for f in findings.faults if f.startswith("1 items of test.zarr are in train.zarr too: 2 (test_00002) = train 7 (")]


def test_empty_masks_are_told(copy):
    findings = again(copy, set_void)
    assert findings.faults == [] and any(line.startswith("train: nothing is labelled in items 4 (") for line in findings.lines)


def test_altered_bytes_are_a_fault_and_no_store_is_an_error(copy, tmp_path):
    shard = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    faults = check.check(copy).faults
    assert shard.name in faults[0] and "is not the file that was sealed" in faults[0]
    with pytest.raises(StoreMissing):
        check.check(tmp_path / "none")


def test_a_sheet_shows_every_split(project_folder):
    for benchmark, count in (("voc", 12), ("ddd17", 12)):
        page = store_sheet.sheet(stored(project_folder, benchmark))
        assert page.width == 3 * (pictures.PIXELS + pictures.GAP) + pictures.GAP and page.height > (count - 2) * pictures.PIXELS
        assert len(set(page.get_flattened_data())) > 200


def test_events_are_coloured_by_polarity():
    frame = np.zeros((2, 2, 3))
    frame[0, 0, 0], frame[1, 0, 1], frame[:, 0, 2] = 5, 5, 5
    shown = pictures.event_colours(frame)
    assert shown.shape == (2, 3, 3) and shown[0, 0].tolist() == [255, 140, 0] and shown[0, 1].tolist() == [0, 115, 255]
    assert shown[0, 2].tolist() == [255, 255, 255] and not shown[1].any() and not pictures.event_colours(np.zeros((2, 2, 3))).any()


# ------------------------------------------------------------------------------------------------ the commands

def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["snnseg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


def test_the_command_ends_with_5_on_a_fault_and_draws_otherwise(project_folder, copy, monkeypatch, capsys):
    params = ["--params", str(project_folder / "params.yaml")]
    code, out, _ = run(monkeypatch, capsys, "data", "check", str(stored(project_folder, "voc")), *params)
    page = Path(out.splitlines()[-1])
    assert code == 0 and page.parent == project_folder / "data" / "report"
    with Image.open(page) as sheet:
        assert sheet.format == "PNG"
    again(copy, set_label)
    code, out, err = run(monkeypatch, capsys, "data", "check", str(copy), *params)
    assert code == 5 and "fault: train.zarr/mask: label 77" in out and err.startswith("snnseg: ") and err.count("\n") == 1
    code, out, err = run(monkeypatch, capsys, "data", "check", "vox", *params)
    assert code == 3 and "Did you mean voc?" in err and out == ""


class Archive(BaseHTTPRequestHandler):
    """Answers with `body`."""

    body = b""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)


def test_fetch_verifies_and_unpacks(project, monkeypatch, capsys):
    """From a server on this machine; the folder that the reader looks for is there at the end."""
    import hashlib

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        told = tarfile.TarInfo("cifar-10-batches-bin/batches.meta.txt")
        told.size = 4
        tar.addfile(told, io.BytesIO(b"cat\n"))
    Archive.body = packed.getvalue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    source = sources.Source("x.tar.gz", f"http://127.0.0.1:{server.server_port}/x", len(Archive.body), sha256=hashlib.sha256(Archive.body).hexdigest(),
                            unpacks_to="cifar-10-batches-bin")
    monkeypatch.setitem(sources.TABLE, "cifar10", (source,))
    code, out, err = run(monkeypatch, capsys, "data", "fetch", "cifar10", "--params", str(project / "params.yaml"))
    raw = project / "data" / "raw"
    assert code == 0 and out.splitlines() == [str(raw / "x.tar.gz"), str(raw / "cifar-10-batches-bin")], err
    assert [p.name for p in (raw / "cifar-10-batches-bin").rglob("*") if p.is_file()] == ["batches.meta.txt"]
    monkeypatch.setitem(sources.TABLE, "cifar10", (sources.Source("y.tar.gz", source.url, source.size, sha256="0" * 64),))
    code, out, err = run(monkeypatch, capsys, "data", "fetch", "cifar10", "--params", str(project / "params.yaml"))
    assert code == 4 and out == "" and "sha256" in err.splitlines()[-1] and not (raw / "y.tar.gz").exists()
    server.shutdown()
    server.server_close()


def test_ddd17_is_told_where_to_get(project, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "data", "fetch", "ddd17", "--params", str(project / "params.yaml"))
    assert code == 4 and out == "" and "Ev-SegNet" in err.splitlines()[-1] and "ddd17_seg.tar.gz" in err.splitlines()[-1]
