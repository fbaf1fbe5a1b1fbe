"""Charts as SVG text: lines, bands, bars. Own code: a page needs no library for a dozen lines.

Colours, strokes and fonts are the style sheet's (classes), as the content security policy allows no
inline style. Every chart has a title that says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from gossipfl.hub.page.model import Point
from gossipfl.hub.page.words import clock

WIDTH, HEIGHT = 380, 170  # of a chart: its text is readable at the width of a phone
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 20
TICKS = 4


def svg(width: float, height: float, title: str, body: str, kind: str) -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def spark(
    values: Sequence[float | None],
    title: str,
    top: float | None = None,
    usual: float | None = None,
) -> Markup:
    """A line without axes; gaps where a value is missing. The last value has a dot.

    top: what the whole height stands for, at least. usual: a value that gets a faint line.
    """
    width, height, edge = 100.0, 26.0, 3.0
    known = [v for v in values if v is not None]
    if not known:
        return Markup('<span class="faint">–</span>')
    most = max(top if top is not None else max(known), max(known), 1e-12)
    step = (width - 2 * edge) / max(1, len(values) - 1)

    def place(i: int, value: float) -> tuple[float, float]:
        x = width - edge if len(values) == 1 else edge + i * step
        return x, height - edge - (height - 2 * edge) * value / most

    body = ""
    if usual is not None:
        at = place(0, usual)[1]
        body += f'<path class="grid" d="M{edge:g} {at:.1f}H{width - edge:g}"/>'
    body += "".join(f'<polyline class="line" points="{part}"/>' for part in _runs(values, place))
    last = max(i for i, v in enumerate(values) if v is not None)
    x, y = place(last, values[last] or 0.0)
    body += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
    return svg(width, height, title, body, "spark")


def _runs(
    values: Sequence[float | None], place: Callable[[int, float], tuple[float, float]]
) -> list[str]:
    runs: list[list[str]] = [[]]
    for i, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            x, y = place(i, value)
            runs[-1].append(f"{x:.1f},{y:.1f}")
    return [" ".join(run) for run in runs if len(run) > 1]


def band(
    points: Sequence[Point],
    title: str,
    write: Callable[[float], str],
    references: Sequence[tuple[str, float]] = (),
    *,
    is_log: bool = False,
) -> Markup:
    """Median with the band from `low` to `high` over time, and dashed reference lines."""
    if len(points) < 2:
        return Markup('<p class="faint">A line needs two points: wait a moment.</p>')
    scale = _log if is_log else float
    values = [scale(v) for p in points for v in (p.low, p.middle, p.high)]
    values += [scale(v) for _, v in references]
    low, high = _range(min(values), max(values), is_log)
    first, last = points[0].time, points[-1].time

    def x(time: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (time - first) / max(1, last - first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(value) - low) / (high - low)

    body = _grid(low, high, write, is_log)
    body += _times(first, last)
    upper = [f"{x(p.time):.1f},{y(p.high):.1f}" for p in points]
    lower = [f"{x(p.time):.1f},{y(p.low):.1f}" for p in reversed(points)]
    body += f'<polygon class="band" points="{" ".join(upper + lower)}"/>'
    middle = " ".join(f"{x(p.time):.1f},{y(p.middle):.1f}" for p in points)
    body += f'<polyline class="line" points="{middle}"/>'
    for name, value in references:
        at = y(value)
        body += (
            f'<path class="reference" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{WIDTH - RIGHT}" y="{at - 3:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    return svg(WIDTH, HEIGHT, title, body, "chart")


def _grid(low: float, high: float, write: Callable[[float], str], is_log: bool) -> str:
    body = ""
    for i in range(TICKS + 1):
        value = low + (high - low) * i / TICKS
        at = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * i / TICKS
        label = write(10.0**value if is_log else value)
        body += (
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 4}" y="{at + 3:.1f}" text-anchor="end">{escape(label)}</text>'
        )
    return body


def _times(first: int, last: int) -> str:
    return (
        f'<text x="{LEFT}" y="{HEIGHT - 5}">{clock(first)}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{clock(last)} UTC</text>'
    )


def _range(low: float, high: float, is_log: bool) -> tuple[float, float]:
    """Round ends, so that the ticks are numbers that people read."""
    if is_log:
        return math.floor(low * 2) / 2, max(math.floor(low * 2) / 2 + 0.5, math.ceil(high * 2) / 2)
    span = max(high - low, 1e-9)
    step = _nice(span / TICKS)
    start = math.floor(low / step + 1e-9) * step
    while start + TICKS * step < high - 1e-12:
        step = _nice(step * 1.01)
        start = math.floor(low / step + 1e-9) * step
    return start, start + TICKS * step


def _nice(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= step - 1e-12)


def _log(value: float) -> float:
    return math.log10(max(value, 1e-9))


def bar(share: float, title: str, *, is_loud: bool = False) -> Markup:
    """A horizontal bar, 0 to 1."""
    width = 100.0
    part = width * min(1.0, max(0.0, share))
    kind = "loud" if is_loud else "fill"
    body = f'<rect class="trough" width="{width:g}" height="10" rx="2"/>'
    body += f'<rect class="{kind}" width="{part:.1f}" height="10" rx="2"/>'
    return svg(width, 10, title, body, "meter")
