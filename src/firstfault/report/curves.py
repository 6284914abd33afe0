"""A small line chart as inline SVG. Its colours and fonts come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from firstfault.report.text import escape, number

WIDTH, HEIGHT = 340, 168
LEFT, RIGHT, TOP, BOTTOM = 44, 330, 8, 144
MOST_POINTS = 120  # a longer curve is drawn as means of neighbours: more wouldn't be visible


@dataclass(frozen=True)
class Line:
    """One metric; None where an iteration doesn't have it, NaN where the run computed no number."""

    name: str
    values: Sequence[float | None]

    @property
    def numbers(self) -> list[float]:
        return [v for v in self.values if v is not None and math.isfinite(v)]


@dataclass(frozen=True)
class Point:
    """One evaluation with its interval."""

    iteration: float
    value: float
    low: float
    high: float
    name: str
    series: int = 0


def chart(iterations: Sequence[int], lines: Sequence[Line], points: Sequence[Point] = ()) -> str:
    """Lines over iterations, with evaluations as marks with interval bars."""
    xs = [*iterations, *(p.iteration for p in points)]
    ys = [v for line in lines for v in line.numbers] + [v for p in points for v in (p.low, p.high, p.value)]
    if not ys:
        return ""
    x_low, x_high = min(xs), max(xs)
    y_ticks = _ticks(*_span(ys))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(value: float) -> float:
        return (LEFT + RIGHT) / 2 if x_low == x_high else LEFT + (value - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def y(value: float) -> float:
        return BOTTOM - (value - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    size = math.ceil(len(iterations) / MOST_POINTS)
    parts = [_axes(x, y, _whole_ticks(x_low, x_high), y_ticks)]
    for series, line in enumerate(lines):
        parts.append(_path(x, y, iterations, line, size, series))
    parts.append(_hover(x, iterations, lines, size))
    parts += [_evaluation(x, y, point) for point in points]
    name = escape(", ".join(line.name for line in lines))
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class Band:
    """A curve with its interval, at places of its own; no interval where it is not known."""

    name: str
    at: Sequence[float]
    values: Sequence[float]
    lows: Sequence[float | None]
    highs: Sequence[float | None]


def bands(curves: Sequence[Band], what: str, along: str, *, share: bool = True) -> str:
    """Curves with their intervals, each in the style `s0`, `s1`, ... of its place; those of shares within 0 and 1."""
    ends = [v for c in curves for v in (*c.values, *c.lows, *c.highs) if v is not None]
    x_high = max(at for c in curves for at in c.at) or 1.0
    y_ticks = _ticks(*((max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)) if share else _span(ends)))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(value: float) -> float:
        return LEFT + value / x_high * (RIGHT - LEFT)

    def y(value: float) -> float:
        return BOTTOM - (min(y_high, max(y_low, value)) - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    parts = [_axes(x, y, _whole_ticks(0, x_high), y_ticks)]
    for series, c in enumerate(curves):
        known = [(at, low, high) for at, low, high in zip(c.at, c.lows, c.highs, strict=True) if low is not None]
        there = [f"{x(at):.1f} {y(high):.1f}" for at, _, high in known]
        back = [f"{x(at):.1f} {y(low):.1f}" for at, low, _ in reversed(known)]
        if known:
            parts.append(f'<path class="band s{series}" d="M{"L".join(there + back)}Z"/>')
    for series, c in enumerate(curves):
        line = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in zip(c.at, c.values, strict=True))
        words = f"{c.name}: {number(c.values[0])} to {number(c.values[-1])} along {number(c.at[-1])} {along}"
        parts.append(f'<path class="line s{series}" d="M{line}"><title>{escape(words)}</title></path>')
    name = escape(f"{what} of {', '.join(c.name for c in curves)} along {along}")
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    """What the vertical axis shows: from zero, unless that would squeeze the curve into less than half of it."""
    low, high = min(values), max(values)
    if low == high or 0 <= low <= high / 2:
        return min(0.0, low), max(0.0, high) or float(low == 0)
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose both.

    >>> _ticks(0, 0.43), _ticks(0.998, 1.003)
    ([0.0, 0.2, 0.4, 0.6], [0.998, 1.0, 1.002, 1.004])
    """
    rough = max(high - low, 1e-12 * max(abs(low), abs(high)), 1e-300) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def _whole_ticks(low: float, high: float) -> list[int]:
    step = next(f * 10**p for p in count() for f in (1, 2, 5) if (high - low) / (f * 10**p) <= 6)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _labels(ticks: Sequence[float]) -> list[str]:
    """Tick labels with as many decimals as tell them apart."""
    step = ticks[1] - ticks[0]
    if step >= 1e-3 and max(abs(t) for t in ticks) < 1e4:
        decimals = next(d for d in range(12) if math.isclose(round(step, d), step, rel_tol=1e-6))
        return [f"{t:.{decimals}f}" for t in ticks]
    labels = [number(t) for t in ticks]
    return labels if len(set(labels)) == len(labels) else [f"{t:.6g}" for t in ticks]


def _axes(x, y, x_ticks: Sequence[int], y_ticks: Sequence[float]) -> str:
    parts = []
    for tick, label in zip(y_ticks, _labels(y_ticks), strict=True):
        at = y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{label}</text>')
    for tick in x_ticks:
        parts.append(f'<path class="axis" d="M{x(tick):.1f} {BOTTOM}v4"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    return "".join(parts)


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None


def _path(x, y, iterations: Sequence[int], line: Line, size: int, series: int) -> str:
    """The curve, broken where numbers are missing; a cross on the axis marks iterations with NaN or infinity."""
    runs: list[list[str]] = [[]]
    crosses = []
    for start in range(0, len(iterations), size):
        at = x(sum(iterations[start : start + size]) / len(iterations[start : start + size]))
        values = line.values[start : start + size]
        mean = _mean(values)
        if mean is None:
            runs.append([])
        else:
            runs[-1].append(f"{at:.1f} {y(mean):.1f}")
        if any(v is not None and not math.isfinite(v) for v in values):
            crosses.append(f'<path class="nan" d="M{at - 3:.1f} {BOTTOM - 3}l6 6m0-6l-6 6"/>')
    parts = []
    for run in filter(None, runs):
        if len(run) == 1:
            cx, cy = run[0].split()
            parts.append(f'<circle class="dot s{series}" cx="{cx}" cy="{cy}" r="2.5"/>')
        else:
            parts.append(f'<path class="line s{series}" d="M{"L".join(run)}"/>')
    return "".join(parts + crosses)


def _hover(x, iterations: Sequence[int], lines: Sequence[Line], size: int) -> str:
    """An invisible strip for each drawn point, whose title says the values."""
    starts = range(0, len(iterations), size)
    wide = (RIGHT - LEFT) / len(starts)
    parts = []
    for start in starts:
        group = iterations[start : start + size]
        words = [f"iteration {group[0]}" if len(group) == 1 else f"mean of iterations {group[0]} to {group[-1]}"]
        for line in lines:
            mean = _mean(line.values[start : start + size])
            words.append(f"{line.name} {'no number' if mean is None else number(mean)}")
        at = x(sum(group) / len(group)) - wide / 2
        title = escape("\n".join(words))
        parts.append(
            f'<rect class="hover" x="{at:.1f}" y="{TOP}" width="{wide:.1f}" height="{BOTTOM - TOP}">'
            f"<title>{title}</title></rect>"
        )
    return "".join(parts)


def _evaluation(x, y, point: Point) -> str:
    at = x(point.iteration) + (point.series - 0.5) * 6  # beside each other, not on top of each other
    mark = f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="3.6"/>'
    if point.series % 2:
        mark = f'<rect x="{at - 3.3:.1f}" y="{y(point.value) - 3.3:.1f}" width="6.6" height="6.6"/>'
    words = f"evaluation after iteration {point.iteration:g}: {point.name} {number(point.value)}"
    words += f" [{number(point.low)}, {number(point.high)}]"
    bar = f"M{at:.1f} {y(point.low):.1f}V{y(point.high):.1f}"
    ends = f"M{at - 3:.1f} {y(point.low):.1f}h6M{at - 3:.1f} {y(point.high):.1f}h6"
    return f'<g class="evaluation e{point.series}"><title>{escape(words)}</title><path d="{bar}{ends}"/>{mark}</g>'
