// Paths that look alike become one element: a tree of thousands of steps would be slow as elements of their own.

class Ink {
  constructor() {
    this.looks = new Map();
  }

  // kind is its class; wide (of a stroke) and strong (its opacity) have few values
  add(kind, d, wide = null, strong = 1) {
    const key = `${kind}|${wide}|${strong}`;
    let look = this.looks.get(key);
    if (!look) this.looks.set(key, (look = { kind, wide, strong, parts: [] }));
    look.parts.push(d);
  }

  elements() {
    const below = ({ kind }) => (kind.startsWith("glyph") ? 1 : 0); // marks first, what is written on them last
    return [...this.looks.values()].sort((a, b) => below(a) - below(b)).map(({ kind, wide, strong, parts }) =>
      s("path", { class: kind, d: parts.join(""), "stroke-width": wide, opacity: strong === 1 ? null : strong }));
  }
}

const px = (value) => Math.round(value * 10) / 10;
const disc = (x, y, r) => `M${px(x - r)} ${px(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
const square = (x, y, r) => `M${px(x - r)} ${px(y - r)}h${2 * r}v${2 * r}h${-2 * r}z`;
const GLYPHS = { won: "m-3 .2l2 2.2 4-4.6", lost: "m-2.4-2.4l4.8 4.8m0-4.8l-4.8 4.8", open: "m-2.5 0h5" };

// The runs of a step, from the height a at x0 to the height b, which is reached at `turn`, and on to x1. A thick stroke
// in a narrow bend would bulge: from some width on it is an area between two curves.
function addBand(ink, kind, { x0, turn, x1, a, b }, wide, { probe, faint, strong }) {
  const half = px((x0 + turn) / 2);
  [x0, turn, x1] = [x0, turn, x1].map(px);
  if (wide < 5 || probe) {
    [a, b] = [px(a + wide / 2), px(b + wide / 2)];
    ink.add(`band ${kind}${probe ? " probe" : ""}${faint}`, `M${x0} ${a}C${half} ${a} ${half} ${b} ${turn} ${b}H${x1}`, px(wide), strong);
  } else {
    const [a2, b2] = [px(a + wide), px(b + wide)];
    [a, b] = [px(a), px(b)];
    ink.add(`ribbon ${kind}${faint}`, `M${x0} ${a}C${half} ${a} ${half} ${b} ${turn} ${b}H${x1}V${b2}H${turn}C${half} ${b2} ${half} ${a2} ${x0} ${a2}Z`, null, strong);
  }
}
