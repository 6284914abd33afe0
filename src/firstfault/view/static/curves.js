// The metrics of the run, a small curve each, with the iteration in sight marked.

const [WIDE, HIGH] = [240, 44];

function drawCurves(host, curves, iteration, onPick) {
  const steps = curves.flatMap((curve) => curve.iterations);
  const first = Math.min(...steps), span = Math.max(1, Math.max(...steps) - first);
  const x = (i) => px(4 + ((i - first) / span) * (WIDE - 8));
  const draw = ({ name, help, iterations, values, low = [], high = [] }) => {
    const known = [...values, ...low, ...high].filter((v) => v !== null);
    if (known.length === 0) return null;
    const [least, most] = [Math.min(...known), Math.max(...known)];
    const y = (v) => px(most === least ? HIGH / 2 : HIGH - 5 - ((v - least) / (most - least)) * (HIGH - 10));
    const points = (of) => iterations.map((i, at) => (of[at] === null ? null : `${x(i)},${y(of[at])}`));
    const lines = [[]]; // broken where an iteration has no number
    for (const point of points(values)) point === null ? lines.push([]) : lines[lines.length - 1].push(point);
    const band = low.length ? [...points(low), ...points(high).reverse()].filter(Boolean).join(" ") : null;
    const svg = s("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: from ${number(values[0])} to ${number(values[values.length - 1])}` },
      s("rect", { width: WIDE, height: HIGH, rx: 4 }), band ? s("polygon", { points: band }) : null,
      s("line", { class: "now", x1: x(iteration), x2: x(iteration), y1: 0, y2: HIGH }),
      lines.filter((line) => line.length).map((line) => s("polyline", { points: line.join(" ") })));
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      onPick(Math.round(first + ((((event.clientX - box.left) / box.width) * WIDE - 4) / (WIDE - 8)) * span));
    });
    const now = values[iterations.indexOf(iteration)] ?? null;
    return h("div", { class: "curve" },
      h("div", { class: "name", title: [help, `${number(least)} to ${number(most)}`].filter(Boolean).join("; ") },
        h("span", {}, name), h("span", { class: "mono" }, now === null ? "" : number(now))), svg);
  };
  host.replaceChildren(...curves.map(draw).filter(Boolean));
}
