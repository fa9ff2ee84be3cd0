"""From official layouts to sealed stores: the same bytes however it is done, what is bad named or left out and counted."""
import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import forked
import numpy as np
import pytest
import zarr

from snnseg import config, seal
from snnseg.data import ddd17, driving_sample, store, voc, voc_sample
from snnseg.data.prepare import prepare
from snnseg.errors import DataError, DataMissing, SnnsegError

ROOT = Path(__file__).resolve().parent.parent
VOC = ["data.size=64", "data.voc.sample.train=12", "data.voc.sample.test=4"]
DDD17 = ["data.size=64", "data.ddd17.sample.train=12", "data.ddd17.sample.test=6"]
SMALL = {"voc": VOC, "ddd17": DDD17, "mnist_cifar": ["data.mnist_cifar.train=1100", "data.mnist_cifar.test=20"]}


def load(root: Path, benchmark: str, *overrides: str) -> config.Config:
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "params.yaml").exists():
        shutil.copy(ROOT / "params.yaml", root)
    return config.load(root / "params.yaml", benchmark, [*SMALL[benchmark], *overrides])


def made(c: config.Config) -> dict[str, dict]:
    """Prepare and open: split -> its arrays and attributes."""
    prepare(c)
    store.check(c.store, c.store_params)
    return {split: (*store.arrays(c.store, split),) for split in store.splits(c.store)}


@pytest.fixture(scope="module")
def digests(tmp_path_factory) -> dict[str, str]:
    """The seal of each small sample, made undisturbed with one process."""
    root = tmp_path_factory.mktemp("undisturbed")
    out = {}
    for benchmark in SMALL:
        c = load(root, benchmark, "data.workers=1")
        prepare(c)
        out[benchmark] = seal.verify(c.store, "")
    return out


# ------------------------------------------------------------------------------------------------ the same bytes

ANOTHER = """
import sys
from snnseg import config, seal
from snnseg.data.prepare import prepare

if __name__ == "__main__":      # the workers begin with this file, too
    for given in sys.argv[1:]:
        told, c = [], config.load("params.yaml", given.split()[0], given.split()[1:])
        prepare(c, told.append)
        print(c.benchmark, len(told), told[-1].done, seal.verify(c.store, ""))
"""


def test_two_processes_another_hash_seed_and_locale_give_the_same_bytes(digests, tmp_path, environment):
    """A start of Python takes seconds, so it is one for all. Two processes for DDD17: test_prepare_killed."""
    load(tmp_path, "voc")
    (tmp_path / "another.py").write_text(ANOTHER)
    given = [" ".join([benchmark, *numbers, f"data.workers={1 if benchmark == 'ddd17' else 2}"]) for benchmark, numbers in SMALL.items()]
    done = subprocess.run([sys.executable, "another.py", *given], cwd=tmp_path, env=environment | {"PYTHONHASHSEED": "7", "LC_ALL": "C"},
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert {benchmark: digest for benchmark, _, _, digest in found} == digests
    assert found[-1][:3] == ["mnist_cifar", "4", "1120"], "three shards, told of one by one"


def test_no_cluster_is_one_line(tmp_path, environment):
    load(tmp_path, "voc")
    done = forked.run([sys.executable, "-m", "snnseg", "prepare", "voc", "--set", "cluster.address=127.0.0.1:1", *sets(VOC)], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 9 and "127.0.0.1:1" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, done.stderr


def sets(overrides: list[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]


# ------------------------------------------------------------------------------------------------ VOC

@functools.cache
def written(benchmark: str) -> Path:
    """The raw files of a sample, made once and then copied."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place)
    (voc_sample.write if benchmark == "voc" else driving_sample.write)(place, 12, 6, 0)
    return place


def archives(root: Path, benchmark: str, *overrides: str) -> config.Config:
    """A sample where the official files would lie."""
    c = load(root, benchmark, "data.source=archives", "data.workers=1", "data.allow_partial=true", *overrides)
    shutil.copytree(written(benchmark), c.raw, dirs_exist_ok=True)
    return c


def test_a_voc_store_holds_what_its_reader_gives(tmp_path):
    c = archives(tmp_path, "voc", "data.voc.fit=letterbox")
    found = made(c)
    for split in ("train", "test"):
        arrays, about = found[split]
        pairs = voc.pairs(c.raw, split, True).items
        assert [bytes(n).decode().strip() for n in arrays["name"]] == [p.name for p in pairs]
        for k, pair in enumerate(pairs):
            image, mask, present = voc.load(pair, 64, "letterbox")
            assert np.array_equal(arrays["image"][k], image) and np.array_equal(arrays["mask"][k], mask) and np.array_equal(arrays["present"][k], present)
        assert (about["found"], about["official"], about["partial"]) == (len(pairs), voc.OFFICIAL[split], "12/6")
        assert about["classes"] == list(voc.CLASSES) and about["mask_sources"][arrays["source"][0]] == pairs[0].source
    assert (found["test"][0]["mask"] == store.VOID).any()


def test_an_incomplete_download_needs_to_be_allowed(tmp_path):
    c = archives(tmp_path, "voc")
    strict = load(tmp_path, "voc", "data.source=archives")
    with pytest.raises(DataError, match="--allow-partial"):
        prepare(strict)
    assert prepare(c).partial == "12/6"


@pytest.fixture(scope="module")
def voc_raw(tmp_path_factory) -> Path:
    return archives(tmp_path_factory.mktemp("voc"), "voc").root


def spoil(raw: Path) -> dict[str, str]:
    """Make five of twelve training pictures unusable: name -> word of the fault."""
    from PIL import Image

    root = raw / "VOCdevkit" / "VOC2012"
    named = {p.name: p for p in voc.pairs(raw, "train", True).items}
    of_voc = [p for p in named.values() if p.source == "voc"]
    of_sbd = [p for p in named.values() if p.source == "sbd"]
    of_voc[0].image.write_bytes(b"")
    of_voc[1].image.write_bytes(of_voc[1].image.read_bytes()[:900])
    mask = np.array(Image.open(of_voc[2].mask).convert("RGB"))
    Image.fromarray(mask).save(root / "SegmentationClass" / f"{of_voc[2].name}.png")
    of_sbd[0].mask.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512))
    Image.open(of_sbd[1].image).convert("CMYK").save(of_sbd[1].image)
    return {of_voc[0].name: "empty", of_voc[1].name: "", of_voc[2].name: "", of_sbd[0].name: "MATLAB", of_sbd[1].name: "CMYK"}


def test_bad_pictures_are_named_or_left_out_and_counted(voc_raw, tmp_path):
    shutil.copytree(voc_raw, tmp_path, dirs_exist_ok=True)
    strict, lax = (load(tmp_path, "voc", "data.source=archives", "data.allow_partial=true", "data.workers=1", f"data.skip_bad={b}") for b in ("false", "true"))
    bad = spoil(lax.raw)
    with pytest.raises((DataError, DataMissing)) as caught:
        prepare(strict)
    assert any(name in str(caught.value) for name in bad) and caught.value.exit_code == 4
    recipe = prepare(lax)
    assert recipe.bad.keys() == bad.keys() and all(word in recipe.bad[name] for name, word in bad.items())
    arrays, about = store.arrays(lax.store, "train")
    assert (len(arrays["mask"]), about["left_out"], about["left_out_files"].keys()) == (7, 5, bad.keys())
    assert {bytes(n).decode().strip() for n in arrays["name"]}.isdisjoint(bad)
    assert "5 files left out" in recipe.told and recipe.partial == "12/6"


def test_what_skip_bad_left_behind_is_not_taken_without_it(voc_raw, tmp_path):
    shutil.copytree(voc_raw, tmp_path, dirs_exist_ok=True)
    strict, lax = (load(tmp_path, "voc", "data.source=archives", "data.allow_partial=true", "data.workers=1", f"data.skip_bad={b}") for b in ("false", "true"))
    spoil(lax.raw)

    def end(progress):
        if progress.done == progress.total:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        prepare(lax, end)
    assert list(lax.store.parent.glob(".work-*/done/*"))
    with pytest.raises((DataError, DataMissing)):
        prepare(strict)


def test_a_corrected_file_makes_its_shard_again(voc_raw, tmp_path):
    """A preparation that failed goes on, and sees that a file has changed since."""
    shutil.copytree(voc_raw, tmp_path, dirs_exist_ok=True)
    c = load(tmp_path, "voc", "data.source=archives", "data.allow_partial=true", "data.workers=1")
    prepare(c)
    good = seal.verify(c.store, "")
    picture = voc.pairs(c.raw, "test", True).items[0].image
    kept = picture.read_bytes()
    picture.write_bytes(b"")
    with pytest.raises(DataError, match=picture.name):
        prepare(c)
    assert seal.verify(c.store, "") == good, "the former store is still there"
    picture.write_bytes(kept)
    prepare(c)
    assert seal.verify(c.store, "") == good


# ------------------------------------------------------------------------------------------------ DDD17

def counted(path: Path, frames: int, size: int = 64) -> np.ndarray:
    """Count frames of a recording by numpy alone: [frames, 2, size, size]."""
    columns = [np.concatenate([getattr(piece, name) for piece in ddd17.pieces(path)]) for name in "txyp"]
    t, x, y, p = columns
    frame = (t - ddd17.first_time(path)) // 50_000
    kept = y < 200
    out = np.zeros((frames, 2, size, size), np.int64)
    np.add.at(out, (frame[kept], 1 - p[kept].astype(int), y[kept].astype(int) * size // 200, x[kept].astype(int) * size // 346), 1)
    return out


def test_every_event_of_a_recording_is_in_its_frame(tmp_path):
    """Bin by bin as an independent count, and the account adds up."""
    c = archives(tmp_path, "ddd17")
    found = made(c)
    for split, recordings in (("train", ["rec0000000001", "rec0000000002", "rec0000000003", "rec0000000004"]), ("test", ["rec0000000005", "rec0000000006"])):
        arrays, about = found[split]
        assert list(about["recordings"]) == recordings and about["official"] is None and about["partial"] is None
        rest = arrays["events"]
        for name in recordings:
            path = c.raw / "ddd17" / f"{name}.hdf5"
            frames = len(list((c.raw / "ddd17" / "labels" / split).glob(f"{name}_*")))
            assert np.array_equal(rest[:frames], counted(path, frames))
            account = about["recordings"][name]
            assert account["read"] == sum(piece.total for piece in ddd17.pieces(path)) == sum(v for k, v in account.items() if k != "read")
            assert account["counted"] == rest[:frames].sum(dtype=np.int64)
            rest = rest[frames:]
        assert not len(rest)


def test_rejected_and_unlabelled_events_are_accounted_for(tmp_path):
    """A recording without a label: time runs back, and some events lie beneath the used rows."""
    c = load(tmp_path, "ddd17", "data.source=archives", "data.workers=1")
    (c.raw / "ddd17").mkdir(parents=True)
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 400_000, 5000))
    t[1000] -= 200_000 if t[1000] > 200_000 else 0
    t[[2000, 2001]] = 10
    x, y, p = rng.integers(0, 346, 5000), rng.integers(0, 260, 5000), rng.integers(0, 2, 5000)
    ddd17.write(c.raw / "ddd17" / "mine.hdf5", t, x, y, p)
    (arrays, about), = made(c).values()
    account = about["recordings"]["mine"]
    assert account["read"] == 5000 and account["time_back"] == 2 and account["below"] > 800
    assert account["counted"] == arrays["events"].sum(dtype=int) == 5000 - account["below"] - 2
    assert (arrays["mask"] == store.VOID).all() and store.splits(c.store) == ["unlabelled"]


def test_windows_of_a_store_are_successive_and_labelled(tmp_path):
    c = archives(tmp_path, "ddd17")
    label = sorted((c.raw / "ddd17" / "labels" / "train").glob("rec0000000001_*"))[-1]
    label.unlink()                      # the frame goes, as it is the last: no later label needs it
    found = made(c)["train"][0]
    split = store.read(c.store, "train", 3)
    assert len(found["mask"]) == 11 and len(split) == 11 - 4 * 2
    for window in split.window_MT:
        assert len(set(found["sequence"][window])) == 1 and (np.diff(found["frame"][window]) == 1).all()
    items, masks = split.take(np.array([0, 2]))
    assert items.shape == (2, 3, 2, 64, 64) and items.dtype == np.float32
    row, column = (np.bincount(np.arange(side) * 64 // side) for side in (200, 346))
    mean = found["events"][split.window_MT[2]] / np.outer(row, column)
    assert np.allclose(items[1], mean) and np.array_equal(masks[1], found["mask"][split.window_MT[2][-1]])
    with pytest.raises(SnnsegError, match="no 4 successive frames"):
        store.read(c.store, "train", 4)


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda raw: (raw / "rec0000000002.hdf5").write_bytes((raw / "rec0000000002.hdf5").read_bytes()[:100_000]), "rec0000000002.hdf5"),
    (lambda raw: next(iter(sorted((raw / "labels" / "train").iterdir()))).write_bytes(b""), "rec0000000001_export_"),
], ids=["recording", "label"])
def test_bad_files_of_ddd17_are_named_or_left_out(spoil, told, tmp_path):
    c = archives(tmp_path, "ddd17")
    spoil(c.raw / "ddd17")
    with pytest.raises(DataError, match=told):
        prepare(c)
    if "hdf5" in told:                  # its labels have nothing to stand on
        for label in (c.raw / "ddd17" / "labels" / "train").glob("rec0000000002*"):
            label.unlink()
    lax = load(tmp_path, "ddd17", "data.source=archives", "data.workers=1", "data.skip_bad=true")
    recipe = prepare(lax)
    assert len(recipe.bad) == 1 and told in next(iter(recipe.bad))
    assert store.arrays(lax.store, "train")[1]["left_out"] == 1
    if "hdf5" not in told:
        assert (store.arrays(lax.store, "train")[0]["mask"] == store.VOID).all(axis=(1, 2)).sum() == (0 if recipe.counts["train"] < 12 else 1)


def test_labels_beyond_a_recording_and_without_one_are_named(tmp_path):
    c = archives(tmp_path, "ddd17")
    labels = c.raw / "ddd17" / "labels" / "train"
    one = sorted(labels.iterdir())[0]
    shutil.copy(one, labels / "rec0000000001_export_999.png")
    c = load(tmp_path, "ddd17", "data.source=archives", "data.workers=1")
    with pytest.raises(DataError, match=r"ends with frame \d+, frame 999 is wanted"):
        prepare(c)
    (labels / "rec0000000001_export_999.png").unlink()
    shutil.copy(one, labels / "rec0000000099_export_3.png")
    with pytest.raises(DataMissing, match="rec0000000099"):
        prepare(c)
    assert prepare(archives(tmp_path, "ddd17")).counts == {"train": 12, "test": 6}, "labels of a recording that is not there are passed over when asked"
    (labels / "rec0000000099_export_3.png").rename(labels / "rec0000000001_export_0.png".replace("_0.", "_00."))
    with pytest.raises(DataError, match="rec0000000001_export_00.png: the same frame as|rec0000000001_export_0.png: the same frame as"):
        prepare(c)
    (labels / "rec0000000001_export_00.png").rename(labels / "strange.png")
    with pytest.raises(DataError, match="strange.png: not named"):
        prepare(c)


def test_a_count_that_was_ended_does_not_count(tmp_path, monkeypatch):
    """Neither for its own numbers nor for those before."""
    from snnseg.data import ddd17_frames

    small, large = (archives(tmp_path, "ddd17", f"data.size={size}") for size in (32, 64))
    prepare(small)
    whole = ddd17_frames._on_grid

    def cut(*arguments):
        yield next(whole(*arguments))
        raise KeyboardInterrupt
    for c in (small, large, small):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ddd17_frames, "_on_grid", cut)
            prepare(c)
    digest = seal.verify(small.store, "")
    prepare(small)
    assert seal.verify(small.store, "") == digest


def test_all_labels_bad_leaves_frames_and_none_leaves_an_error(tmp_path):
    c = archives(tmp_path, "ddd17", "data.skip_bad=true")
    for label in (c.raw / "ddd17" / "labels" / "test").iterdir():
        label.write_bytes(b"")
    recipe = prepare(c)
    assert recipe.counts == {"train": 12, "test": 6} and len(recipe.bad) == 6
    with pytest.raises(SnnsegError, match="label more frames"):
        store.read(c.store, "test", 2)
    for recording in (c.raw / "ddd17").glob("*.hdf5"):
        recording.write_bytes(b"")
    with pytest.raises(DataError, match="no recording can be used"):
        prepare(c)


def test_most_events_rejected_is_an_error(tmp_path):
    """One wrong time at the beginning would reject all the others in silence."""
    c = load(tmp_path, "ddd17", "data.source=archives", "data.workers=1")
    (c.raw / "ddd17").mkdir(parents=True)
    t = np.arange(1000) * 100
    t[0] = 10**9
    np.savez(c.raw / "ddd17" / "mine.npz", t=t, x=t % 300, y=t % 200, p=t % 2, size=ddd17.SENSOR)
    with pytest.raises(DataError, match=r"mine.npz: 999 of 1000 events are not valid .* time running back 999"):
        prepare(c)


def test_a_folder_that_is_a_link_is_entered(tmp_path):
    c = archives(tmp_path / "a", "ddd17")
    other = load(tmp_path / "b", "ddd17", "data.source=archives", "data.workers=1")
    (other.raw / "ddd17").mkdir(parents=True)
    (other.raw / "ddd17" / "run1").symlink_to(c.raw / "ddd17")
    (other.raw / "ddd17" / "labels").symlink_to(c.raw / "ddd17" / "labels")
    assert prepare(other).counts == {"train": 12, "test": 6}


def test_ev_segnets_export(tmp_path):
    from PIL import Image

    c = load(tmp_path, "ddd17", "data.source=archives", "data.ddd17.form=ev_segnet", "data.allow_partial=true", "data.workers=1")
    rng = np.random.default_rng(1)
    for split, recording, start in (("train", "rec1487339175", 10), ("test", "rec1487417411", 200)):
        for kind in ("events", "labels"):
            (c.raw / "ddd17" / kind / split).mkdir(parents=True)
        for frame in range(start, start + 3):
            name = f"{recording}_export_{frame}"
            np.save(c.raw / "ddd17" / "events" / split / f"{name}.npy", rng.choice([-1.0, 0.0, 1.0], (200, 346, 6)).astype(np.float32))
            Image.fromarray(rng.integers(0, 6, (200, 346)).astype(np.uint8)).save(c.raw / "ddd17" / "labels" / split / f"{name}.png")
    found = made(c)
    arrays, about = found["train"]
    assert arrays["frame"].tolist() == [10, 11, 12] and set(arrays["sequence"]) == {0} and about["partial"] == "3/3" and about["official"] == 15950
    last = np.load(c.raw / "ddd17" / "events" / "train" / "rec1487339175_export_12.npy")[..., :2]
    item = store.read(c.store, "train", 2).take(np.array([1]))[0][0, -1]
    row, column = np.arange(200) * 64 // 200, np.arange(346) * 64 // 346
    cell = last[(row == 5)][:, column == 7].mean(axis=(0, 1))
    assert np.allclose(item[:, 5, 7], (cell + 1) / 2, atol=1 / 255)
    strict = load(tmp_path, "ddd17", "data.source=archives", "data.ddd17.form=ev_segnet")
    with pytest.raises(DataError, match="officially 15950 and 3890"):
        prepare(strict)


def test_esss_export(tmp_path):
    from PIL import Image

    c = load(tmp_path, "ddd17", "data.source=archives", "data.ddd17.form=ess", "data.allow_partial=true", "data.workers=1")
    for k in range(7):
        folder = c.raw / "ddd17" / f"dir{k}"
        (folder / "index").mkdir(parents=True)
        (folder / "segmentation_masks").mkdir()
        (np.arange(40, dtype=np.int64) * 2_500_000).tofile(folder / "events.dat.t")
        xyp = np.stack([np.arange(40) * 8 % 360, np.arange(40) * 6, np.arange(40) % 2], 1).astype(np.int16)
        xyp.tofile(folder / "events.dat.xyp")
        np.save(folder / "index" / "index_50ms.npy", np.array([[50, 20, -1], [100, 40, 20]]))
        for j in (1, 2):
            Image.fromarray(np.full((200, 346), j, np.uint8)).save(folder / "segmentation_masks" / f"segmentation_{j:08d}.png")
    found = made(c)
    arrays, about = found["test"]
    assert arrays["frame"].tolist() == [0, 1] and about["sensor"] == [200, 346]
    total = arrays["events"].sum(axis=(1, 2, 3), dtype=int) + arrays["below"] + arrays["rejected"]
    assert total.tolist() == [20, 20] and arrays["below"].sum() > 0
    assert len(found["train"][0]["mask"]) == 10 and len(store.read(c.store, "train", 2)) == 5


def test_marks_say_what_a_shard_is_made_of(tmp_path):
    """While it is made, each finished shard has a mark beside it; in the store there is none."""
    c = load(tmp_path, "mnist_cifar", "data.workers=1")
    seen = {}

    def look(progress):
        work = c.store.with_name(f".work-{c.store.name}")
        seen[progress.done] = sorted(p.name for p in work.glob("done/*"))
        assert all(json.loads(p.read_text())["bad"] == {} for p in work.glob("done/*"))
    prepare(c, look)
    assert seen[1120] == ["test-0.json", "train-0.json", "train-1024.json"]
    assert not list(c.store.rglob("*.json*done*")) and zarr.open_group(c.store / "train.zarr", mode="r")["image"].shape == (1100, 32, 32, 3)
