// The metrics of the run, a small curve each, with the iteration in sight marked.

const [WIDE, HIGH] = [240, 44];

function drawCurves(host, metrics, iteration, onPick) {
  const steps = metrics.iterations;
  const first = steps[0], span = Math.max(1, steps[steps.length - 1] - first);
  const x = (i) => 4 + ((i - first) / span) * (WIDE - 8);
  const curve = ({ name, help, values }) => {
    const known = values.filter((v) => v !== null);
    if (known.length === 0) return null;
    const low = Math.min(...known), high = Math.max(...known);
    const y = (v) => (high === low ? HIGH / 2 : HIGH - 5 - ((v - low) / (high - low)) * (HIGH - 10));
    const lines = [[]]; // broken where an iteration has no number
    values.forEach((v, i) => (v === null ? lines.push([]) : lines[lines.length - 1].push(`${x(steps[i]).toFixed(1)},${y(v).toFixed(1)}`)));
    const now = values[steps.indexOf(iteration)];
    const svg = s("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `${name}: from ${number(values[0])} to ${number(values[values.length - 1])}` },
      s("rect", { width: WIDE, height: HIGH, rx: 4 }),
      s("line", { class: "now", x1: x(iteration), x2: x(iteration), y1: 0, y2: HIGH }),
      lines.filter((points) => points.length).map((points) => s("polyline", { points: points.join(" ") })));
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      const at = first + (((event.clientX - box.left) / box.width) * WIDE - 4) / (WIDE - 8) * span;
      onPick(Math.round(at));
    });
    const range = known.length > 1 ? `${number(low)} to ${number(high)}` : "";
    return h("div", { class: "curve" },
      h("div", { class: "name", title: help ? `${help} (${range})` : range }, h("span", {}, name), h("span", { class: "mono" }, number(now))), svg);
  };
  host.replaceChildren(...metrics.series.filter((of) => of.name !== "iteration").map(curve).filter(Boolean));
}
