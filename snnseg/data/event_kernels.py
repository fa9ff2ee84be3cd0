"""The inner loops over events, compiled by numba at their first call (0.1 to 0.5 s each), never at import.

Columns are those of `Events`: t int64 [N] in microseconds, x and y uint16 [N], p uint8 [N], contiguous and read-only, which
also gives each loop one type and so one compilation. Only `refuses` and `reject` may see events that are not valid: the
others write where an event points to, unchecked. All release the interpreter lock, so threads run them side by side.

Nothing is cached on disk: a cache is a pickle in the source tree or the home folder, fails where neither can be written,
and would save less than the import of numba takes.
"""
from __future__ import annotations

import numpy as np

from snnseg.data.compiled import compiled

TIME_LIMIT = 2**61          # microseconds either way, 73 000 years: differences of two times then stay within int64
FULL = 2**16 - 1            # the most that a pixel of a count frame holds


@compiled
def refuses(t, x, y, p, height, width):
    """Is any event outside the sensor or the time limit, of a polarity other than 0 and 1, or earlier than the one before?"""
    bad = False
    for i in range(len(t)):                 # no early exit: so the loop runs on vectors, at 2 000 million events/s
        bad |= (x[i] >= width) | (y[i] >= height) | (p[i] > 1) | (t[i] > TIME_LIMIT) | (t[i] < -TIME_LIMIT)
    for i in range(1, len(t)):
        bad |= t[i] < t[i - 1]
    return bad


@compiled
def reject(t, x, y, p, height, width, latest, keep):
    """Mark the valid events in `keep` bool [N]; count the others by their first fault, in the order of `Rejected`.

    `latest` is the time of the last valid event so far. A rejected event does not move it, so that one event with a
    damaged place and time does not take all later ones with it.
    """
    outside = polarity = beyond = back = 0
    for i in range(len(t)):
        keep[i] = False
        if x[i] >= width or y[i] >= height:
            outside += 1
        elif p[i] > 1:
            polarity += 1
        elif t[i] > TIME_LIMIT or t[i] < -TIME_LIMIT:
            beyond += 1
        elif t[i] < latest:
            back += 1
        else:
            keep[i] = True
            latest = t[i]
    return outside, polarity, beyond, back


@compiled
def count(x, y, p, frame_2HW):
    """Add events to a frame uint16 [2, H, W], ON first. A full pixel stays full; return the events it could not take."""
    lost = 0
    for i in range(len(x)):
        before = frame_2HW[1 - p[i], y[i], x[i]]
        if before == FULL:
            lost += 1
        else:
            frame_2HW[1 - p[i], y[i], x[i]] = before + 1
    return lost


@compiled
def count_signed(x, y, p, frame_HW):
    """Add ON events to a frame int32 [H, W] and take OFF events away."""
    for i in range(len(x)):
        frame_HW[y[i], x[i]] += 2 * np.int32(p[i]) - 1


@compiled
def share(t, x, y, p, first, steps, span, origin, plane_CHW, next_CHW):
    """Share events between the plane before and the plane after them, float64 [C, H, W], by their distance in time.

    The planes lie `span / steps` microseconds apart, and the one before at `first + origin / steps`: the part of an event
    that goes to the next plane is `((t - first) * steps - origin) / span`, whole numbers up to the division. One channel
    takes signed events, two take ON and OFF apart.
    """
    channels = len(plane_CHW)
    for i in range(len(t)):
        later = ((t[i] - first) * steps - origin) / span
        channel = (1 - p[i]) * (channels - 1)
        sign = 1.0 if channels == 2 or p[i] == 1 else -1.0
        plane_CHW[channel, y[i], x[i]] += sign * (1.0 - later)
        next_CHW[channel, y[i], x[i]] += sign * later


@compiled
def remember(t, x, y, p, latest_2HW):
    """Write the time of each event to its pixel of int64 [2, H, W], ON first: what stays is the last one."""
    for i in range(len(t)):
        latest_2HW[1 - p[i], y[i], x[i]] = t[i]
