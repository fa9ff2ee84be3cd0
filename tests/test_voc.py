"""VOC2012 and SBD in their official layout, written here: splits, geometry, masks. What is refused is in the second half."""
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import loadmat, savemat

from snnseg.data import pictures, voc
from snnseg.data.voc import Pair
from snnseg.errors import DataError, DataMissing

MASK_HW = np.array([[0, 0, 1, 1, 20, 255]] * 2 + [[7, 7, 15, 15, 3, 3]] * 2, np.uint8).repeat(4, axis=0).repeat(4, axis=1)     # 16 x 24


def jpeg(height=16, width=24, mode="RGB", **options):
    """A smooth picture: nothing that JPEG would blur much."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([8 * x, 12 * y, 200 - 6 * x], -1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def png(mask_HW, depth=8, colour=3, rows=None, interlaced=0):
    """A PNG of raw rows, with a palette where the colour type has one; by hand, so that it may be wrong."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width = mask_HW.shape
    raw = b"".join(b"\0" + row.tobytes() for row in (mask_HW if rows is None else rows))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
            + (chunk(b"PLTE", bytes(3 << depth)) if colour == 3 else b"")
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def mat(mask_HW, **options):
    """As in SBD: twenty sparse boundaries, then the mask, then the classes."""
    edges = np.empty((20, 1), object)
    edges[:] = [[sparse.csc_matrix(np.eye(3, dtype=bool))]] * 20
    out = io.BytesIO()
    savemat(out, {"GTcls": {"Boundaries": edges, "Segmentation": mask_HW, "CategoriesPresent": np.ones((20, 1), np.uint8)}}, **options)
    return out.getvalue()


def element(kind, data, order="<"):
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(content, shape, name, *elements, order="<"):
    return element(14, element(6, struct.pack(f"{order}II", content, 0), order) + element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
                   + element(1, name, order) + b"".join(elements), order)


def matlab5(*variables, order="<"):
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + {"<": b"IM", ">": b"MI"}[order] + b"".join(variables)


def gtcls(field, name=b"Segmentation", content=2, shape=(1, 1), order="<", edges=None):
    """A struct of two fields, of which the second matters."""
    names = b"Boundaries".ljust(16, b"\0") + name.ljust(16, b"\0")
    first = matrix(1, (0, 0), b"", order=order) if edges is None else edges
    return matlab5(matrix(content, shape, b"GTcls", element(5, struct.pack(f"{order}i", 16), order), element(1, names, order),
                          first, field, order=order), order=order)


def put(path, data):
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return path


def layout(raw, lists, image=b"", png_mask=b"", mat_mask=b""):
    """The official folders with these lists ({"voc train": "a b", ...}) and a file of these bytes for every name."""
    base, sbd = raw / "VOCdevkit" / "VOC2012", raw / "benchmark_RELEASE" / "dataset"
    for key, names in lists.items():
        source, which = key.split()
        folder = base / "ImageSets" / "Segmentation" if source == "voc" else sbd
        put(folder / f"{which}.txt", "".join(f"{name}\n" for name in names.split()).encode())
        masks, suffix, mask = (base / "SegmentationClass", "png", png_mask) if source == "voc" else (sbd / "cls", "mat", mat_mask)
        for name in names.split():
            put(base / "JPEGImages" / f"{name}.jpg", image)
            put(masks / f"{name}.{suffix}", mask)
    return raw


SMALL = {"voc train": "c a", "voc val": "b d", "sbd train": "z b a", "sbd val": "y d"}


@pytest.fixture
def raw(tmp_path):
    return layout(tmp_path, SMALL, jpeg(), png(MASK_HW), mat(MASK_HW))


@pytest.fixture
def pair(tmp_path):
    return Pair("a", put(tmp_path / "a.jpg", jpeg()), put(tmp_path / "a.png", png(MASK_HW)), "voc")


def names(found):
    return [(pair.name, pair.source) for pair in found.items]


def test_palette_and_classes():
    """As printed in the VOC development kit."""
    colours = dict(zip(voc.CLASSES, voc.PALETTE, strict=True))
    assert len(colours) == 21 and voc.CLASSES[0] == "background" and voc.CLASSES[15] == "person"
    assert [colours[c] for c in ("background", "aeroplane", "bicycle", "cat", "dog", "person", "tvmonitor")] == [
        "#000000", "#800000", "#008000", "#400000", "#400080", "#c08080", "#004080"]


def test_train_is_voc_and_what_sbd_adds_outside_val(raw):
    """VOC's masks come first; b and d are in VOC's val, a is VOC's own."""
    train, test = voc.pairs(raw, "train", True), voc.pairs(raw, "test", True)
    assert names(train) == [("c", "voc"), ("a", "voc"), ("z", "sbd"), ("y", "sbd")]
    assert names(test) == [("b", "voc"), ("d", "voc")]
    assert [(p.listed, p.found, p.official) for p in (train, test)] == [(4, 4, 10_582), (2, 2, 1_449)]
    assert all(p.image.is_file() and p.mask.is_file() for p in (*train.items, *test.items))
    assert [p.mask.name for p in train.items] == ["c.png", "a.png", "z.mat", "y.mat"]
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"/val.txt: names 2 pictures, officially 1449. Unpack VOCtrainval.*--allow-partial"):
            voc.pairs(raw, split, False)


def test_official_sizes(tmp_path, monkeypatch):
    """1 464 and 1 449 in VOC, 8 498 and 2 857 in SBD, of which 9 118 are in neither of VOC's lists: 10 582 and 1 449."""
    train, val, new = ([f"{kind}{i}" for i in range(n)] for kind, n in (("t", 1_464), ("v", 1_449), ("n", 9_118)))
    sbd = new + train[:1_137] + val[:1_100]
    lists = {"ImageSets/Segmentation/train": train, "ImageSets/Segmentation/val": val, "train": sbd[:8_498], "val": sbd[8_498:]}
    for name, listed in lists.items():
        put(tmp_path / ("VOCdevkit/VOC2012" if "/" in name else "benchmark_RELEASE/dataset") / f"{name}.txt", "\n".join(listed).encode())
    there = {*train, *val, *new}
    lost = {}
    monkeypatch.setattr(voc, "_stems", lambda folder, suffix: there - lost.get(suffix, set()))
    found, tested = voc.pairs(tmp_path, "train", False), voc.pairs(tmp_path, "test", False)
    assert [(p.listed, p.found, p.official) for p in (found, tested)] == [(10_582,) * 3, (1_449,) * 3]
    assert not {p.name for p in found.items} & {p.name for p in tested.items}

    lost = {".mat": {"n7", "n9", "t0"}}                           # t0 is VOC's own and needs no mask of SBD
    with pytest.raises(DataMissing, match="n7.mat: not found. 2 of 10582 pictures lack .* Unpack benchmark.tgz .*--allow-partial"):
        voc.pairs(tmp_path, "train", False)
    partial = voc.pairs(tmp_path, "train", True)
    assert (partial.listed, partial.found) == (10_582, 10_580) and not {"n7", "n9"} & {p.name for p in partial.items}

    lost = {".jpg": {"n8"}}                                       # VOC's archive holds the pictures of both
    with pytest.raises(DataMissing, match="JPEGImages/n8.jpg: not found. 1 of 10582 pictures lack .* Unpack VOCtrainval"):
        voc.pairs(tmp_path, "train", False)

    lost, there = {}, there | {"other"}
    put(tmp_path / "benchmark_RELEASE/dataset/val.txt", "\n".join([*sbd[8_498:-1], "other"]).encode())      # instead of one of VOC's val
    with pytest.raises(DataError, match="10583 train pictures, officially 10582"):
        voc.pairs(tmp_path, "train", False)
    with pytest.raises(DataError, match=r"/val.txt: names 1449 pictures, officially 2857. Unpack benchmark.tgz .*--allow-partial"):
        put(tmp_path / "benchmark_RELEASE/dataset/val.txt", "\n".join(val).encode())
        voc.pairs(tmp_path, "train", False)


def test_missing_files(raw):
    base = raw / "VOCdevkit" / "VOC2012"
    (base / "JPEGImages" / "z.jpg").unlink()
    (base / "SegmentationClass" / "a.png").unlink()
    found = voc.pairs(raw, "train", True)
    assert names(found) == [("c", "voc"), ("y", "sbd")] and (found.listed, found.found) == (4, 2)
    put(raw / "benchmark_RELEASE" / "dataset" / "img" / "z.jpg", jpeg())           # SBD brings its pictures in a folder of its own
    assert [p.image.parent.name for p in voc.pairs(raw, "train", True).items] == ["JPEGImages", "img", "JPEGImages"]


def test_nothing_there(raw):
    """Not even --allow-partial makes a split of no picture."""
    base = raw / "VOCdevkit" / "VOC2012"
    for path in base.glob("SegmentationClass/*"):
        path.unlink()
    with pytest.raises(DataMissing, match="b.png: not found. 2 of 2 pictures"):
        voc.pairs(raw, "test", True)
    put(base / "ImageSets" / "Segmentation" / "val.txt", b"")
    with pytest.raises(DataError, match="0 test pictures, officially 1449. Unpack VOCtrainval"):
        voc.pairs(raw, "test", True)
    (base / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataMissing, match="val.txt: not found. Unpack VOCtrainval"):
        voc.pairs(raw, "train", True)


def test_ready_masks_stand_in_for_sbd(raw):
    """A SegmentationClassAug of all splits, here with a Mac's leftover, is used where SBD itself is not there."""
    aug = raw / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    for name in ("z", "y", "x", "w", "v", "u", "a", "b", "._z"):
        put(aug / f"{name}.png", png(MASK_HW, colour=0))
        put(aug.with_name("JPEGImages") / f"{name}.jpg", jpeg())
    assert {source for _, source in names(voc.pairs(raw, "train", True))} == {"voc", "sbd"}
    (raw / "benchmark_RELEASE").rename(raw / "elsewhere")
    found = voc.pairs(raw, "train", True)
    assert names(found) == [("c", "voc"), ("a", "voc"), *((name, "aug") for name in "uvwxyz")] and found.listed == 8
    for pair in found.items:
        assert np.array_equal(voc.load(pair, 8, "stretch")[1], voc.load(found.items[0], 8, "stretch")[1])


def test_without_sbd(raw, monkeypatch):
    monkeypatch.setattr(voc, "VOC_LISTS", {"train.txt": 2, "val.txt": 2})
    (raw / "benchmark_RELEASE").rename(raw / "elsewhere")
    with pytest.raises(DataMissing, match="benchmark_RELEASE: not found. Unpack benchmark.tgz"):
        voc.pairs(raw, "train", False)
    assert names(voc.pairs(raw, "train", True)) == [("c", "voc"), ("a", "voc")]


@pytest.mark.parametrize(("line", "fact"), [
    *((line, "line 3 is .*, not the name of a picture") for line in ("../x", "/etc/x", "a b", "x.jpg", "-x", "\xe9", "..", "x\0", "\x1b[31m")),
    ("d", "line 3 names d again, after line 2"), ("a", "train.txt: names a, which val.txt names too")])
def test_lists_that_are_refused(raw, line, fact):
    put(raw / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt", f"b\nd\n{line}\n".encode())
    with pytest.raises(DataError, match=fact) as e:
        voc.pairs(raw, "train", True)
    assert "ImageSets" in str(e.value) and str(e.value).isprintable()


def test_lists_of_sbd_overlap_and_lists_of_windows(raw):
    put(raw / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt", b"b\r\nd \r\n\r\n")
    assert names(voc.pairs(raw, "test", True)) == [("b", "voc"), ("d", "voc")]
    put(raw / "benchmark_RELEASE" / "dataset" / "val.txt", b"y\nz\n")
    with pytest.raises(DataError, match="names z, which val.txt names too"):
        voc.pairs(raw, "train", True)


def test_mask_takes_the_pixel_at_each_centre(tmp_path):
    """20 columns into 4 cells of 5 pixels: centres 2, 7, 12, 17; 8 rows into 4 cells of 2: the lower of the middle two."""
    columns = np.tile(np.arange(20, dtype=np.uint8), (8, 1))
    rows = np.tile(np.arange(8, dtype=np.uint8)[:, None], (1, 20))
    image = put(tmp_path / "a.jpg", jpeg(8, 20))
    across = voc.load(Pair("a", image, put(tmp_path / "x.png", png(columns)), "voc"), 4, "stretch")[1]
    down = voc.load(Pair("a", image, put(tmp_path / "y.png", png(rows)), "voc"), 4, "stretch")[1]
    assert across.tolist() == [[2, 7, 12, 17]] * 4 and down.T.tolist() == [[1, 3, 5, 7]] * 4


def test_stretch_keeps_no_aspect(pair):
    image, mask, _ = voc.load(pair, 4, "stretch")
    assert image.shape == (4, 4, 3) and mask.shape == (4, 4) and image.dtype == mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1, 1, 255]] * 2 + [[7, 15, 15, 3]] * 2         # columns 3, 9, 15, 21 of 24


def test_letterbox_by_hand(pair):
    """24 x 16 into 12 x 12: a picture of 12 x 8, two rows of void and black above and below."""
    image, mask, _ = voc.load(pair, 12, "letterbox")
    outside = np.r_[0:2, 10:12]
    assert (image[outside] == 0).all() and (mask[outside] == 255).all()
    assert mask[2:10].tolist() == MASK_HW[1::2, 1::2].tolist()
    assert np.abs(image[2:10, :, 0] - (16.0 * np.arange(12) + 4)).max() < 10     # red is 8x: the mean of 8*2k and 8*(2k+1)


def test_letterbox_upright_and_thin(tmp_path):
    """16 x 24 into 12 leaves columns; a line of 1 x 64 keeps one pixel."""
    upright = Pair("a", put(tmp_path / "a.jpg", jpeg(24, 16)), put(tmp_path / "a.png", png(np.zeros((24, 16), np.uint8))), "voc")
    assert (voc.load(upright, 12, "letterbox")[1] == np.repeat([255, 0, 255], [2, 8, 2])).all()
    line = Pair("b", put(tmp_path / "b.jpg", jpeg(64, 1)), put(tmp_path / "b.png", png(np.zeros((64, 1), np.uint8))), "voc")
    assert (voc.load(line, 8, "letterbox")[1] == np.repeat([255, 0, 255], [3, 1, 4])).all()


def test_picture_is_antialiased(tmp_path):
    """Stripes of one pixel, black and white, become grey; taking single pixels would leave black or white."""
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    out = io.BytesIO()
    Image.fromarray(stripes).save(out, "JPEG", quality=100)
    pair = Pair("a", put(tmp_path / "a.jpg", out.getvalue()), put(tmp_path / "a.png", png(np.zeros((64, 64), np.uint8))), "voc")
    image, *_ = voc.load(pair, 8, "stretch")
    assert np.abs(image.astype(int) - 127).max() < 25                       # also: a grey JPEG has three equal channels
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True, "restart_marker_blocks": 1}, {"comment": b"\xff\xd9 no end"}])
def test_other_ways_of_jpeg(pair, options):
    expected, *_ = voc.load(pair, 8, "stretch")
    put(pair.image, jpeg(**options) + b"\0\0trailing bytes")
    assert np.array_equal(voc.load(pair, 8, "stretch")[0], expected)


@pytest.mark.parametrize(("depth", "colour"), [(8, 3), (8, 0), (4, 3)])
def test_masks_are_indices(pair, depth, colour):
    """Palette or grey; a palette of 16 entries has two pixels a byte."""
    labels = np.tile(np.arange(12, dtype=np.uint8), (16, 2))
    put(pair.mask, png(labels, depth, colour, rows=labels[:, ::2] << 4 | labels[:, 1::2] if depth == 4 else None))
    assert np.array_equal(pictures.png_mask(pair.mask), labels)
    put(pair.mask, png(np.full((16, 24), 255, np.uint8), 8, colour))           # nothing but void is allowed
    assert (voc.load(pair, 8, "stretch")[1] == 255).all()


def test_interlaced_mask(pair):
    """Seven passes, each with its rows; a pass without columns has none."""
    for mask_HW in (MASK_HW, MASK_HW[:9, :3], MASK_HW[:1, :1]):
        rows = [row for x, y, across, down in pictures.ADAM7 for row in mask_HW[y::down, x::across] if row.size]
        assert np.array_equal(pictures.png_mask(put(pair.mask, png(mask_HW, rows=rows, interlaced=1))), mask_HW)
        with pytest.raises(DataError, match="whose last rows are missing"):
            pictures.png_mask(put(pair.mask, png(mask_HW, rows=rows[:-1], interlaced=1)))


@pytest.mark.parametrize("options", [{"do_compression": True}, {"do_compression": False}])
def test_sbd_mask_equals_the_png(tmp_path, pair, options):
    """Pixel by pixel, and as scipy reads it."""
    path = put(tmp_path / "a.mat", mat(MASK_HW, **options))
    assert np.array_equal(pictures.mat_mask(path), pictures.png_mask(pair.mask)) and np.array_equal(pictures.mat_mask(path), MASK_HW)
    assert np.array_equal(pictures.mat_mask(path), loadmat(path)["GTcls"]["Segmentation"][0, 0])
    sbd = Pair("a", pair.image, path, "sbd")
    for fit in ("stretch", "letterbox"):
        for one, other in zip(voc.load(sbd, 8, fit), voc.load(pair, 8, fit), strict=True):
            assert np.array_equal(one, other)


def test_mat_of_other_machines_and_with_other_variables(tmp_path):
    """Big-endian, by hand: columns first."""
    field = matrix(9, (2, 3), b"", element(2, bytes([1, 4, 2, 5, 3, 6]), ">"), order=">")
    path = put(tmp_path / "a.mat", gtcls(field, order=">"))
    assert pictures.mat_mask(path).tolist() == [[1, 2, 3], [4, 5, 6]]
    out = io.BytesIO()
    savemat(out, {"before": "text", "GTcls": {"Segmentation": np.array([[1, 2], [3, 4]], np.uint8)}, "after": 1.0}, do_compression=True)   # kept in the tag
    assert pictures.mat_mask(put(path, out.getvalue())).tolist() == [[1, 2], [3, 4]]


def test_same_bytes_for_every_hash_seed(raw, environment):
    """Order of the pictures and all pixels, in two processes that hash differently."""
    code = ("import sys, pathlib, hashlib; from snnseg.data import voc; found = voc.pairs(pathlib.Path(sys.argv[1]), 'train', True);"
            "print([p.name for p in found.items], [hashlib.sha256(a.tobytes()).hexdigest() for p in found.items for a in voc.load(p, 8, 'letterbox')])")
    told = {subprocess.run([sys.executable, "-c", code, str(raw)], env=environment | {"PYTHONHASHSEED": seed},
                           capture_output=True, text=True, check=True).stdout for seed in ("1", "2")}
    assert len(told) == 1 and "['c', 'a', 'z', 'y']" in told.pop()


def refused(pair, file, fact, error=DataError):
    """One line that names the file, the fact and a remedy; no warning (pytest makes those errors), no traceback of Pillow's."""
    with pytest.raises(error, match=fact) as e:
        voc.load(pair, 8, "stretch")
    told = str(e.value)
    assert told.startswith(f"{file}: ") and told.isprintable() and told.endswith(".")


def exif(orientation, cut=None):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()[:cut]


SIZE = jpeg().index(b"\xff\xc0") + 5                       # where a JPEG says how large it is
HUGE = np.broadcast_to(np.uint8(0), (2**13, 2**13))
JPEGS = {
    "empty": (b"", "empty"),
    "a web page": (b"<html>404</html>", "not a JPEG"),
    "png": (png(MASK_HW), "not a JPEG"),
    "cmyk": (jpeg(mode="CMYK"), "a CMYK JPEG"),
    "12 bits": (jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "cannot be decoded .*12"),
    "lossless": (jpeg().replace(b"\xff\xc0", b"\xff\xc3"), "cannot be decoded"),
    "no pixels": (jpeg()[:2] + b"\xff\xd9", "cannot be decoded"),
    "bomb": (jpeg()[:SIZE] + struct.pack(">HH", 65_500, 65_500) + jpeg()[SIZE + 4:], "65500 x 65500 pixels"),
    "exif turned": (jpeg(exif=exif(6)), "EXIF orientation 6"),
    "exif mirrored": (jpeg(exif=exif(2)), "EXIF orientation 2"),
    "exif damaged": (jpeg(exif=exif(6, cut=-12)), "cannot be decoded"),
    "other size": (jpeg(24, 16), "24 x 16 pixels, its picture has 16 x 24"),
}
MASKS = {
    "empty": (b"", "empty"),
    "jpeg": (jpeg(), "not a PNG"),
    "rgb": (png(np.zeros((16, 24), np.uint8), 8, 2, np.zeros((16, 72), np.uint8)), "RGB with 8 bits"),
    "rgb and alpha": (png(np.zeros((16, 24), np.uint8), 8, 6, np.zeros((16, 96), np.uint8)), "RGB and alpha"),
    "16 bits": (png(np.zeros((16, 24), np.uint8), 16, 0, np.zeros((16, 48), np.uint8)), "grey with 16 bits"),
    "4 bits of grey": (png(np.zeros((16, 24), np.uint8), 4, 0, np.zeros((16, 12), np.uint8)), "grey with 4 bits"),
    "bomb": (png(HUGE, rows=HUGE[:1]), "8192 x 8192 pixels"),
    "no pixels": (png(MASK_HW[:0]), "24 x 0 pixels"),
    "rows missing": (png(MASK_HW, rows=MASK_HW[:15]), "whose last rows are missing"),
    "label 21": (png(np.where(MASK_HW == 20, 21, MASK_HW).astype(np.uint8)), "label 21 in 32 pixels"),
    "label 254": (png(np.where(MASK_HW == 255, 254, MASK_HW).astype(np.uint8)), "label 254 in 32 pixels"),
    "other size": (png(MASK_HW.T.copy()), "16 x 24 pixels, its picture has 24 x 16"),
}
PIXELS = element(2, MASK_HW.tobytes(order="F"))
MATS = {
    "empty": (b"", "empty"),
    "png": (png(MASK_HW), "not a MATLAB 5 file"),
    "version 4": (struct.pack("<5i", 0, 2, 3, 0, 6) + b"GTcls\0" + bytes(48), "not a MATLAB 5 file"),
    "version 7.3": (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", r"7.3 file \(HDF5\)"),
    "bare HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(200), r"7.3 file \(HDF5\)"),
    "header alone": (matlab5(), "holds no GTcls"),
    "no GTcls": (matlab5(matrix(9, (16, 24), b"GTinst", PIXELS)), "holds no GTcls"),
    "GTcls no struct": (matlab5(matrix(9, (16, 24), b"GTcls", PIXELS)), "holds no GTcls that is one struct"),
    "GTcls an object": (gtcls(matrix(9, (16, 24), b"", PIXELS), content=3), "holds no GTcls that is one struct"),
    "several structs": (gtcls(matrix(9, (16, 24), b"", PIXELS), shape=(1, 2)), "holds no GTcls that is one struct"),
    "no Segmentation": (gtcls(matrix(9, (16, 24), b"", PIXELS), b"Segments"), "holds no GTcls.Segmentation"),
    "a function": (gtcls(matrix(16, (1, 1), b"", matrix(9, (16, 24), b"", PIXELS))), "a matrix of uint8"),
    "an opaque object": (gtcls(element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"s") * 3)), "damaged"),
    "a cell of masks": (gtcls(matrix(1, (1, 1), b"", matrix(9, (16, 24), b"", PIXELS))), "a matrix of uint8"),
    "doubles": (gtcls(matrix(6, (16, 24), b"", PIXELS)), "a matrix of uint8"),
    "three axes": (gtcls(matrix(9, (16, 8, 3), b"", PIXELS)), "a matrix of uint8"),
    "any width": (gtcls(matrix(9, (16, -1), b"", PIXELS)), "384 bytes for a matrix of"),
    "lying shape": (gtcls(matrix(9, (2**15, 2**15), b"", PIXELS)), "384 bytes for a matrix of"),
    "doubles inside": (gtcls(matrix(9, (16, 24), b"", element(9, PIXELS[8:]))), "type 9 where type 2 belongs"),
    "no pixels": (gtcls(matrix(9, (0, 24), b"", element(2, b""))), "24 x 0 pixels"),
    "lying size": (gtcls(struct.pack("<II", 14, 2**32 - 8)), "damaged"),
    "lying short size": (gtcls(matrix(9, (2, 3), b"", struct.pack("<HHII", 2, 6, 0, 0))), "an element of 6 bytes"),
    "field names of no length": (gtcls(b"").replace(struct.pack("<iii", 5, 4, 16), struct.pack("<iii", 5, 4, 0)), "damaged"),
    "field names without end": (matlab5(matrix(2, (1, 1), b"GTcls", element(5, b"\1\0\0\0"), element(1, bytes(5000)))), "5000 bytes of field names"),
    "axes without end": (matlab5(matrix(9, (1,) * 40, b"GTcls")), "damaged or cut off .40 axes"),
    "variables without end": (matlab5(*[matrix(9, (1, 1), b"x")] * 20, gtcls(matrix(9, (16, 24), b"", PIXELS))[128:]), "holds no GTcls"),
    "no matrix": (matlab5(element(2, bytes(8))), "type 2 where a matrix belongs"),
    "compressed nothing": (matlab5(element(15, zlib.compress(b""))), "type None where a matrix belongs"),
    "compressed garbage": (matlab5(struct.pack("<II", 15, 40), bytes(40)), "damaged"),
    "label 21": (mat(np.full((16, 24), 21, np.uint8)), "label 21 in 384 pixels"),
    "other size": (mat(MASK_HW[1:]), "24 x 15 pixels, its picture has 24 x 16"),
}


FAULTS = {"a.jpg": JPEGS, "a.png": MASKS, "a.mat": MATS}


@pytest.mark.parametrize(("file", "fault"), [(file, fault) for file, faults in FAULTS.items() for fault in faults])
def test_files_that_are_refused(pair, tmp_path, file, fault):
    data, fact = FAULTS[file][fault]
    bad = put(tmp_path / file, data)
    refused(pair if file == "a.jpg" else Pair("a", pair.image, bad, "voc"), pair.mask if fault == "other size" and file == "a.jpg" else bad, fact)


def test_faults_above_are_the_only_ones(pair, tmp_path):
    """What the builders make is read when it is whole, an upright tag is none, and odd but whole shapes are taken."""
    put(pair.image, jpeg(exif=exif(1)))
    put(pair.mask, png(MASK_HW, 8, 0))
    expected = voc.load(pair, 8, "stretch")[1]
    sbd = Pair("a", pair.image, put(tmp_path / "a.mat", gtcls(matrix(9, (16, 24), b"", PIXELS))), "sbd")
    assert np.array_equal(voc.load(sbd, 8, "stretch")[1], expected)


@pytest.mark.parametrize("suffix", ["jpg", "progressive.jpg", "png", "mat", "v6.mat"])
def test_cut_off_anywhere(pair, tmp_path, suffix):
    """Every beginning of a file is refused, however near to its end it was cut."""
    whole = {"jpg": jpeg(exif=exif(1) + b"\xff\xd8thumbnail\xff\xd9"), "progressive.jpg": jpeg(progressive=True), "png": png(MASK_HW),
             "mat": mat(MASK_HW, do_compression=True), "v6.mat": gtcls(matrix(9, (16, 24), b"", PIXELS))}[suffix]
    path = tmp_path / f"b.{suffix}"
    cut = Pair("b", path, pair.mask, "voc") if suffix.endswith("jpg") else Pair("b", pair.image, path, "voc")
    put(path, whole)
    voc.load(cut, 8, "stretch")
    for length in range(len(whole)):
        put(path, whole[:length])
        refused(cut, path, "empty|not a|cut off|holds no")                   # found by us: Pillow takes some without their end mark


@pytest.mark.parametrize("suffix", ["jpg", "png", "mat", "v6.mat"])
def test_altered_anywhere(pair, tmp_path, suffix):
    """Any byte may be wrong: a refusal or a picture, and where there are checksums never another mask."""
    whole = {"jpg": jpeg(exif=exif(1)), "png": png(MASK_HW), "mat": mat(MASK_HW, do_compression=True), "v6.mat": mat(MASK_HW)}[suffix]
    path = tmp_path / f"b.{suffix}"
    altered = Pair("b", path, pair.mask, "voc") if suffix.endswith("jpg") else Pair("b", pair.image, path, "voc")
    expected = voc.load(pair, 8, "stretch")[1]
    rng = np.random.default_rng(0)
    refusals = 0
    for at in rng.permutation(len(whole))[:1000]:
        data = bytearray(whole)
        data[at] ^= int(rng.integers(1, 256))
        put(path, bytes(data))
        try:
            mask = voc.load(altered, 8, "stretch")[1]
            assert suffix == "v6.mat" or np.array_equal(mask, expected)
        except DataError as e:
            refusals += 1
            assert str(path) in str(e) or suffix == "jpg"
    assert refusals > 50 and (suffix != "png" or refusals == len(whole))      # all of a PNG is under a checksum


def test_missing_or_no_file(pair):
    for path in (pair.image, pair.mask):
        kept = path.rename(path.with_name("kept"))
        refused(pair, path, "not found", DataMissing)
        os.mkfifo(path)                                                      # would wait for a writer for ever
        refused(pair, path, "not a plain file")
        kept.replace(path)


def test_oversized_files_and_bombs_keep_memory_flat(pair, tmp_path):
    """A .mat that unpacks to 300 MiB is left at 64 MiB, and a file of more than that is not read."""
    packed = zlib.compress(bytes(300 * 2**20), 1)
    bomb = Pair("a", pair.image, put(tmp_path / "a.mat", matlab5(struct.pack("<II", 15, len(packed)), packed)), "sbd")
    with open(tmp_path / "b.png", "wb") as f:
        f.truncate(2**33)                                                    # takes no room on the disk
    tracemalloc.start()
    refused(bomb, bomb.mask, "more than 64 MiB")
    refused(Pair("b", pair.image, tmp_path / "b.png", "voc"), tmp_path / "b.png", "more than 64 MiB")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 2**20


def test_deep_nesting_is_passed_over(tmp_path):
    """Cells in cells, 20 000 deep, where scipy's reader ends the process: beside the mask they are never entered."""
    start = matrix(1, (1, 1), b"")[8:]
    cells = b"".join(struct.pack("<II", 14, depth * (8 + len(start)) - 8) + start for depth in range(20_000, 0, -1))
    assert np.array_equal(pictures.mat_mask(put(tmp_path / "a.mat", gtcls(matrix(9, (16, 24), b"", PIXELS), edges=cells))), MASK_HW)
    with pytest.raises(DataError, match="a matrix of uint8"):
        pictures.mat_mask(put(tmp_path / "b.mat", gtcls(cells)))
