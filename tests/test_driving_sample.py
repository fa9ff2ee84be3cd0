"""The simulated drive: files as those of DDD17, labels of the right moment, a sensor that follows its equations, equal bytes."""
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snnseg import seeds
from snnseg.data import ddd17, ddd17_export, driving_sample
from snnseg.data.event_camera import EventCamera, Sensor

QUIET = Sensor(threshold=0.2, deviation=0.03, refractory_us=0, noise_hz=0)
SMALL = (5, 4, 3)       # frames to train and to test, seed


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    driving_sample.write(folder, *SMALL)
    return folder


def recorded(raw: Path, number: int):
    """Events t, x, y, p of a recording and the number of the frame of each; nothing in it is left out."""
    path = raw / "ddd17" / f"rec{number:010d}.hdf5"
    pieces = list(ddd17.pieces(path))
    assert all(p.total == len(p.t) and p.invalid == p.outside == 0 for p in pieces)
    t, x, y, p = (np.concatenate([getattr(piece, c) for piece in pieces]) for c in "txyp")
    return t, x, y, p, ddd17.frame_index(t, ddd17.first_time(path))


def street(number: int, frames: int, seed: int = SMALL[2]):
    return driving_sample.scene(seed, number, frames * 0.05)


def digest(raw: Path) -> dict[str, str]:
    return {p.relative_to(raw).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(raw.rglob("*")) if p.is_file()}


TABLE = driving_sample.recordings(*SMALL[:2])


def test_frames_are_shared_among_recordings_of_no_real_name():
    assert TABLE == [("train", 1, 2), ("train", 2, 1), ("train", 3, 1), ("train", 4, 1), ("test", 5, 2), ("test", 6, 2)]
    assert driving_sample.recordings(2, 1) == [("train", 1, 1), ("train", 2, 1), ("test", 3, 1)]
    assert not {i.recording for i in ddd17_export.intervals()} & {f"rec{number:010d}" for _, number, _ in driving_sample.recordings(240, 64)}
    for counts in ((1, 1), (2, 0)):
        with pytest.raises(ValueError, match="at least two and one"):
            driving_sample.recordings(*counts)


@pytest.mark.parametrize("split, number, frames", TABLE)
def test_a_recording_reads_as_one_of_ddd17_does(raw, split, number, frames):
    t, _, y, p, frame = recorded(raw, number)
    assert (np.diff(t) >= 0).all()
    count = np.bincount(frame, minlength=frames)
    assert len(count) == frames and frame.min() == 0
    assert count.min() > 1_000 and count.max() < 100_000
    assert 0.3 < p.mean() < 0.7
    assert (y < ddd17.ROWS).mean() > 0.9, "the bonnet makes none but noise"


@pytest.mark.parametrize("split, number, frames", TABLE)
def test_pictures_come_from_the_start_on(raw, split, number, frames):
    path = raw / "ddd17" / f"rec{number:010d}.hdf5"
    start, pictures = ddd17.first_time(path), list(ddd17.frames(path))
    assert [f.t - start for f in pictures] == list(range(0, frames * ddd17.BIN_US, driving_sample.APS_FRAMES * ddd17.BIN_US))
    for picture in pictures:
        log_HW, _ = driving_sample.render(street(number, frames), picture.t - start)
        assert picture.valid and picture.image_HW.shape == ddd17.SENSOR
        assert np.array_equal(picture.image_HW, np.rint(255 * np.exp(log_HW.clip(max=0))))
        assert picture.image_HW.std() > 20


def test_labels_have_the_names_and_the_form_of_the_export(raw):
    expected = {f"{split}/rec{number:010d}_export_{k}.png" for split, number, frames in TABLE for k in range(frames)}
    labels = raw / "ddd17" / "labels"
    assert {p.relative_to(labels).as_posix() for p in labels.rglob("*.png")} == expected
    assert sorted(p.name for p in (raw / "ddd17").iterdir()) == ["labels", *(f"rec{number:010d}.hdf5" for _, number, _ in TABLE)]
    for name in expected:
        label_HW = ddd17_export.read_label(labels / name)
        assert label_HW.shape == ddd17_export.SIZE and label_HW.max() <= 5
        with Image.open(labels / name) as picture:
            assert (picture.mode, picture.size) == ("L", (346, 200))


@pytest.mark.parametrize("split, number, frames", [row for row in TABLE if row[2] > 1])
def test_a_label_shows_the_end_of_its_frame(raw, split, number, frames):
    for k in range(frames):
        label_HW = ddd17_export.read_label(raw / "ddd17" / "labels" / split / f"rec{number:010d}_export_{k}.png")
        assert np.array_equal(label_HW, driving_sample.render(street(number, frames), (k + 1) * ddd17.BIN_US)[1])
        assert not np.array_equal(label_HW, driving_sample.render(street(number, frames), k * ddd17.BIN_US)[1])


@pytest.mark.parametrize("split, number, frames", [row for row in TABLE if row[2] > 1])
def test_events_tell_how_the_picture_changed_in_their_frame(raw, split, number, frames):
    _, x, y, p, frame = recorded(raw, number)
    for k in range(frames):
        net_HW = np.zeros(ddd17.SENSOR)
        np.add.at(net_HW, (y[frame == k], x[frame == k]), 2.0 * p[frame == k] - 1)
        before_HW, after_HW = (driving_sample.render(street(number, frames), t * ddd17.BIN_US)[0] for t in (k, k + 1))
        change_HW = after_HW - before_HW
        clear = np.abs(change_HW) > 3 * driving_sample.SENSOR.threshold
        assert clear.sum() > 100
        assert (np.sign(net_HW) == np.sign(change_HW))[clear].mean() > 0.95


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_all_classes_are_in_both_splits_of_the_default_sample(seed):
    """Every eighth label; flat, sky, nature and vehicles are a good part."""
    for wanted in ("train", "test"):
        labels = [driving_sample.render(street(number, frames, seed), (k + 1) * ddd17.BIN_US)[1]
                  for split, number, frames in driving_sample.recordings(240, 64) if split == wanted for k in range(0, frames, 8)]
        share_C = np.bincount(np.concatenate(labels, axis=None), minlength=6) / np.concatenate(labels, axis=None).size
        assert len(share_C) == 6 and (share_C > 0.003).all()
        assert (share_C[[0, 1, 3, 5]] > 0.05).all()


def test_equal_bytes_in_any_process_and_an_earlier_sample_is_replaced(raw, tmp_path):
    program = "import sys, pathlib; from snnseg.data import driving_sample; driving_sample.write(pathlib.Path(sys.argv[1]), 5, 4, 3)"
    (tmp_path / "ddd17" / "labels" / "train").mkdir(parents=True)
    for stale in ("rec0000000009.hdf5", "labels/train/rec0000000001_export_77.png"):
        (tmp_path / "ddd17" / stale).touch()
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True,
                   env=os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONPATH": str(Path(__file__).parent.parent)})
    assert digest(tmp_path) == digest(raw)


def test_another_seed_gives_other_bytes_of_every_file(raw, tmp_path):
    driving_sample.write(tmp_path, 5, 4, 4)
    one, other = digest(raw), digest(tmp_path)
    assert one.keys() == other.keys() and all(one[name] != other[name] for name in one)
    assert len(set(one.values())) == len(one), "recordings differ from one another"


def grey(value: float, shape: tuple[int, int] = (6, 7)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def camera(sensor: Sensor, first: np.ndarray, t: int = 0) -> EventCamera:
    return EventCamera(sensor, first, t, seeds.generator("test", 1))


def test_a_still_scene_makes_no_events_without_noise():
    log_HW, _ = driving_sample.render(street(1, 1), 0)
    eye = camera(QUIET, log_HW)
    assert all(len(eye.see(log_HW, t)[0]) == 0 for t in (1, 50_000, 10**9))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_of_three_and_a_half_thresholds_makes_three_events_in_each_pixel(sign):
    eye = camera(Sensor(0.2, 0.0, 1_000, 0.0), grey(-1.0), 500)
    t, x, y, p = eye.see(grey(-1.0 + sign * 0.7), 10_500)
    assert [c.dtype for c in (t, x, y, p)] == [np.int64, np.uint16, np.uint16, np.uint8]
    count_HW = np.zeros((6, 7), int)
    np.add.at(count_HW, (y, x), 1)
    assert (count_HW == 3).all() and (p == (sign > 0)).all()
    assert np.abs(t.reshape(3, -1) - (500 + 10_000 * np.array([[2], [4], [6]]) / 7)).max() <= 1, "where the line crosses"
    # 0.1 is left of the last threshold and 0.1 more makes one event, or back by 0.3 one of the other sign
    assert len(eye.see(grey(-1.0 + sign * 0.79), 20_000)[0]) == 0
    assert len(eye.see(grey(-1.0 + sign * 0.81), 30_000)[0]) == 42
    assert (eye.see(grey(-1.0 + sign * 0.59), 40_000)[3] == (sign < 0)).sum() == 42


def test_each_pixel_has_thresholds_of_its_own():
    eye = camera(QUIET, grey(0, (40, 40)))
    _, x, y, _ = eye.see(grey(4.0, (40, 40)), 10**6)
    count_HW = np.zeros((40, 40))
    np.add.at(count_HW, (y, x), 1)
    assert np.array_equal(count_HW, np.floor(4 / eye.threshold_2HW[0])) and count_HW.std() > 1


def test_the_refractory_time_limits_the_rate_and_the_memory_goes_on():
    eye = camera(Sensor(0.1, 0.0, 1_000, 0.0), grey(0.0))
    t, x, y, _ = eye.see(grey(10.05), 10_000)       # a hundred crossings in ten times the refractory time
    assert 9 * 42 <= len(t) <= 10 * 42
    one = t[(x == 3) & (y == 2)]
    assert (np.diff(one) >= 1_000).all()
    assert len(eye.see(grey(10.06), 20_000)[0]) == 0, "what was dropped does not come later"


def test_noise_comes_at_its_rate_within_the_time():
    eye = camera(Sensor(0.2, 0.03, 1_000, 5.0), grey(0, (100, 100)))
    t, x, y, p = eye.see(grey(0, (100, 100)), 10**6)
    assert abs(len(t) - 50_000) < 5 * 50_000**0.5
    assert 0 <= t[0] and t[-1] < 10**6 and (np.diff(t) >= 0).all() and x.max() == y.max() == 99
    assert abs(p.mean() - 0.75) < 0.02


def test_time_goes_on():
    with pytest.raises(ValueError, match=re.escape("a picture at 5 us after one at 5 us")):
        camera(QUIET, grey(0), 5).see(grey(0), 5)
