"""Driving recordings with labels from a simulated street, in the raw layout of DDD17, for machines without downloads.

A car with an event camera drives down a street of textured ground, boxes and boards: buildings, trees, hedges, poles,
signs, pedestrians, cars. A picture and its labels come from one render, so labels fit to the pixel. Each recording has
its own street, speed, bend and light, from (seed, number of the recording) alone.

Lengths are metres: x to the right of the camera, y above the ground, s along the street, z = s ahead of the camera.
Brightness is log intensity, 0 = white.
"""
from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from snnseg import seal, seeds
from snnseg.data import ddd17
from snnseg.data.compiled import compiled
from snnseg.data.ddd17_export import SIZE
from snnseg.data.event_camera import EventCamera, Sensor

SENSOR = Sensor(threshold=0.3, deviation=0.04, refractory_us=1_000, noise_hz=0.1)
RECORDINGS = {"train": 4, "test": 2}
RENDERS = 8                     # pictures in a frame of 50 ms, which they divide: what is near moves by some pixels between two
APS_FRAMES = 4                  # frames of 50 ms from one APS picture to the next: each is as large as the events of a frame
FOCAL, CENTRE, HORIZON, EYE = 300.0, 172.5, 88.0, 1.4       # pixels, and the camera's height
NEAR, FAR = 1.2, 120.0          # nothing is drawn nearer or farther
HAZE, BONNET = -0.9, -3.0       # log intensity of what is far, and of the car's own bonnet
LANE, ROAD, PAVEMENT = (-4.8, -1.6, 1.6), (-6.9, 3.7), (-9.4, 6.2)      # x of lines, kerbs and ends of the pavements
FLAT, BUILT, OBJECT, NATURE, HUMAN, VEHICLE = range(6)
BUILDING, TREE, HEDGE, POLE, SIGN, PERSON, CAR = range(7)
CLASS_OF = np.array([BUILT, NATURE, NATURE, OBJECT, OBJECT, HUMAN, VEHICLE], np.uint8)
KIND, S, LENGTH, X0, X1, HEIGHT, SPEED, SWING, TONE, PHASE = range(10)      # columns of Scene.things
CELLS, CLEAR = 256, math.nan    # a side of the table of noise; what a thing shows where one sees past it


@dataclass(frozen=True)
class Scene:
    """A street and a drive on it; speeds in m/s."""

    things: np.ndarray      # f64 [N, 10]: kind, s at t = 0, extents, speed along s, how far it swings about that, looks
    noise: np.ndarray       # f32 [256, 256], -1 to 1, periodic: all textures
    speed: float
    sway: np.ndarray        # phases of pitch, shake and yaw [3]
    looks: np.ndarray       # half the street's curvature (1/m), light added to all but the sky, the sky's own, contrast [4]


def scene(seed: int, number: int, seconds: float) -> Scene:
    """The street of a recording that lasts so long."""
    rng, things = seeds.generator("driving scene", seed, number), []
    own = rng.uniform(6.5, 8.5)

    def row(kind: int, start: float, gap: float, edge: float, away: tuple[float, float], width: tuple[float, float], height: tuple[float, float],
            length: tuple[float, float] = (0, 0), speed: tuple[float, float] = (0, 0)) -> None:
        """Things along the street, as far as one will see; what is given in pairs is drawn between the two."""
        s = np.arange(start, FAR + (own - speed[0]) * seconds, gap)
        away_N, wide, high, long, fast, late, tone, phase = (rng.uniform(*pair, len(s)) for pair in (
            away, width, height, length, speed, (0, 0.4 * gap), (0, 1), (0, 100)))
        x = edge + math.copysign(1, edge) * away_N      # away from the middle of the street
        things.append(np.stack([np.full(len(s), kind), s + late, long, x - wide / 2, x + wide / 2, high, fast, 0 * s, tone, phase], axis=1))

    for kerb, end in zip(ROAD, PAVEMENT, strict=True):
        row(BUILDING, -20, 24, end, away=(9, 13), width=(10, 10), height=(6, 13), length=(10, 15))
        row(TREE, -4, 11, end, away=(0.5, 2), width=(3.5, 5), height=(5, 8))
        row(HEDGE, -6, 8, end, away=(1.6, 3), width=(2, 4), height=(0.8, 1.6))
        row(POLE, 0, 21, kerb, away=(0.4, 0.4), width=(0.2, 0.2), height=(5, 7))
        row(SIGN, 6, 17, kerb, away=(0.7, 0.7), width=(0.8, 0.8), height=(2.4, 3))
        row(PERSON, 5, 6, kerb, away=(0.7, 1.9), width=(0.7, 0.7), height=(1.6, 1.85), speed=(-1.4, 1.4))
        row(CAR, -3, 26, kerb, away=(-1.1, -1.1), width=(1.8, 1.8), height=(1.4, 1.7), length=(3.8, 4.6))
    row(CAR, 12, 30, LANE[1], away=(1.5, 1.7), width=(1.8, 1.8), height=(1.4, 1.9), length=(3.8, 4.6), speed=(-9, -7))
    things.append(np.array([[CAR, rng.uniform(9, 13), 4.2, -0.9, 0.9, 1.5, own, 2.2, rng.random(), rng.uniform(0, 100)]]))      # ahead in the same lane
    table = np.array(sorted(np.concatenate(things), key=lambda thing: thing[S]))    # what is near hides the rest, which then costs nothing
    return Scene(table, rng.uniform(-1, 1, (CELLS, CELLS)).astype(np.float32), own, rng.uniform(0, 2 * np.pi, 3),
                 rng.uniform((-6e-4, -0.35, -0.35, 0.7), (6e-4, 0.15, 0.0, 0.8)))


def render(scene: Scene, t: int) -> tuple[np.ndarray, np.ndarray]:
    """The street t us after the start: log intensity f32 [260, 346] and classes u8 [200, 346] of its top rows."""
    time = t * 1e-6
    pitch, shake, yaw = np.sin(2 * np.pi * time * np.array([1.3, 3.1, 0.35]) + scene.sway) * (1.2, 0.5, 3.0)     # pixels
    log_HW, label_HW = np.full(ddd17.SENSOR, BONNET, np.float32), np.empty(SIZE, np.uint8)
    top = log_HW[:SIZE[0]]
    _paint(scene.things, scene.noise, time, scene.speed * time, CENTRE + yaw, HORIZON + pitch + shake, scene.looks, top, label_HW)
    # edges of two pixels, as behind a lens: without them each crosses a pixel in one jump
    top[1:-1] = 0.25 * (top[:-2] + top[2:]) + 0.5 * top[1:-1]
    top[:, 1:-1] = 0.25 * (top[:, :-2] + top[:, 2:]) + 0.5 * top[:, 1:-1]
    return log_HW, label_HW


def recordings(train: int, test: int) -> list[tuple[str, int, int]]:
    """Split, number and frames of each recording. Raises ValueError for fewer than two frames to train or one to test."""
    if train < 2 or test < 1:
        raise ValueError(f"{train} frames to train and {test} to test, at least two and one are needed")
    found: list[tuple[str, int, int]] = []
    for split, frames in (("train", train), ("test", test)):
        parts = np.array_split(np.arange(frames), min(frames, RECORDINGS[split]))
        found += [(split, number, len(part)) for number, part in enumerate(parts, len(found) + 1)]
    return found


def write(raw: Path, train: int, test: int, seed: int) -> None:
    """Write recordings of `train` and `test` frames of 50 ms below raw/ddd17, and a label for each frame.

    rec<number>.hdf5 begins with an APS picture, from which frames are counted: frame k holds the events of [k, k + 1) 50 ms.
    labels/<split>/rec<number>_export_<k>.png, u8 [200, 346], shows the classes of `ddd17_export` at the frame's end. What an
    earlier sample left there is replaced. The bytes depend on the arguments alone. Raises ValueError as `recordings`.
    """
    table, root = recordings(train, test), Path(raw) / "ddd17"
    for old in (*root.glob("rec000000000?.hdf5"), *root.glob("labels/*/rec000000000?_export_*.png")):
        old.unlink()
    for split, number, frames in table:
        (root / "labels" / split).mkdir(parents=True, exist_ok=True)
        street = scene(seed, number, frames * ddd17.BIN_US * 1e-6)
        _record(root, f"labels/{split}", f"rec{number:010d}", street, frames, seeds.generator("driving camera", seed, number))


def _record(root: Path, labels: str, name: str, street: Scene, frames: int, rng: np.random.Generator) -> None:
    """Write one recording and its labels."""
    start = int(rng.integers(100_000, 1_000_000))       # a recorder's clock runs before the first event comes
    log_HW, _ = render(street, 0)
    camera = EventCamera(SENSOR, log_HW, start, rng)
    file = io.BytesIO()         # HDF5's own code does not survive a full disk
    with ddd17.Writer(file) as writer:
        for frame in range(frames):
            t = frame * ddd17.BIN_US
            if frame % APS_FRAMES == 0:
                writer.frame(start + t, np.rint(255 * np.exp(np.minimum(log_HW, 0))).astype(np.uint8))
            for _ in range(RENDERS):
                t += ddd17.BIN_US // RENDERS
                log_HW, label_HW = render(street, t)
                writer.events(*camera.see(log_HW, start + t))
            label = io.BytesIO()
            Image.fromarray(label_HW).save(label, "PNG")
            (root / labels / f"{name}_export_{frame}.png").write_bytes(label.getvalue())
    seal.write_file(root / f"{name}.hdf5", file.getvalue())


@compiled
def _noise(noise, a, b):
    """Value of the periodic table between its cells, -1 to 1."""
    i, j = math.floor(a), math.floor(b)
    u, v = a - i, b - j
    i0, j0, i1, j1 = i & CELLS - 1, j & CELLS - 1, i + 1 & CELLS - 1, j + 1 & CELLS - 1
    return (1 - u) * ((1 - v) * noise[i0, j0] + v * noise[i0, j1]) + u * ((1 - v) * noise[i1, j0] + v * noise[i1, j1])


@compiled
def _grain(noise, a, b, cell, pixel):
    """Noise with cells of `cell` m, fading out where a pixel covers more than one: it would flicker there."""
    fade = min(1.0, 1.6 - pixel / cell)
    return fade * _noise(noise, a / cell, b / cell) if fade > 0 else 0.0


@compiled
def _ground(noise, x, s, wide, deep):
    """Brightness and class of the ground at (x, s), where a pixel covers wide x deep metres."""
    if ROAD[0] < x < ROAD[1]:
        value = -1.6 + 0.4 * _grain(noise, x, s, 0.2, deep) + 0.2 * _grain(noise, x, s, 1.2, deep)
        half = max(0.08, 0.6 * wide)
        if abs(x - LANE[1]) < half and s % 6 < 3 or abs(x - LANE[0]) < half or abs(x - LANE[2]) < half:
            value += 1.1 * min(1.0, 0.12 / half)
        return value, FLAT
    if PAVEMENT[0] < x < PAVEMENT[1]:
        slab = noise[int(s // 0.9) % CELLS, int(x // 0.9) % CELLS] * max(0.0, min(1.0, 1.5 - deep / 0.9))
        return (-0.6 if ROAD[0] - 0.18 < x < ROAD[1] + 0.18 else -1.05) + 0.25 * slab + 0.2 * _grain(noise, x, s, 0.25, deep), FLAT
    return -1.9 + 0.8 * _grain(noise, x, s, 0.3, deep) + 0.4 * _grain(noise, x, s, 0.9, deep), NATURE


@compiled
def _surface(noise, kind, side, a, b, width, height, tone, phase, time, pixel):
    """Brightness of a thing at (a, b) m from its lower left corner; `side` is its face along the street. CLEAR beside it."""
    mid = a - width / 2
    if kind == BUILDING:
        window = 0.7 < a % 2.6 < 1.9 and 0.9 < b % 3.0 < 2.4 and height - b > 0.8
        return (-2.3 if window else -0.7 - 0.7 * tone - 0.25 * side) + 0.25 * _grain(noise, a + phase, b, 0.5, pixel)
    if kind == TREE or kind == HEDGE:
        middle = 0.62 * height if kind == TREE else 0.0
        rough = _noise(noise, a / 0.45 + phase, b / 0.45)
        if (2 * mid / width) ** 2 + ((b - middle) / (height - middle)) ** 2 + 0.4 * rough < 0.85:
            return -2.0 + 0.4 * tone + 0.8 * _grain(noise, a + phase, b, 0.25, pixel) + 0.4 * rough + 0.3 * (b - middle) / height
        return -2.5 if kind == TREE and abs(mid) < max(0.16, 0.7 * pixel) and b < middle else CLEAR
    if kind == POLE:
        return -2.2
    if kind == SIGN:
        disc = mid * mid + (b - height + 0.4) ** 2
        return -0.1 if disc < 0.08 else -1.9 if disc < 0.16 or abs(mid) < max(0.05, 0.7 * pixel) and b < height - 0.4 else CLEAR
    if kind == PERSON:
        part = b / height
        if part > 0.86:
            return -1.0 if mid * mid + ((part - 0.93) * height) ** 2 < 0.016 else CLEAR
        if part > 0.47:
            return (-0.3 - 1.9 * tone) + 0.3 * _grain(noise, a + phase, b, 0.15, pixel) if abs(mid) < 0.25 else CLEAR
        stride = 0.25 * math.sin(6.0 * time + phase) * (0.47 - part) / 0.47
        return -2.4 + 0.9 * tone if abs(mid - stride) < 0.1 or abs(mid + stride) < 0.1 else CLEAR
    body, belt = -0.4 - 1.5 * tone, 0.58 * height       # of a car
    if b > belt:
        edge = width / 2 - (0.4 + 1.1 * (b - belt) if side else 0.1 + 0.35 * (b - belt))
        return CLEAR if abs(mid) > edge else body if b > height - 0.1 or abs(mid) > edge - 0.1 or side and abs(mid) < 0.06 else -2.3
    if (width / 2 - 0.75 - abs(mid)) ** 2 + (b - 0.32) ** 2 < 0.11 if side else b < 0.3 and abs(mid) > width / 2 - 0.22:
        return -2.6     # a wheel
    if not side and (b > belt - 0.25 and abs(mid) > width / 2 - 0.35 or 0.35 < b < 0.48 and abs(mid) < 0.26):
        return -0.1     # lamps and plate
    return -2.6 if b < 0.22 else body - 0.25 * (b < 0.5)


@compiled
def _paint(things, noise, time, way, u0, v0, looks, log_HW, label_HW):
    """Draw all things by depth, then ground and sky where none is. (u0, v0) is the vanishing point in pixels."""
    (rows, columns), (bend, light, sky, contrast) = label_HW.shape, looks
    depth_HW = np.full((rows, columns), np.inf, np.float32)
    for thing in things:
        z0 = thing[S] + thing[SPEED] * time + thing[SWING] * math.sin(1.2 * time + thing[PHASE]) - way
        z1 = z0 + thing[LENGTH]
        if z1 < NEAR or z0 > FAR:
            continue
        kind, tone, phase, height = int(thing[KIND]), thing[TONE], thing[PHASE], thing[HEIGHT]
        top = height * min(1.0, (FAR - z0) / 30)        # far things rise from the skyline, so that none pops up
        shift = bend * (z0 + z1) ** 2 / 4
        x0, x1 = thing[X0] + shift, thing[X1] + shift
        slack = max(0.0, 0.7 * z0 / FOCAL - (x1 - x0) / 2)      # no pole thinner than a pixel
        x = x0 if x0 > 0 else x1
        for side in (False, True):
            if side and (z1 == z0 or x0 <= 0 <= x1) or not side and z0 <= NEAR:
                continue        # there is none, or it is not seen
            left, right = (x / z1, x / max(z0, NEAR)) if side else ((x0 - slack) / z0, (x1 + slack) / z0)
            for u in range(max(0, math.ceil(u0 + FOCAL * min(left, right))), min(columns, math.ceil(u0 + FOCAL * max(left, right)))):
                z = FOCAL * x / (u - u0) if side else z0
                pixel = z / FOCAL
                a, wide = (z - z0, pixel * max(1.0, z / abs(x))) if side else ((u - u0) * pixel - x0, pixel)
                for v in range(max(0, math.ceil(v0 + (EYE - top) / pixel)), min(rows, math.ceil(v0 + EYE / pixel))):
                    if z < depth_HW[v, u]:
                        b = EYE - (v - v0) * pixel + height - top
                        value = _surface(noise, kind, side, a, b, z1 - z0 if side else x1 - x0, height, tone, phase, time, wide)
                        if not math.isnan(value):
                            depth_HW[v, u], log_HW[v, u], label_HW[v, u] = z, value, CLASS_OF[kind]
    for v in range(rows):
        z = EYE * FOCAL / (v - v0) if v > v0 else np.inf
        wide = z / FOCAL
        for u in range(columns):
            if depth_HW[v, u] < np.inf:
                depth, value = depth_HW[v, u], log_HW[v, u]
            elif z < FAR:
                depth = z
                value, label_HW[v, u] = _ground(noise, (u - u0) * wide - bend * z * z, z + way, wide, z * wide / EYE)
            elif v > v0 - 7 - 5 * _noise(noise, (u - u0) / 30, 0.5):
                depth, label_HW[v, u] = FAR, NATURE
            else:
                log_HW[v, u], label_HW[v, u] = sky + 0.2 * _noise(noise, (u - u0) / 50, (v - v0) / 20), BUILT
                continue
            keep = contrast * max(0.0, 1 - (depth / FAR) ** 2)
            log_HW[v, u] = light + HAZE + keep * (value - HAZE)
