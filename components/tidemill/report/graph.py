"""The pipeline's DAG: read from the compiled pipeline, reduced to the edges that matter, laid out in wrapped layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Edges = Mapping[str, Sequence[str]]
"""Names of the tasks that each task waits for."""


def edges_of(ir: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Returns the tasks of a compiled pipeline and what each waits for, by display name, importers left out.

    A nested DAG (an exit handler's, a condition's) is replaced by its tasks: what waits for it waits for its last.

    Args:
        ir: the first document of a compiled pipeline (PipelineSpec).

    Raises:
        KeyError, TypeError, AttributeError: if ``ir`` is not a PipelineSpec.
    """
    waits, _ = _flatten(ir, ir["root"]["dag"])
    return waits


def _flatten(
    ir: Mapping[str, Any], dag: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Returns the edges below ``dag`` and, by the key of each of its tasks, the names that stand for its end."""
    executors = ir["deploymentSpec"]["executors"]
    waits: dict[str, tuple[str, ...]] = {}
    ends: dict[str, tuple[str, ...]] = {}
    firsts: dict[str, tuple[str, ...]] = {}
    for key, task in sorted(dag["tasks"].items()):
        component = ir["components"][task["componentRef"]["name"]]
        if "dag" in component:
            inner, _ = _flatten(ir, component["dag"])
            waits |= inner
            awaited = {name for names in inner.values() for name in names}
            ends[key] = tuple(name for name in inner if name not in awaited)
            firsts[key] = tuple(name for name, names in inner.items() if not names)
        elif "importer" in executors[component["executorLabel"]]:
            ends[key] = firsts[key] = ()
        else:
            ends[key] = firsts[key] = (task["taskInfo"]["name"],)
    for key, task in sorted(dag["tasks"].items()):
        before = tuple(name for other in task.get("dependentTasks", ()) for name in ends[other])
        for name in firsts[key]:
            waits[name] = (*waits.get(name, ()), *before)
    return waits, ends


def chain(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the edges of tasks of which only the order is known."""
    return {name: tuple(names[i - 1 : i]) for i, name in enumerate(names)}


def reduced(edges: Edges) -> dict[str, tuple[str, ...]]:
    """Returns the transitive reduction: no edge that a longer path implies."""
    ancestors: dict[str, set[str]] = {}
    for name in ordered(edges):
        ancestors[name] = {a for before in edges[name] for a in ({before} | ancestors.get(before, set()))}
    return {
        name: tuple(
            sorted(
                before
                for before in set(befores)
                if not any(before in ancestors.get(other, ()) for other in befores if other != before)
            )
        )
        for name, befores in edges.items()
    }


def ordered(edges: Edges) -> list[str]:
    """Returns the tasks so that each stands after all that it waits for.

    Raises:
        ValueError: if the edges have a cycle.
    """
    result: list[str] = []
    left = dict(edges)
    while left:
        ready = [name for name, befores in left.items() if not any(b in left for b in befores)]
        if not ready:
            raise ValueError(f"the pipeline has a cycle among {', '.join(sorted(left))}")
        result += ready
        left = {name: befores for name, befores in left.items() if name not in ready}
    return result


@dataclass(frozen=True)
class Slot:
    """A place in the picture. Units: CSS pixels; ``x`` and ``y`` are the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    row: int

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """Where everything stands: ``slots`` by task, ``paths`` as SVG path data."""

    slots: Mapping[str, Slot]
    paths: tuple[str, ...]
    width: float
    height: float


GAP, LANE, ROW_GAP, MARGIN = 26.0, 10.0, 30.0, 16.0


def layout(edges: Edges, columns: int, box: tuple[float, float]) -> Layout:
    """Places tasks in layers from left to right, at most ``columns`` of them side by side; the rest goes on below.

    Args:
        edges: reduced edges.
        columns: the most layers in a row; rows are filled evenly.
        box: width and height of a task's box.
    """
    layers, waypoints = _layers(edges)
    rows_needed = max(math.ceil(len(layers) / columns), 1)
    per_row = max(math.ceil(len(layers) / rows_needed), 1)
    slots: dict[str, Slot] = {}
    y = MARGIN / 2
    for row in range(rows_needed):
        members = layers[row * per_row : (row + 1) * per_row]
        heights = [sum(_height(n, waypoints, box) for n in layer) + LANE * (len(layer) - 1) for layer in members]
        tallest = max(heights, default=0.0)
        for column, (layer, height) in enumerate(zip(members, heights, strict=True)):
            x, top = MARGIN + column * (box[0] + GAP), y + (tallest - height) / 2
            for name in layer:
                waypoint = name in waypoints
                slots[name] = Slot(
                    x + box[0] / 2 if waypoint else x,
                    top,
                    0.0 if waypoint else box[0],
                    _height(name, waypoints, box),
                    row,
                )
                top += slots[name].height + LANE
        y += tallest + ROW_GAP
    width = 2 * MARGIN + per_row * (box[0] + GAP) - GAP
    paths = tuple(_path(slots[a], slots[b], width) for a, b in _hops(edges, waypoints))
    tasks = {name: slot for name, slot in slots.items() if name not in waypoints}
    return Layout(tasks, paths, width, y - ROW_GAP + MARGIN / 2)


def _height(name: str, waypoints: Mapping[str, tuple[str, str]], box: tuple[float, float]) -> float:
    return LANE if name in waypoints else box[1]


def _layers(edges: Edges) -> tuple[list[list[str]], dict[str, tuple[str, str]]]:
    """Returns the layers by longest path, with a waypoint (named, its edge) in each layer that an edge passes."""
    depth: dict[str, int] = {}
    for name in ordered(edges):
        depth[name] = max((depth[b] + 1 for b in edges[name] if b in depth), default=0)
    for name in edges:  # a task without predecessors stands right before the first that needs it
        users = [depth[user] for user, befores in edges.items() if name in befores]
        if not any(b in depth for b in edges[name]) and users:
            depth[name] = min(users) - 1
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name, level in depth.items():
        layers[level].append(name)
    waypoints = {}
    for name, befores in edges.items():
        for before in befores:
            for level in range(depth.get(before, depth[name]) + 1, depth[name]):
                waypoint = f"{before}\0{name}\0{level}"
                waypoints[waypoint] = (before, name)
                layers[level].append(waypoint)
    return layers, waypoints


def _hops(edges: Edges, waypoints: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    hops = []
    for name, befores in edges.items():
        for before in befores:
            stops = [before, *(w for w, edge in waypoints.items() if edge == (before, name)), name]
            hops += [(a, b) for a, b in itertools.pairwise(stops) if before in edges]
    return hops


def _path(a: Slot, b: Slot, width: float) -> str:
    """A curve within a row; between rows a line that leaves on the right and comes in from the left."""
    x0, y0, x1, y1 = a.x + a.width, a.middle, b.x, b.middle
    arrow = f"M{x1 - 5:g} {y1 - 4:g}l5 4l-5 4" if b.width else ""
    if a.row == b.row:
        bend = max((x1 - x0) / 2, 1)
        return f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}{arrow}"
    r, right, left = 7.0, min(x0 + MARGIN / 2 + 2, width - 3), MARGIN / 2 - 3
    turn = b.y - ROW_GAP / 2
    return (
        f"M{x0:g} {y0:g}H{right - r:g}q{r:g} 0 {r:g} {r:g}V{turn - r:g}q0 {r:g} {-r:g} {r:g}"
        f"H{left + r:g}q{-r:g} 0 {-r:g} {r:g}V{y1 - r:g}q0 {r:g} {r:g} {r:g}H{x1:g}{arrow}"
    )
