"""One rollout tree as a picture: a thread a run, from the prompt at the left to its reward at the right.

Colour is never alone: a won run ends in a disc with a tick, a lost one in a square with a cross; a branch point says
how many of its runs were won; the first fault carries a flag; probes (runs continued from a step) are dashed.
"""

from __future__ import annotations

from itertools import groupby

from firstfault.report.layout import LABEL, NOTE, Cell, Layout, lay_out
from firstfault.report.text import escape, middle_out, number, shorten, state_value
from firstfault.tree import Node, Tree

# The colours are Okabe and Ito's green and vermilion, which most colour-blind people tell apart. The picture brings
# its own background: as an image on a page it can't know which scheme the page around it has.
STYLE = f"""
.ff-tree {{ font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
.ff-tree text {{ fill: #1f2328; font-size: {NOTE}px; }}
.ff-tree .mono {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.ff-tree .label {{ font-size: {LABEL}px; }}
.ff-tree .muted {{ fill: #656d76; }}
.ff-tree .head {{ font-size: 13.5px; font-weight: 600; }}
.ff-tree .pill-text {{ font-weight: 600; text-anchor: middle; }}
.ff-tree .strong {{ font-weight: 600; }}
.ff-tree .failed {{ fill: #a04000; font-weight: 600; }}
.ff-tree .paper {{ fill: #ffffff; stroke: #d8dee4; }}
.ff-tree .rule {{ stroke: #eaeef2; }}
.ff-tree .leader {{ stroke: #c5ccd3; stroke-dasharray: 1 4; stroke-linecap: round; }}
.ff-tree .thread {{ fill: none; }}
.ff-tree .won {{ stroke: #00936b; }} .ff-tree .won-fill {{ fill: #00936b; }}
.ff-tree .lost {{ stroke: #d55e00; }} .ff-tree .lost-fill {{ fill: #d55e00; }}
.ff-tree .open {{ stroke: #8c959f; }} .ff-tree .open-fill {{ fill: #8c959f; }}
.ff-tree .glyph {{ fill: none; stroke: #ffffff; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }}
.ff-tree .dot {{ fill: #ffffff; stroke: #57606a; stroke-width: 1.4; }}
.ff-tree .pill {{ fill: #ffffff; stroke: #57606a; stroke-width: 1.2; }}
.ff-tree .flag {{ fill: #a30d2d; }} .ff-tree .ring {{ fill: #ffffff; stroke: #a30d2d; stroke-width: 2.6; }}
.ff-tree text.flag-text {{ fill: #ffffff; font-weight: 700; text-anchor: middle; }}
@media (prefers-color-scheme: dark) {{
.ff-tree text {{ fill: #e6edf3; }} .ff-tree .muted {{ fill: #9198a1; }} .ff-tree .failed {{ fill: #f0a35e; }}
.ff-tree .paper {{ fill: #0d1117; stroke: #30363d; }} .ff-tree .rule {{ stroke: #1c232c; }}
.ff-tree .leader {{ stroke: #3d444d; }}
.ff-tree .won {{ stroke: #1fb88c; }} .ff-tree .won-fill {{ fill: #1fb88c; }}
.ff-tree .lost {{ stroke: #f07b2c; }} .ff-tree .lost-fill {{ fill: #f07b2c; }}
.ff-tree .glyph {{ stroke: #0d1117; }}
.ff-tree .dot, .ff-tree .pill {{ fill: #0d1117; stroke: #b1bac4; }}
.ff-tree .flag {{ fill: #ff6b81; }} .ff-tree .ring {{ fill: #0d1117; stroke: #ff6b81; }}
.ff-tree text.flag-text {{ fill: #0d1117; }}
}}
"""

REWARDS = 128  # width of the column of the rewards


def tree_svg(tree: Tree) -> str:
    """A standalone SVG of the tree: it fits an HTML page, a README and a paper, in light and dark."""
    layout = lay_out(tree)
    legend, legend_height, needed = _legend(layout)
    width = max(layout.right + REWARDS, needed, 440)
    height = layout.bottom + 14 + legend_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ff-tree" role="img" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" aria-label="{escape(_summary(tree, layout))}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>',
        *_head(tree, layout, width),
        *(_threads(cell, layout) for cell in layout.cells[1:]),
        *(_step(cell, layout) for cell in layout.cells),
        *(_end(cell, layout) for cell in layout.cells[1:] if not cell.node.children),
        f'<g transform="translate(16 {layout.bottom + 14:.0f})">{legend}</g>',
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _summary(tree: Tree, layout: Layout) -> str:
    root = layout.cells[0]
    return f"Rollout tree: {root.successes} of {len(root.ends)} runs succeed. {shorten(tree.task.question, 120)}"


def _head(tree: Tree, layout: Layout, width: float) -> list[str]:
    question = shorten(tree.task.question, int((width - 32) / 7.2))
    known = f"expected {shorten(tree.task.answer, 40)}" if tree.task.answer else ""
    facts = [known, f"tool {shorten(layout.tool, 40)}" if layout.tool else ""]
    lines = [
        f'<text class="head" x="16" y="26">{escape(question)}<title>{escape(middle_out(tree.task.question, 600))}'
        "</title></text>",
        f'<text class="muted" x="16" y="42">{escape(" · ".join(fact for fact in facts if fact))}</text>',
    ]
    for number_of_step, x in enumerate(layout.heads, start=1):
        lines.append(f'<path class="rule" d="M{x:.1f} 66V{layout.bottom:.1f}"/>')
        lines.append(f'<text class="muted" x="{x:.1f}" y="60" text-anchor="middle">{number_of_step}</text>')
    lines.append('<text class="muted" x="16" y="60">step</text>')
    lines.append(f'<text class="muted" x="{layout.right + 13:.1f}" y="60">reward</text>')
    return lines


def _outcome(end: Node) -> str:
    return "open" if end.success is None else "won" if end.success else "lost"


def _threads(cell: Cell, layout: Layout) -> str:
    """The step from its parent: the threads of all runs through it, neighbours of one outcome as one stroke."""
    parent = layout.cells[cell.node.parent.index]
    first = next(i for i, end in enumerate(parent.ends) if end is cell.ends[0])
    dash = ' stroke-dasharray="5 3.5"' if cell.node.is_probe else ""
    paths, done = [], 0
    for outcome, group in groupby(cell.ends, key=_outcome):
        count = len(list(group))
        start = parent.y + (first + done + count / 2 - len(parent.ends) / 2) * layout.thread
        stop = cell.y + (done + count / 2 - len(cell.ends) / 2) * layout.thread
        half, turned = parent.x + cell.bend / 2, parent.x + cell.bend
        curve = f"C{half:.1f} {start:.1f} {half:.1f} {stop:.1f} {turned:.1f} {stop:.1f}"
        paths.append(
            f'<path class="thread {outcome}" stroke-width="{count * layout.thread:.2f}"{dash}'
            f' d="M{parent.x:.1f} {start:.1f}{curve}H{cell.x:.1f}"/>'
        )
        done += count
    return "".join(paths)


def _step(cell: Cell, layout: Layout) -> str:
    """The mark of a node with the words of its step."""
    node, x, y = cell.node, cell.x, cell.y
    thick = len(cell.ends) * layout.thread / 2
    above, below = y - thick - 4, y + thick + NOTE + 1.5
    parts = [f"<title>{escape(_tooltip(cell))}</title>"]
    if node.critical:
        parts.append(f'<rect class="flag" x="{x - 68:.1f}" y="{above - 25:.1f}" width="68" height="14" rx="3"/>')
        parts.append(f'<text class="flag-text" x="{x - 34:.1f}" y="{above - 14.8:.1f}">first fault</text>')
        parts.append(f'<path class="flag" d="M{x - 1.2:.1f} {above - 23:.1f}h2.4V{y:.1f}h-2.4z"/>')
    if cell.branches:
        words = f"{cell.successes}/{len(cell.ends)}"
        wide, high = 9 + 5.6 * len(words), max(15, 2 * thick + 4)
        parts.append(
            f'<rect class="{"ring" if node.critical else "pill"}" x="{x - wide / 2:.1f}" y="{y - high / 2:.1f}"'
            f' width="{wide:.1f}" height="{high:.1f}" rx="7.5"/>'
            f'<text class="pill-text" x="{x:.1f}" y="{y + 3.4:.1f}">{words}</text>'
        )
    elif node.children or node.critical:
        ring = ('class="ring"', 5) if node.critical else ('class="dot"', 2.8)
        parts.append(f'<circle {ring[0]} cx="{x:.1f}" cy="{y:.1f}" r="{ring[1]}"/>')
    if cell.label:
        parts.append(f'<text class="mono label" x="{cell.text_x:.1f}" y="{above:.1f}">{escape(cell.label)}</text>')
    if cell.note:
        kind = "failed" if any(call.failed for call in node.calls) else "muted"
        parts.append(f'<text class="mono {kind}" x="{cell.text_x:.1f}" y="{below:.1f}">{escape(cell.note)}</text>')
    if cell.advantage:
        edge = x - (16 if cell.branches else 7)
        parts.append(
            f'<text class="mono muted" x="{edge:.1f}" y="{below:.1f}" text-anchor="end">{cell.advantage}</text>'
        )
    return f"<g>{''.join(parts)}</g>"


def _tooltip(cell: Cell) -> str:
    """All that is known of a step, for the pointer."""
    node = cell.node
    if node.parent is None:
        return f"prompt\n{cell.successes} of {len(cell.ends)} runs succeed"
    lines = [f"step {node.depth}, sampled by rollout {node.rollout}{' (probe)' if node.is_probe else ''}"]
    lines.append(f"{cell.successes} of {len(cell.ends)} runs through it succeed")
    if node.advantage is not None:
        lines.append(f"advantage {node.advantage:+.3f}")
    if value := state_value(node):
        lines.append(f"value {value}")
    if node.critical:
        lines.append("first fault: the first step that the run couldn't recover from")
    lines.append(middle_out(node.text.strip(), 400))
    for call in node.calls:
        lines.append(middle_out(f"→ {call.output}" if call.failed is None else f"! {call.failed}", 300))
    return "\n".join(line for line in lines if line)


def _end(cell: Cell, layout: Layout) -> str:
    """The mark and the reward of a run."""
    node, y, x = cell.node, cell.y, layout.right
    outcome = _outcome(node)
    leader = f'<path class="leader" d="M{cell.x + 8:.1f} {y:.1f}H{x - 12:.1f}"/>' if x - cell.x > 30 else ""
    reward = "" if node.reward is None else f'<tspan class="strong">{number(node.reward)}</tspan>'
    how = "unfinished" if node.end is None else "" if node.end == "answer" else node.end.replace("_", " ")
    kind = "probe" if node.is_probe else "run"
    words = escape(shorten(" · ".join(part for part in (f"{kind} {node.rollout}", how) if part), 26))
    return (
        f'{leader}{_mark(outcome, x, y)}<text x="{x + 13:.1f}" y="{y + 3.6:.1f}">{reward}'
        f'<tspan class="muted" x="{x + 38:.1f}">{words}</tspan></text>'
    )


def _mark(outcome: str, x: float, y: float) -> str:
    glyphs = {"won": "M-3.2 .2l2.2 2.4 4.2-4.8", "lost": "M-2.6-2.6l5.2 5.2m0-5.2l-5.2 5.2", "open": "M-2.5 0h5"}
    corner = 2 if outcome == "lost" else 7
    return (
        f'<g transform="translate({x:.1f} {y:.1f})"><rect class="{outcome}-fill" x="-7" y="-7" width="14" height="14"'
        f' rx="{corner}"/><path class="glyph" d="{glyphs[outcome]}"/></g>'
    )


def _legend(layout: Layout) -> tuple[str, float, float]:
    """What the marks mean, on one line; its height, and the width it needs."""
    thread = '<path class="thread open" stroke-width="3"{} d="M-8 0h16"/>'
    entries = [(_mark("won", 0, 0), "success"), (_mark("lost", 0, 0), "failure")]
    optional = [
        ("unjudged", _mark("open", 0, 0), "not judged"),
        ("probe", thread.format(' stroke-dasharray="5 3.5"'), "probe: continued from a step"),
        ("critical", '<circle class="ring" r="5"/>', "first fault"),
        ("branch", '<rect class="pill" x="-9" y="-7" width="18" height="14" rx="7"/>', "successes / runs below"),
        ("advantage", '<text class="mono muted" y="3.4" text-anchor="middle">±0.0</text>', "advantage"),
    ]
    entries += [(mark, words) for kind, mark, words in optional if kind in layout.kinds]
    x, parts = 8.0, []
    for mark, words in entries:
        parts.append(f'<g transform="translate({x:.1f} 6)">{mark}<text class="muted" x="15" y="3.4">{words}</text></g>')
        x += 38 + 5.1 * len(words)
    return "".join(parts), 26, x + 16
