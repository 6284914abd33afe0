"""Where each step of a rollout tree is drawn: a column a step, a row a run, and labels that can't touch each other.

A run is known by its last node (its `end`). A node lies in the middle of the rows of the runs through it, and is
drawn as thick as there are runs. Two nodes of a column then have disjoint rows, so they never overlap if a row has
room for one thread and two lines of text; and the curves to the next column stay within the rows of their parent.
Labels begin where the curves of their column have ended.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from firstfault.report.text import columns, shorten
from firstfault.tree import Node, Tree

LABEL, NOTE = 11.0, 9.5  # font sizes
CHARACTER = 0.61  # width of a fixed-width character, in font sizes
MOST = 18  # characters of a label
NARROW = 5  # characters of a column without labels: room for an advantage
ROW, FLAG = 37, 15  # height of a row, and what a "first fault" flag adds to it
DEEP = 8  # a tree with more steps than this has labels only where it branches or ends
LEFT, TOP = 34, 76


@dataclass
class Cell:
    """A node on the page. (x, y) is the end of its step; its label starts at `text_x`."""

    node: Node
    x: float
    y: float
    ends: list[Node]
    text_x: float = 0.0
    bend: float = 0.0
    label: str = ""
    note: str = ""
    advantage: str = ""

    @property
    def successes(self) -> int:
        return sum(end.success is True for end in self.ends)

    @property
    def branches(self) -> bool:
        return len(self.node.children) > 1


@dataclass
class Layout:
    cells: list[Cell]  # as tree.nodes
    heads: list[float]  # the right edge of each column
    right: float  # where the column of the rewards starts
    bottom: float
    thread: float  # thickness of one run
    tool: str | None = None  # the one tool of the tree, left out of the labels
    kinds: set[str] = field(default_factory=set)  # what the legend has to explain


def lay_out(tree: Tree) -> Layout:
    """Place every node of the tree."""
    ends = _ends(tree)
    runs = ends[0]
    rows, bottom = _rows(tree, ends)
    depth = [0] * len(tree.nodes)
    for node in tree.steps:
        depth[node.index] = depth[node.parent.index] + 1
    y = [(rows[e[0].index] + rows[e[-1].index]) / 2 for e in ends]

    names = {call.name for node in tree.steps for call in node.calls}
    tool = names.pop() if len(names) == 1 else None
    cells = [Cell(node, LEFT, y[node.index], ends[node.index]) for node in tree.nodes]
    for cell in cells[1:]:
        _write_labels(cell, tool, everywhere=max(depth) <= DEEP)

    heads, x = [], float(LEFT)
    for column in range(1, max(depth) + 1):
        here = [cell for cell in cells if depth[cell.node.index] == column]
        # A wide fan gets a long bend, so that its outer curves aren't steep.
        drop = max(abs(cell.y - y[cell.node.parent.index]) for cell in here)
        parents = [cells[cell.node.parent.index] for cell in here]
        pill = 16 if any(p.branches for p in parents) else 8
        bend = pill + min(56.0, 0.3 * drop)
        wide = max(_width(cell) for cell in here)
        start, x = x, x + bend + wide + (20 if any(cell.branches for cell in here) else 12)
        for cell in here:
            cell.x, cell.bend, cell.text_x = x, bend, start + bend
        heads.append(x)
    thread = max(1.0, min(3.0, 26 / len(runs)))
    return Layout(cells, heads, x + 22, bottom, thread, tool, _kinds(tree))


def _ends(tree: Tree) -> list[list[Node]]:
    """The runs through each node, in the order of drawing: at every branch the best subtree comes first."""
    ends: list[list[Node]] = [[] for _ in tree.nodes]
    for node in reversed(tree.nodes):  # children before parents
        below = [(child, ends[child.index]) for child in node.children]
        below.sort(key=lambda pair: (-sum(e.success is True for e in pair[1]) / len(pair[1]), pair[0].index))
        ends[node.index] = [end for _, group in below for end in group] or [node]
    return ends


def _rows(tree: Tree, ends: list[list[Node]]) -> tuple[dict[int, float], float]:
    """The height of each run on the page, by the index of its last node, and the bottom of the last."""
    flags = Counter(ends[node.index][0].index for node in tree.steps if node.critical)
    rows, y = {}, float(TOP)
    for end in ends[0]:
        y += FLAG if flags[end.index] else 0
        rows[end.index] = y + ROW / 2
        y += ROW
    return rows, y


def _write_labels(cell: Cell, tool: str | None, everywhere: bool) -> None:
    node = cell.node
    cell.advantage = "" if node.advantage is None else f"{node.advantage:+.2f}".replace("-", "−")
    if not (everywhere or cell.branches or node.critical or not node.children or len(node.parent.children) > 1):
        return
    room = MOST - len(cell.advantage) - 2 if cell.advantage else MOST
    if node.calls:
        call = node.calls[0]
        more = f" +{len(node.calls) - 1}" if len(node.calls) > 1 else ""
        values = ", ".join(str(value) for value in call.arguments.values())
        cell.label = shorten(values if call.name == tool else f"{call.name} {values}", MOST - len(more)) + more
        cell.note = shorten(f"! {call.failed}" if call.failed else f"→ {call.output}", room)
    elif node.answer is not None:
        cell.label = shorten(f"answer {node.answer}", MOST)
    else:
        cell.label = shorten(node.text, MOST)


def _width(cell: Cell) -> float:
    note = columns(cell.note) + (len(cell.advantage) + 2 if cell.note and cell.advantage else len(cell.advantage))
    flag = 76 if cell.node.critical else 0
    return max(columns(cell.label) * LABEL * CHARACTER, max(note, NARROW) * NOTE * CHARACTER, flag)


def _kinds(tree: Tree) -> set[str]:
    kinds = {"probe" for node in tree.steps if node.is_probe}
    kinds |= {"critical" for node in tree.steps if node.critical}
    kinds |= {"advantage" for node in tree.steps if node.terms}
    kinds |= {"branch" for node in tree.nodes if len(node.children) > 1}
    return kinds | {"unjudged" for node in tree.nodes if not node.children and node.success is None}
