"""A panel of a figure as SVG inside the page: its colours are the page's, light or dark, and each point tells its numbers.

Plain SVG instead of a library's script: it is some kilobytes, opens at once, prints, needs no script to be seen, and its text is the page's.
"""
from __future__ import annotations

from html import escape

from snnseg.report import style
from snnseg.report.page import plot as plots
from snnseg.report.page.plot import Axis, Panel, Point, Series

WIDTH, HEIGHT = 340, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 12, 44
LETTER = 3.9        # of a name that is written at a slant, downwards
MARKS = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "s": "M-3.6 -3.6h7.2v7.2h-7.2z", "^": "M0 -4.6L4.6 3.6H-4.6z", "D": "M0 -5L5 0L0 5L-5 0z",
    "v": "M0 4.6L4.6 -3.6H-4.6z", "P": "M-1.5 -4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "X": "M-4.5 -2.5l2 -2l2.5 2.5l2.5 -2.5l2 2l-2.5 2.5l2.5 2.5l-2 2l-2.5 -2.5l-2.5 2.5l-2 -2l2.5 -2.5z",
    "h": "M0 -4.8L4.2 -2.4V2.4L0 4.8L-4.2 2.4V-2.4z", "p": "M0 -4.8L4.6 -1.5L2.8 3.9H-2.8L-4.6 -1.5z",
    "*": "M0 -5.2L1.5 -1.7L5.2 -1.5L2.3 0.8L3.3 4.6L0 2.5L-3.3 4.6L-2.3 0.8L-5.2 -1.5L-1.5 -1.7z",
}
DASHES = {"-": "", "--": "5 3", "-.": "6 2 1.5 2"}


def mark(net: str, hollow: bool = False) -> str:
    """A net's mark alone, for legends and tables."""
    its = style.look(net)
    return (f'<svg class="mark c{its.place}{" hollow" if hollow else ""}" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">'
            f'<path d="{MARKS[its.mark]}"/></svg>')


def draw(panel: Panel, alt: str) -> str:
    """The panel as an `<svg>` with a name for screen readers."""
    across, up = plots.x_axis(panel), plots.y_axis(panel)
    turned = bool(panel.categories) and max(map(len, panel.categories)) * len(panel.categories) > 34
    bottom = 36 + round(LETTER * max(map(len, panel.categories))) if turned else BOTTOM
    height = HEIGHT + (bottom - BOTTOM)
    box = _Box(across, up, height - bottom, height)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(f"{panel.title}. {alt}")}">', *box.frame(panel, turned)]
    parts += [box.series(panel, s) for s in panel.series]
    above = -HEIGHT
    for rule in sorted(panel.rules, key=lambda rule: -rule.y):
        y = box.y(rule.y)
        parts.append(f'<g class="rule"><path d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
                     f'<text x="{WIDTH - RIGHT - 3}" y="{y + (11 if y - above < 14 else -4):.1f}" text-anchor="end">{escape(rule.label)}</text></g>')
        above = y
    return "".join([*parts, "</svg>"])


class _Box:
    """The rectangle between the axes, in which values have places."""

    def __init__(self, across: Axis, up: Axis, floor: float, height: float):
        self.across, self.up, self.floor, self.height = across, up, floor, height

    def x(self, value: float) -> float:
        return round(LEFT + self.across.place(value) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(self.floor - self.up.place(value) * (self.floor - TOP), 1)

    def frame(self, panel: Panel, turned: bool) -> list[str]:
        out = ['<g class="grid">', *(f'<path d="M{LEFT} {self.y(t)}H{WIDTH - RIGHT}"/>' for t, _ in self.up.ticks), "</g>",
               f'<path class="axis" d="M{LEFT} {self.floor}H{WIDTH - RIGHT}"/>', '<g class="ticks">']
        out += [f'<text x="{LEFT - 6}" y="{self.y(t) + 3.5:.1f}" text-anchor="end">{escape(label)}</text>' for t, label in self.up.ticks]
        for t, label in self.across.ticks:
            at = self.x(t), self.floor + 15
            out.append(f'<text transform="translate({at[0] + 3} {at[1] - 3}) rotate(-40)" text-anchor="end">{escape(label)}</text>' if turned
                       else f'<text x="{at[0]}" y="{at[1]}" text-anchor="middle">{escape(label)}</text>')
        middle = round((TOP + self.floor) / 2, 1)
        return [*out, '</g><g class="names">',
                f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{self.height - 7}" text-anchor="middle">{escape(panel.x)}</text>',
                f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(panel.y)}</text></g>']

    def series(self, panel: Panel, s: Series) -> str:
        its = style.look(s.net)
        parts = [f'<g class="series c{its.place}{" hollow" if s.paper else ""}" data-net="{escape(s.net)}">']
        if s.joined and len(s.points) > 1:
            course = " ".join(f"{self.x(p.x)},{self.y(p.y)}" for p in s.points)
            parts.append(f'<polyline points="{course}" stroke-dasharray="{DASHES[its.line]}"/>')
        for p in s.points:
            if p.low is not None and p.high is not None and p.low != p.high:
                x, low, high = self.x(p.x), self.y(p.low), self.y(p.high)
                parts.append(f'<path class="spread" d="M{x} {low}V{high}M{x - 3} {low}h6M{x - 3} {high}h6"/>')
        for p in s.points:
            parts.append(f'<g class="dot" transform="translate({self.x(p.x)} {self.y(p.y)})"><title>{escape(hint(panel, s, p))}</title>'
                         f'<circle class="touch" r="9"/><path d="{MARKS[its.mark]}"/></g>')
        return "".join([*parts, "</g>"])


def hint(panel: Panel, s: Series, p: Point) -> str:
    """What a point says when it is pointed at."""
    x = panel.categories[int(p.x)] if panel.categories else f"{panel.x} {plots.short(p.x)}"
    spread = "" if p.low is None or p.high is None or p.low == p.high else f" ({plots.short(p.low)} to {plots.short(p.high)})"
    return f"{s.label or style.named(s.net)}\n{x}\n{panel.y} {plots.short(p.y)}{spread}"
