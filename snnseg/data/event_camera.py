"""An event camera that looks at rendered pictures: each pixel tells when its log intensity has changed by a threshold.

Between two pictures the log intensity is taken as linear, and each crossing gets its own time, as in ESIM (Rebecq, Gehrig
and Scaramuzza, "ESIM: an Open Event Camera Simulator", 2018): an event within the refractory time of the pixel's last one
is dropped, and the pixel's memory moves on all the same. As in v2e (Hu, Liu and Delbruck, "v2e: From Video Frames to
Realistic DVS Events", 2021) each pixel has thresholds of its own, and noise comes at a low rate without any change.

The pixel's bandwidth, which blurs fast changes in the dark, is left out.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snnseg.data.compiled import compiled

Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
LEAST = 0.05        # a threshold drawn lower than this is raised to it: at 0 a pixel would never stop
LEAK_SHARE = 0.75   # of the noise is ON: leaks only pull that way, shot noise goes both ways


@dataclass(frozen=True)
class Sensor:
    """What a sensor is like: thresholds in log intensity and their deviation over pixels, us, noise events per pixel and s."""

    threshold: float = 0.2
    deviation: float = 0.03
    refractory_us: int = 1_000
    noise_hz: float = 0.2


class EventCamera:
    """A sensor that has seen log_HW (float32) at t us and knows nothing before. `rng` makes its thresholds and its noise."""

    def __init__(self, sensor: Sensor, log_HW: np.ndarray, t: int, rng: np.random.Generator):
        self.sensor, self.rng, self.t, self.log_HW = sensor, rng, t, log_HW.copy()
        self.memory_HW = log_HW.astype(np.float64)
        self.threshold_2HW = rng.normal(sensor.threshold, sensor.deviation, (2, *log_HW.shape)).clip(LEAST)
        self.most_HW = 1.001 / self.threshold_2HW.min(axis=0)      # events per change, or some more: never less by rounding
        self.last_HW = np.full(log_HW.shape, t - sensor.refractory_us, np.int64)

    def see(self, log_HW: np.ndarray, t: int) -> Events:
        """Events since the last picture, up to log_HW (float32) at t us, which is not among their times.

        t int64 [N] in us, never falling; x and y u16 [N] from the upper left; p u8 [N], 1 = ON, brighter. Raises
        ValueError if time does not go on.
        """
        if t <= self.t:
            raise ValueError(f"a picture at {t} us after one at {self.t} us")
        room = int((np.abs(log_HW - self.memory_HW) * self.most_HW).sum()) + 1
        seen = _crossings(self.log_HW, log_HW, self.t, t, self.threshold_2HW, self.sensor.refractory_us, self.memory_HW, self.last_HW, room)
        times, x, y, p = (np.concatenate(both) for both in zip(seen, self._noise(t), strict=True))
        self.log_HW[:], self.t = log_HW, t
        order = np.argsort(times, kind="stable")
        return times[order], x[order], y[order], p[order]

    def _noise(self, t: int) -> Events:
        height, width = self.log_HW.shape
        count = self.rng.poisson(self.sensor.noise_hz * (t - self.t) * 1e-6 * height * width)
        return (self.rng.integers(self.t, t, count), self.rng.integers(0, width, count, np.uint16), self.rng.integers(0, height, count, np.uint16),
                (self.rng.random(count) < LEAK_SHARE).astype(np.uint8))


@compiled
def _crossings(before_HW, after_HW, start, stop, threshold_2HW, refractory, memory_HW, last_HW, room):
    """Events of all pixels in [start, stop) us, pixel by pixel; moves memory_HW and last_HW (us) on. Thresholds: ON first."""
    t_N, x_N, y_N, p_N = np.empty(room, np.int64), np.empty(room, np.uint16), np.empty(room, np.uint16), np.empty(room, np.uint8)
    n = 0
    for y in range(before_HW.shape[0]):
        for x in range(before_HW.shape[1]):
            before, after = float(before_HW[y, x]), float(after_HW[y, x])
            if -threshold_2HW[1, y, x] < after - memory_HW[y, x] < threshold_2HW[0, y, x]:
                continue
            on = after > memory_HW[y, x]
            step = threshold_2HW[0, y, x] if on else -threshold_2HW[1, y, x]
            while (after - memory_HW[y, x]) / step >= 1:
                memory_HW[y, x] += step
                part = (memory_HW[y, x] - before) / (after - before)
                t = min(start + int(part * (stop - start)), stop - 1)
                if t - last_HW[y, x] >= refractory:
                    t_N[n], x_N[n], y_N[n], p_N[n] = t, x, y, on
                    last_HW[y, x] = t
                    n += 1
    return t_N[:n], x_N[:n], y_N[:n], p_N[:n]
