"""A run over virtual time as an SVG picture: accuracy, spread, rounds. No library, no script.

Colours follow the reader's light or dark setting and are told apart without colour too: the second
line of a panel is dashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, GAP = 760, 190, 52
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 62, 46
TICKS = 5

STYLE = """
svg { font: 13px system-ui, sans-serif; } .title { font-size: 16px; font-weight: 600; }
.paper { fill: #ffffff; } text { fill: #1b1f24; } .soft { fill: #57606a; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.first { stroke: #0550ae; } .second { stroke: #bc4c00; stroke-dasharray: 6 4; }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117; } text { fill: #e6edf3; } .soft { fill: #9198a1; }
.grid { stroke: #3d444d; } .first { stroke: #79c0ff; } .second { stroke: #ffa657; } }
""".strip()


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: `label` in the legend, a value for each x of the picture."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Up to two curves over one y axis. `top` None: as high as the values."""

    title: str
    lines: Sequence[Line]
    top: float | None = None


def picture(title: str, x_label: str, x: Sequence[float], panels: Sequence[Panel]) -> str:
    """The SVG text: panels one below the other over a common x axis."""
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM - GAP + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
    ]
    span = _axis(max(x, default=1.0))
    for number, panel in enumerate(panels):
        parts += _panel(panel, x, span, TOP + number * (PANEL + GAP))
    parts.append(_text(LEFT + _inner() / 2, height - 10, x_label, "soft", "middle"))
    return "\n".join([*parts, "</svg>\n"])


def _inner() -> float:
    return WIDTH - LEFT - RIGHT


def _panel(panel: Panel, x: Sequence[float], span: Sequence[float], y0: float) -> list[str]:
    values = [v for line in panel.lines for v in line.values if math.isfinite(v)]
    ticks = _axis(panel.top or max([*values, 0.0]))
    parts = [_text(LEFT, y0 - 8, panel.title, "", "start")]
    for tick in ticks:
        y = _y(tick, ticks[-1], y0)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", "soft", "end"))
    for tick in span:
        at = LEFT + _inner() * tick / span[-1]
        parts.append(f'<path class="grid" d="M{at:.1f} {y0 + PANEL}v5"/>')
        parts.append(_text(at, y0 + PANEL + 19, f"{tick:g}", "soft", "middle"))
    at = float(WIDTH - RIGHT)
    for line, kind in reversed(list(zip(panel.lines, ("first", "second"), strict=False))):
        parts.append(_text(at, y0 - 8, line.label, "", "end"))
        at -= 8.5 * len(line.label) + 10
        parts.append(f'<path class="line {kind}" d="M{at - 26:.1f} {y0 - 12}h26"/>')
        at -= 44
        points = [
            f"{LEFT + _inner() * when / span[-1]:.1f},{_y(value, ticks[-1], y0):.1f}"
            for when, value in zip(x, line.values, strict=True)
            if math.isfinite(value)
        ]
        parts.append(f'<polyline class="line {kind}" points="{" ".join(points)}"/>')
    return parts


def _y(value: float, top: float, y0: float) -> float:
    return y0 + PANEL * (1 - min(max(value / top, 0.0), 1.0))


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _axis(top: float) -> list[float]:
    """From 0 to at least `top` in some five round steps."""
    if not top > 0.0 or not math.isfinite(top):
        top = 1.0
    rough = top / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power >= rough * (1 - 1e-9))
    count = math.ceil(top / step - 1e-9)
    return [round(step * k, 12) for k in range(count + 1)]
