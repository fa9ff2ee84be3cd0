"""The sealed store: what was written is read back, and whatever is not what was written is refused."""
import shutil
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import zarr

from snnseg import config, seal
from snnseg.data import mnist_cifar, store
from snnseg.data.prepare import prepare
from snnseg.errors import StoreAltered, StoreError, StoreMissing

ROOT = Path(__file__).resolve().parent.parent
FLIPS = 100


def config_at(root, *overrides):
    """The project's numbers in a folder of its own, with a small store."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", root)
    return config.load(root / "params.yaml", "spiking_deeplab",
                       ["data.workers=1", "data.mnist_cifar.train=40", "data.mnist_cifar.test=10", *overrides])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A store of 40 and 10 pictures; not to be altered."""
    c = config_at(tmp_path_factory.mktemp("sample"))
    told = []
    made = prepare(c, told.append)
    assert [tuple(p) for p in told] == [("pictures", 0, 50), ("pictures", 40, 50), ("pictures", 50, 50)]
    assert made.told == "50 pictures (40 train, 10 test)"
    return c


def stores_beside(folder):
    """What lies in the folder of stores: no part of one may be left. The lock may."""
    return sorted(p.name for p in folder.parent.iterdir() if p.suffix != ".lock")


@pytest.fixture
def copy(sample, tmp_path):
    return Path(shutil.copytree(sample.store, tmp_path / "store"))


def arrays(seed, count, classes=2):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
            "mask": rng.choice([*range(classes), store.VOID], (count, 8, 8)).astype(np.uint8)}


def made(folder, items, classes=("background", "digit"), split="train"):
    with seal.publish(folder) as partial:
        store.create(partial, split, len(items["image"]), {k: (v.shape[1:], v.dtype.name) for k, v in items.items()})
        store.describe(partial, split, {"classes": list(classes), "palette": [], "params": {"size": 8, "seed": 0}})
        store.write(partial, split, 0, items)
    return folder


# ------------------------------------------------------------------------------------------------ round trip

@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_what_is_written_is_read(tmp_path, count):
    """Around the border of a chunk of 256, with every byte value in the pictures and void in the masks."""
    items = arrays(count, count)
    folder = made(tmp_path / "store", items)
    assert store.check(folder, {"size": 8}) == seal.verify(folder, "")
    split = store.read(folder, "train")
    assert len(split) == count
    assert split.input.dtype == split.mask_NHW.dtype == np.uint8
    assert np.array_equal(split.input, items["image"]) and np.array_equal(split.mask_NHW, items["mask"])
    assert split.about == {"classes": ["background", "digit"], "palette": [], "params": {"size": 8, "seed": 0}}


def shards_of(folder):
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "zarr.json" and p.parent != folder]


def test_shards_of_zeros_are_written_too(tmp_path):
    """Otherwise the seal would not know of them."""
    items = {"image": np.zeros((3, 8, 8, 3), np.uint8), "mask": np.zeros((3, 8, 8), np.uint8)}
    folder = made(tmp_path / "store", items)
    assert not store.read(folder, "train").input.any()
    assert [p.relative_to(folder).parts[1] for p in shards_of(folder)] == ["image", "mask"]


@pytest.mark.parametrize(("count", "expected"), [
    (1, [(0, 1)]), (1024, [(0, 1024)]), (1025, [(0, 1024), (1024, 1025)]), (2500, [(0, 1024), (1024, 2048), (2048, 2500)])])
def test_shards_cover_each_picture_once(count, expected):
    assert list(store.shards(count)) == expected


def test_writers_of_whole_shards_do_not_meet(tmp_path):
    """Two shards written in the other order give the same bytes."""
    count = store.SHARD + 5
    items = {"mask": (np.arange(count) % 7).astype(np.uint8).reshape(count, 1)}
    digests = []
    for name, order in (("a", (0, 1)), ("b", (1, 0))):
        with seal.publish(tmp_path / name) as partial:
            store.create(partial, "train", count, {"mask": ((1,), "uint8")})
            spans = list(store.shards(count))
            for k in order:
                store.write(partial, "train", spans[k][0], {"mask": items["mask"][slice(*spans[k])]})
        digests.append(seal.verify(tmp_path / name, ""))
    assert digests[0] == digests[1]


def test_prepared_store_holds_what_the_generator_makes(sample):
    digest = store.check(sample.store, sample.store_params)
    assert digest == seal.verify(sample.store, "")
    assert stores_beside(sample.store) == [sample.store.name] and sample.store.name.startswith("mnist_cifar-")
    for split, count in (("train", 40), ("test", 10)):
        expected = mnist_cifar.make(mnist_cifar.pool("sample", sample.raw, split, 0), "binary", 32, 0, split, 0, count)
        found = store.read(sample.store, split)
        assert np.array_equal(found.input, expected["image"]) and np.array_equal(found.mask_NHW, expected["mask"])
        about = found.about
        assert [about[k] for k in ("dataset", "protocol", "source", "split")] == ["mnist_cifar", "binary@32", "sample", split]
        assert about["classes"] == ["background", "digit"] and len(about["palette"]) == 2
        assert about["params"] == sample.store_params


# ------------------------------------------------------------------------------------------------ refused

def use(folder, params):
    """As training opens a store."""
    store.check(folder, params)
    return store.read(folder, "train"), store.read(folder, "test")


def test_random_bit_flips_are_all_refused(sample, copy):
    """100 single bits drawn over all bytes of all files: none passes in silence, and set right again the store is good."""
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    ends = np.cumsum([p.stat().st_size for p in files])
    rng = np.random.default_rng(0)
    silent, hit = [], set()
    for _ in range(FLIPS):
        place = int(rng.integers(ends[-1]))
        k = int(np.searchsorted(ends, place, side="right"))
        offset, bit = place - int(ends[k - 1] if k else 0), int(rng.integers(8))
        original = files[k].read_bytes()
        flipped = bytearray(original)
        flipped[offset] ^= 1 << bit
        files[k].write_bytes(flipped)
        hit.add(files[k])
        try:
            use(copy, sample.store_params)
            silent.append((files[k].name, offset, bit))
        except StoreAltered:
            pass
        files[k].write_bytes(original)
    assert silent == [] and len(hit) >= 3
    use(copy, sample.store_params)


def test_one_flip_in_each_file_is_refused_by_name(sample, copy):
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    assert len(files) == 1 + 2 * (1 + 2 * 4)        # the seal, and in each split: a group, four arrays, four shards
    for file in files:
        original = file.read_bytes()
        file.write_bytes(original[:-1] + bytes([original[-1] ^ 0x10]))
        with pytest.raises(StoreAltered, match=str(file.relative_to(copy))):
            use(copy, sample.store_params)
        file.write_bytes(original)


def test_each_deleted_file_is_refused(sample, copy):
    shards = shards_of(copy)
    assert len(shards) == 8
    for file in [*shards, copy / "train.zarr" / "zarr.json", copy / "test.zarr" / "mask" / "zarr.json"]:
        original = file.read_bytes()
        file.unlink()
        with pytest.raises(StoreAltered, match=f"{file.relative_to(copy)} is missing"):
            use(copy, sample.store_params)
        file.write_bytes(original)
    (copy / "seal.json").unlink()
    with pytest.raises(StoreMissing):
        store.check(copy, sample.store_params)
    with pytest.raises(StoreMissing):
        store.read(copy, "train")


def test_damage_to_the_bytes_of_a_chunk_is_noticed_by_read_alone(sample, copy):
    """Between the check and the reading of a shard its own crc32c still holds guard."""
    shard = next(p for p in shards_of(copy) if p.relative_to(copy).parts[:2] == ("train.zarr", "image"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreAltered, match=r"train\.zarr cannot be decoded"):
        store.read(copy, "train")
    assert len(store.read(copy, "test")) == 10


@pytest.mark.parametrize("key", ["dataset", "source", "size", "seed", "classes", "train", "test"])
def test_a_store_of_other_params_is_refused_and_told(sample, key):
    params = sample.store_params
    assert params.keys() == {"dataset", "source", "size", "seed", "classes", "train", "test"}
    with pytest.raises(StoreError) as e:
        store.check(sample.store, params | {key: "other"})
    assert f"{key} {params[key]} instead of other" in str(e.value)
    told = str(e.value).partition("made with ")[2]
    assert [k for k in params if f"{k} {params[k]} instead" in told] == [key]


def test_labels_outside_the_classes_are_refused(tmp_path):
    items = arrays(0, 4)
    items["mask"][3, 7, 7] = 2
    folder = made(tmp_path / "store", items)
    store.check(folder, {"size": 8})
    with pytest.raises(StoreError, match=r"mask values \[2\] beside its 2 classes"):
        store.read(folder, "train")
    assert store.read(made(tmp_path / "three", items, ("a", "b", "c")), "train").mask_NHW[3, 7, 7] == 2


@pytest.mark.parametrize("mask_shape", [(3, 8, 8), (4, 8, 7)])
def test_pictures_and_masks_that_do_not_fit_are_refused(tmp_path, mask_shape):
    """Arrays of other lengths or sizes under one roof."""
    with seal.publish(tmp_path / "store") as partial:
        store.create(partial, "train", 4, {"image": ((8, 8, 3), "uint8")})
        store.describe(partial, "train", {"classes": ["a"], "palette": [], "params": {}})
        zarr.open_group(partial / "train.zarr", mode="r+").create_array("mask", data=np.zeros(mask_shape, np.uint8))
    with pytest.raises(StoreAltered, match="masks"):
        store.read(tmp_path / "store", "train")


# ------------------------------------------------------------------------------------------------ other bytes

def test_other_numbers_give_another_store(sample, tmp_path):
    c = config_at(tmp_path, "data.seed=1")
    prepare(c)
    assert seal.verify(c.store, "") != seal.verify(sample.store, "")
    with pytest.raises(StoreError, match="seed 1 instead of 0"):
        store.check(c.store, sample.store_params)


def interrupt(progress):
    if progress.done:
        raise KeyboardInterrupt


def test_a_preparation_that_is_given_up_leaves_the_former_store(sample, copy, tmp_path):
    c = config_at(tmp_path)
    target = Path(shutil.copytree(copy, c.store))
    with pytest.raises(KeyboardInterrupt):
        prepare(c, interrupt)
    assert stores_beside(target) == [f".work-{target.name}", target.name]
    assert seal.verify(target, "") == seal.verify(sample.store, "")


# ------------------------------------------------------------------------------------------------ no space

LIMITED = """
import resource
from snnseg import config
from snnseg.data.prepare import prepare
from snnseg.errors import NoSpace

c = config.load("params.yaml", "spiking_deeplab", ["data.workers=1", "data.mnist_cifar.train=40", "data.mnist_cifar.test=10"])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))     # a shard of 40 pictures is larger
try:
    prepare(c)
except NoSpace as e:
    print(e)
"""


def test_a_file_size_limit_is_no_space_and_harms_nothing(sample, tmp_path, environment):
    c = config_at(tmp_path)
    shutil.copytree(sample.store, c.store)
    (tmp_path / "limited.py").write_text(LIMITED)
    out = forked.run([sys.executable, "-m", "limited"], cwd=tmp_path, timeout=120, env=environment, text=True, capture_output=True)
    assert out.returncode == 0, out.stderr
    assert "no space left to write" in out.stdout and str(c.store.parent) in out.stdout
    assert stores_beside(c.store) == [f".work-{c.store.name}", c.store.name]
    assert store.check(c.store, c.store_params) == seal.verify(sample.store, "")
