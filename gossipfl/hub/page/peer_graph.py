"""Who merges whom, drawn: devices on a circle; over 40 of them, a heat map.

State is shown by shape and colour, how often a peer is merged by an edge's width, and a device's
weight in the others' merges by its ring: a full ring is the fleet's median or more.
"""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from gossipfl.hub.page.charts import svg
from gossipfl.hub.page.model import Graph, State

CIRCLE_MAX = 40  # the design's
HEAT_MAX = 150  # guess: rows that 380 units can still tell apart
SIDE = 380.0
NODE = 11.0
SHADES = 4


def drawn(graph: Graph) -> Markup:
    return _circle(graph) if len(graph.names) <= CIRCLE_MAX else _heat(graph)


def _circle(graph: Graph) -> Markup:
    n = len(graph.names)
    size = NODE if n <= 20 else NODE * 0.7
    reach = SIDE / 2 - 56  # names beside the devices
    places = []
    for i in range(n):
        angle = 2 * math.pi * i / n - math.pi / 2
        places.append((SIDE / 2 + reach * math.cos(angle), SIDE / 2 + reach * math.sin(angle)))
    body = "".join(_edge(graph, places, size, i) for i in range(len(graph.edges)))
    body += "".join(_node(graph, places, size, i) for i in range(n))
    title = f"Who merged whom in the last {graph.rounds} rounds of each of {n} devices"
    return svg(SIDE, SIDE, title, body, "graph")


def _edge(graph: Graph, places: list[tuple[float, float]], size: float, number: int) -> str:
    """From the merged to who merged it, a little bent, so that both ways can be seen."""
    edge = graph.edges[number]
    (x1, y1), (x2, y2) = places[edge.of], places[edge.by]
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    bend = 0.08 * length
    cx, cy = (x1 + x2) / 2 - uy * bend, (y1 + y2) / 2 + ux * bend
    gap = size + 6
    start = f"{x1 + ux * gap:.1f} {y1 + uy * gap:.1f}"
    end = f"{x2 - ux * gap:.1f} {y2 - uy * gap:.1f}"
    width = 0.6 + 2.4 * min(1.0, edge.merges / max(1, graph.rounds))
    return f'<path class="edge" d="M{start} Q{cx:.1f} {cy:.1f} {end}" stroke-width="{width:.1f}"/>'


def _node(graph: Graph, places: list[tuple[float, float]], size: float, i: int) -> str:
    x, y = places[i]
    state, weight = graph.states[i], graph.weights[i]
    told = f"{graph.shorts[i]}: {state.value}"
    ring = ""
    if weight is not None:
        told += f", weight {weight:.2f}"
        ring = _ring(x, y, size + 4, min(1.0, weight))
    away = SIDE / 2 - x
    anchor = "middle" if abs(away) < 40 else ("start" if away < 0 else "end")
    dx = 0.0 if anchor == "middle" else math.copysign(size + 8, -away)
    dy = 4.0 if anchor != "middle" else math.copysign(size + 14, y - SIDE / 2) + 3
    label = escape(graph.shorts[i][:4])
    return (
        f'<a href="/devices/{escape(graph.names[i])}"><title>{escape(told)}</title>'
        f"{ring}{shape(state, x, y, size)}"
        f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{label}</text></a>'
    )


def _ring(x: float, y: float, radius: float, share: float) -> str:
    around = 2 * math.pi * radius
    circle = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return (
        f'<circle class="ring-trough" {circle}/>'
        f'<circle class="ring" {circle} stroke-dasharray="{around * share:.1f} {around:.1f}" '
        f'transform="rotate(-90 {x:.1f} {y:.1f})"/>'
    )


def shape(state: State, x: float, y: float, size: float) -> str:
    """Each state has its own: a disc, a ring, a triangle, a crossed square, a cross."""
    kind = f"s-{state.value.replace(' ', '-')}"
    s = size * 0.9
    match state:
        case State.LIVE:
            return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{s:.1f}"/>'
        case State.AWAY:
            return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{s * 0.85:.1f}"/>'
        case State.LEFT_OUT:
            points = (
                f"{x:.1f},{y - s:.1f} {x + s:.1f},{y + s * 0.8:.1f} {x - s:.1f},{y + s * 0.8:.1f}"
            )
            return f'<polygon class="{kind}" points="{points}"/>'
        case State.SHUT_OUT:
            a = s * 0.8
            box = f'x="{x - a:.1f}" y="{y - a:.1f}" width="{2 * a:.1f}" height="{2 * a:.1f}"'
            return f'<rect class="{kind}" {box}/><path class="cut" d="{_cross(x, y, a * 0.6)}"/>'
    return f'<path class="{kind}" d="{_cross(x, y, s * 0.8)}"/>'


def symbol(state: State) -> Markup:
    """The shape alone, for tables and legends; the state is written beside it."""
    return Markup(
        f'<svg class="symbol" viewBox="0 0 16 16" aria-hidden="true">{shape(state, 8, 8, 7)}</svg>'
    )


def _cross(x: float, y: float, a: float) -> str:
    return (
        f"M{x - a:.1f} {y - a:.1f}L{x + a:.1f} {y + a:.1f}"
        f"M{x + a:.1f} {y - a:.1f}L{x - a:.1f} {y + a:.1f}"
    )


def _heat(graph: Graph) -> Markup:
    """A row for each device that merges, a column for each that is merged."""
    n = min(len(graph.names), HEAT_MAX)
    edge = 16.0
    cell = (SIDE - edge) / n
    side = f"{cell * n:.1f}"
    body = f'<rect class="trough" x="{edge:g}" y="{edge:g}" width="{side}" height="{side}"/>'
    for e in graph.edges:
        if e.of < n and e.by < n:
            shade = min(SHADES, max(1, math.ceil(SHADES * e.merges / max(1, graph.rounds))))
            body += (
                f'<rect class="heat-{shade}" x="{edge + cell * e.of:.2f}" '
                f'y="{edge + cell * e.by:.2f}" width="{cell:.2f}" height="{cell:.2f}"/>'
            )
    for i in range(n):
        if graph.states[i] is not State.LIVE:
            x, y = edge + cell * (i + 0.5), edge / 2
            body += f'<a href="/devices/{escape(graph.names[i])}">'
            body += f"<title>{escape(graph.shorts[i])}: {graph.states[i].value}</title>"
            body += f"{shape(graph.states[i], x, y, min(5.0, cell))}</a>"
    title = f"Each of {n} devices (rows) and how often it merged each other one (columns)"
    return svg(SIDE, SIDE, title, body, "graph heat")
