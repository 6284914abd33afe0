// One drawing of a tree: steps from left to right, a row a run. Only what is in sight is in the document.

const LEFT = 26, TOP = 26, RIGHT = 64;
const SEEN = 200; // pixels above and below the window that are drawn too

class Panel {
  constructor(host, name, onSelect) {
    this.name = name;
    this.heading = h("h2", { hidden: true });
    this.svg = s("svg", { class: "tree" });
    this.scroll = h("div", { class: "scroll", tabindex: 0, role: "tree", "aria-label": "rollout tree" }, this.svg);
    this.element = h("div", { class: "panel" }, this.heading, this.scroll);
    host.append(this.element);
    this.svg.addEventListener("click", (event) => {
      const step = event.target.closest("[data-node]");
      if (step) onSelect(Number(step.dataset.node));
      this.scroll.focus({ preventScroll: true });
    });
    this.scroll.addEventListener("scroll", () => this.later());
    new ResizeObserver(() => this.model && !this.printing && this.resize()).observe(this.scroll);
  }

  later() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  // look: {time, chosen, bright, colour, credit, zoom, title}
  show(model, look) {
    const other = this.model !== model || this.look?.zoom !== look.zoom || this.look?.title !== look.title;
    [this.model, this.look] = [model, look];
    this.heading.hidden = !look.title;
    this.heading.textContent = look.title ?? "";
    this.counts = model.count(look.time);
    this.marked = model.critical(look.credit, look.time);
    this.scale = look.credit.nodes.reduce((most, c) => Math.max(most, Math.abs(c?.advantage ?? 0)), 0);
    this.trail = new Set(look.chosen === null ? [] : model.path(model.nodes[look.chosen]).map((n) => n.index));
    if (other) this.resize();
    else this.draw();
  }

  resize() {
    const { model, look } = this;
    const rows = Math.max(1, model.ends.length);
    const room = { x: this.scroll.clientWidth || 800, y: this.scroll.clientHeight || 600 };
    this.row = Math.max(5, Math.min(36, (room.y - TOP - 12) / rows)) * look.zoom;
    this.column = Math.max(22, (room.x - LEFT - RIGHT - 4) / Math.max(1, model.depth)) * look.zoom;
    this.column = Math.min(this.column, 190 * look.zoom);
    this.thread = Math.min(3, this.row * 0.55, Math.max(0.25, 110 / model.bundle));
    this.width = LEFT + model.depth * this.column + RIGHT;
    this.height = Math.ceil(TOP + rows * this.row + 10);
    for (const [name, value] of Object.entries({ width: this.width, height: this.height })) this.svg.setAttribute(name, value);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.draw();
  }

  x = (node) => LEFT + node.depth * this.column;
  y = (node) => TOP + (node.row + 0.5) * this.row;
  size = (index) => (this.counts.runs[index] ? Math.max(1, this.counts.runs[index] * this.thread) : 1);

  draw() {
    const { model } = this;
    const whole = this.printing;
    const low = whole ? -Infinity : this.scroll.scrollTop - SEEN;
    const high = whole ? Infinity : this.scroll.scrollTop + this.scroll.clientHeight + SEEN;
    const bands = [], marks = [], flags = []; // a flag stands before all else
    for (const node of model.nodes) {
      const [y, from] = [this.y(node), node.parent ? this.y(node.parent) : this.y(node)];
      if (Math.max(y, from) < low || Math.min(y, from) > high) continue;
      if (node.parent) bands.push(this.band(node));
      (this.marked.has(node.index) ? flags : marks).push(this.mark(node, y >= low && y <= high));
    }
    const heads = Array.from({ length: model.depth }, (_, i) =>
      s("text", { class: "muted", x: LEFT + (i + 1) * this.column, y: 13, "text-anchor": "middle" }, i % this.every() ? "" : String(i + 1)));
    this.svg.replaceChildren(s("text", { class: "muted", x: 4, y: 13 }, "step"), ...heads, ...bands, ...marks, ...flags);
    const chosen = this.look.chosen;
    if (chosen === null) this.scroll.removeAttribute("aria-activedescendant");
    else this.scroll.setAttribute("aria-activedescendant", `${this.name}-${chosen}`);
  }

  every = () => Math.ceil(26 / this.column);

  faint(node) {
    if (!this.model.isSampled(node, this.look.time)) return " later";
    return this.look.bright && !this.look.bright.has(node.index) ? " dim" : "";
  }

  // The runs through a step as bands side by side, those that succeed above.
  band(node) {
    const { counts, look } = this;
    const parent = node.parent;
    let start = this.y(parent) - this.size(parent.index) / 2;
    for (const child of parent.children) {
      if (child === node) break;
      start += counts.runs[child.index] * this.thread;
    }
    const [x0, x1, y] = [this.x(parent), this.x(node), this.y(node)];
    const size = this.size(node.index);
    const turn = x0 + Math.min(this.column * 0.42, 60), half = (x0 + turn) / 2;
    const curve = (a, b) => [x0, a, half, a, half, b, turn, b, x1].map((v) => v.toFixed(1));
    const line = (offset, width) => {
      const [p, q, r, s, t, u, v, w, end] = curve(start + offset + width / 2, y - size / 2 + offset + width / 2);
      return `M${p} ${q}C${r} ${s} ${t} ${u} ${v} ${w}H${end}`;
    };
    // a thick stroke in a narrow bend bulges: from some width on the runs are an area between two curves
    const shape = (kind, offset, width, strength = 1) => {
      if (width < 5 || node.probe) {
        return s("path", { class: `band ${kind}${node.probe ? " probe" : ""}`, d: line(offset, width), "stroke-width": width, opacity: strength });
      }
      const [p, q, r, , t, u, v, , end] = curve(start + offset, y - size / 2 + offset);
      const [, low, , , , below] = curve(start + offset + width, y - size / 2 + offset + width);
      return s("path", { class: `ribbon ${kind}`, d: `M${p} ${q}C${r} ${q} ${t} ${u} ${v} ${u}H${end}V${below}H${v}C${t} ${below} ${r} ${low} ${p} ${low}Z`, opacity: strength });
    };
    const paths = [];
    if (this.trail.has(node.index)) paths.push(s("path", { class: "trail", d: line(0, size), "stroke-width": size + 7 }));
    if (look.colour === "success") {
      const [won, lost] = [counts.won[node.index], counts.lost[node.index]];
      const parts = [["won", won], ["lost", lost], ["open", counts.runs[node.index] - won - lost]].filter(([, n]) => n > 0);
      if (parts.length === 0) parts.push([outcome(node), 1]);
      const unit = size / parts.reduce((sum, [, n]) => sum + n, 0);
      let offset = 0;
      for (const [kind, n] of parts) {
        paths.push(shape(kind, offset, n * unit));
        offset += n * unit;
      }
    } else {
      const [kind, strength] = this.tone(node);
      paths.push(shape(kind, 0, Math.max(1.5, size), strength));
    }
    paths.push(s("path", { class: "hit", d: line(0, size), "stroke-width": Math.max(size, Math.min(12, this.row)) }));
    return s("g", { "data-node": node.index, class: this.faint(node) }, paths);
  }

  tone(node) {
    if (this.look.colour === "entropy") return ["hot", Math.max(0.12, Math.min(1, Math.sqrt(mean(node.entropies) ?? 0)))];
    const value = this.look.credit.nodes[node.index]?.advantage;
    if (!value) return ["", 0.45];
    return [value > 0 ? "plus" : "minus", 0.25 + (0.75 * Math.abs(value)) / this.scale];
  }

  mark(node, inSight) {
    const [x, y] = [this.x(node), this.y(node)];
    const { won, runs } = this.counts;
    const parts = [];
    const critical = this.marked.has(node.index);
    const end = node.children.length === 0;
    const roomy = this.row >= 15 && this.column >= 62;
    if (critical) parts.push(...this.flag(x, y, roomy));
    if (end && node.parent) parts.push(...this.end(node, x, y, critical));
    else if (node.children.length > 1 && runs[node.index] > 1 && this.column >= 40) {
      const words = `${won[node.index]}/${runs[node.index]}`, wide = 9 + 5.6 * words.length;
      parts.push(s("rect", { class: critical ? "ring" : "pill", x: x - wide / 2, y: y - 7.5, width: wide, height: 15, rx: 7.5 }));
      parts.push(s("text", { class: "pill-text", x, y: y + 3.4 }, words));
    } else if (critical) parts.push(s("circle", { class: "ring", cx: x, cy: y, r: Math.min(5, this.row * 0.7) }));
    else parts.push(s("circle", { class: "dot", cx: x, cy: y, r: Math.min(2.6, this.row * 0.3) }));
    if (node.index === this.look.chosen) parts.push(s("circle", { class: "chosen", cx: x, cy: y, r: Math.max(6, Math.min(11, this.row * 0.6)) }));
    if (roomy && inSight && node.parent) parts.push(this.words(node, x, y));
    return s("g", {
      "data-node": node.index, class: this.faint(node), id: `${this.name}-${node.index}`, role: "treeitem",
      "aria-level": node.depth + 1, "aria-selected": node.index === this.look.chosen, "aria-label": this.describe(node, critical),
    }, parts);
  }

  words(node, x, y) {
    const most = Math.floor((this.column - 20) / 5.9);
    return s("text", { x: x - 12, y: y - this.size(node.index) / 2 - 4, "text-anchor": "end", class: "mono" }, shorten(label(node), most));
  }

  flag(x, y, roomy) {
    const high = Math.min(18, this.row * 0.9);
    if (!roomy) return [s("path", { class: "mast", d: `M${x} ${y}v${-high - 3}l7 3.5l-7 3.5` })];
    return [
      s("path", { class: "mast", d: `M${x - 1} ${y}v${-high}h2v${high}z` }),
      s("rect", { class: "mast", x: x + 1, y: y - high - 1, width: 52, height: 13, rx: 3 }),
      s("text", { class: "mast-text", x: x + 5, y: y - high + 8.8 }, "first fault"),
    ];
  }

  end(node, x, y, critical) {
    const kind = outcome(node), r = Math.min(6, Math.max(1.8, this.row * 0.36));
    const parts = [s("rect", { class: `end ${kind}`, x: x - r, y: y - r, width: 2 * r, height: 2 * r, rx: kind === "lost" ? 1.5 : r })];
    if (critical) parts.unshift(s("circle", { class: "ring", cx: x, cy: y, r: r + 3 }));
    if (r >= 4.5) {
      const glyph = { won: "M-3 .2l2 2.2 4-4.6", lost: "M-2.4-2.4l4.8 4.8m0-4.8l-4.8 4.8", open: "M-2.5 0h5" }[kind];
      parts.push(s("path", { class: "glyph", d: glyph, transform: `translate(${x} ${y})` }));
    }
    if (this.row >= 11 && node.reward !== undefined) parts.push(s("text", { x: x + r + 5, y: y + 3.6 }, number(node.reward)));
    return parts;
  }

  describe(node, critical) {
    const { all } = this.model;
    const runs = `${all.won[node.index]} of ${all.runs[node.index]} runs succeed`;
    if (!node.parent) return `prompt, ${runs}`;
    const kind = node.children.length ? runs : OUTCOMES[outcome(node)];
    return `step ${node.depth} of rollout ${node.rollout}, ${shorten(label(node), 60)}, ${kind}${critical ? ", first fault" : ""}`;
  }

  // Bring a step into sight, if it isn't.
  reveal(index) {
    const node = this.model.nodes[index];
    const see = (at, size, now, margin) => (at < now + margin ? at - size / 3 : at > now + size - margin ? at - (size * 2) / 3 : now);
    const { scroll } = this;
    scroll.scrollTop = see(this.y(node), scroll.clientHeight, scroll.scrollTop, 24);
    scroll.scrollLeft = see(this.x(node), scroll.clientWidth, scroll.scrollLeft, 70);
  }

  print(on) {
    this.printing = on;
    if (this.model) this.draw();
  }
}
