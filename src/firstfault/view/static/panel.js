// One drawing of a tree: steps from left to right, a row a run. Only what is in sight, and a little more, is drawn.

const LEFT = 26, TOP = 26, RIGHT = 64;

class Panel {
  constructor(host, name, onSelect) {
    this.name = name;
    this.heading = h("h2", { hidden: true });
    [this.trail, this.base, this.choice] = [s("g"), s("g"), s("g")]; // what a choice changes lies below and above the rest
    this.svg = s("svg", { class: "tree" }, this.trail, this.base, this.choice);
    this.scroll = h("div", { class: "scroll", tabindex: 0, role: "tree", "aria-label": "rollout tree" }, this.svg);
    this.element = h("div", { class: "panel" }, this.heading, this.scroll);
    host.append(this.element);
    this.svg.addEventListener("click", (event) => {
      const box = this.svg.getBoundingClientRect();
      const node = this.at(event.clientX - box.left, event.clientY - box.top);
      if (node) onSelect(node.index);
      this.scroll.focus({ preventScroll: true });
    });
    this.scroll.addEventListener("scroll", () => (this.pending ??= requestAnimationFrame(() => this.scrolled())));
    new ResizeObserver(() => this.model && !this.printing && this.resize()).observe(this.scroll);
  }

  // look: {time, chosen, bright, colour, credit, zoom, title}
  show(model, look) {
    const [before, same] = [this.look, this.model === model];
    [this.model, this.look] = [model, look];
    const changed = (...names) => !same || names.some((name) => before[name] !== look[name]);
    if (changed("time", "bright", "colour", "credit", "zoom", "title")) {
      this.heading.hidden = !look.title;
      this.heading.textContent = look.title ?? "";
      this.counts = model.count(look.time);
      this.marked = model.critical(look.credit, look.time);
      this.scale = look.credit.nodes.reduce((most, c) => Math.max(most, Math.abs(c?.advantage ?? 0)), 0);
      if (changed("zoom", "title")) this.resize();
      else this.draw();
    } else this.choose();
  }

  resize() {
    const { model, look } = this;
    const rows = Math.max(1, model.ends.length);
    const room = { x: this.scroll.clientWidth || 800, y: this.scroll.clientHeight || 600 };
    this.row = Math.max(5, Math.min(36, (room.y - TOP - 12) / rows)) * look.zoom;
    const column = Math.max(22, (room.x - LEFT - RIGHT - 4) / Math.max(1, model.depth));
    this.column = Math.min(column, 190) * look.zoom;
    this.thread = Math.min(3, this.row * 0.4, Math.max(0.25, 110 / model.bundle));
    this.width = LEFT + model.depth * this.column + RIGHT;
    this.height = Math.ceil(TOP + rows * this.row + 10);
    fill(this.svg, { width: this.width, height: this.height, viewBox: `0 0 ${this.width} ${this.height}` }, []);
    this.draw();
  }

  x = (node) => LEFT + node.depth * this.column;
  y = (node) => TOP + (node.row + 0.5) * this.row;
  size = (index) => Math.max(1, this.counts.runs[index] * this.thread);

  // The step whose line ends or runs here, if one is near.
  at(x, y) {
    const depth = Math.min(this.model.depth, Math.max(0, Math.ceil((x - LEFT - 9) / this.column)));
    const away = (node) => Math.max(0, Math.abs(this.y(node) - y) - this.size(node.index) / 2);
    const near = this.model.columns[depth].reduce((best, node) => (best && away(best) <= away(node) ? best : node), null);
    return near && away(near) < Math.max(14, this.row) ? near : null;
  }

  scrolled() {
    this.pending = null;
    const { scrollTop, clientHeight } = this.scroll;
    if (scrollTop < this.drawn.low || scrollTop + clientHeight > this.drawn.high) this.draw();
  }

  draw() {
    const { model } = this;
    const { scrollTop, clientHeight } = this.scroll;
    const more = Math.min(250, clientHeight);
    this.drawn = this.printing ? { low: -Infinity, high: Infinity } : { low: scrollTop - more, high: scrollTop + clientHeight + more };
    const { low, high } = this.drawn;
    const [bands, marks, single] = [new Ink(), new Ink(), []];
    for (const node of model.nodes) {
      const y = this.y(node), from = node.parent ? this.y(node.parent) : y;
      if (Math.max(y, from) < low || Math.min(y, from) > high) continue;
      const faint = this.faint(node);
      if (node.parent) this.band(bands, node, faint);
      if (y >= low && y <= high) this.mark(marks, single, node, faint);
    }
    const every = Math.ceil(26 / this.column);
    const heads = Array.from({ length: model.depth }, (_, i) =>
      s("text", { class: "muted", x: LEFT + (i + 1) * this.column, y: 13, "text-anchor": "middle" }, i % every ? "" : String(i + 1)));
    this.base.replaceChildren(s("text", { class: "muted", x: 4, y: 13 }, "step"), ...heads, ...bands.elements(), ...marks.elements(),
      ...single.filter((part) => !part.flag).map((part) => part.element), ...single.filter((part) => part.flag).map((part) => part.element));
    this.choose();
  }

  faint(node) {
    if (!this.model.isSampled(node, this.look.time)) return " later";
    return this.look.bright && !this.look.bright.has(node.index) ? " dim" : "";
  }

  // Where the line of a step goes.
  course(node) {
    const { parent } = node;
    let a = this.y(parent) - this.size(parent.index) / 2;
    for (const child of parent.children) {
      if (child === node) break;
      a += this.counts.runs[child.index] * this.thread;
    }
    const x0 = this.x(parent);
    return { x0, x1: this.x(node), turn: x0 + Math.min(this.column * 0.42, 60), a, b: this.y(node) - this.size(node.index) / 2 };
  }

  // The runs through a step side by side, those that succeed above.
  band(ink, node, faint) {
    const course = this.course(node), size = this.size(node.index);
    const look = { probe: node.probe, faint, strong: 1 };
    if (this.look.colour !== "success") {
      const [kind, strong] = this.tone(node);
      return addBand(ink, kind, course, Math.max(1.5, size), { ...look, strong: Math.round(strong * 10) / 10 });
    }
    const { won, lost, runs } = this.counts;
    const i = node.index;
    const parts = [["won", won[i]], ["lost", lost[i]], ["open", runs[i] - won[i] - lost[i]]].filter(([, n]) => n > 0);
    if (parts.length === 0) parts.push([outcome(node), 1]);
    const unit = size / parts.reduce((sum, [, n]) => sum + n, 0);
    for (const [kind, n] of parts) {
      addBand(ink, kind, course, n * unit, look);
      course.a += n * unit;
      course.b += n * unit;
    }
  }

  tone(node) {
    if (this.look.colour === "entropy") return ["hot", Math.max(0.12, Math.min(1, Math.sqrt(mean(node.entropies) ?? 0)))];
    const value = this.look.credit.nodes[node.index]?.advantage;
    if (!value) return ["", 0.4];
    return [value > 0 ? "plus" : "minus", 0.25 + (0.75 * Math.abs(value)) / this.scale];
  }

  mark(ink, single, node, faint) {
    const [x, y] = [this.x(node), this.y(node)];
    const { won, runs } = this.counts;
    const critical = this.marked.has(node.index), end = node.children.length === 0 && node.parent;
    const roomy = this.row >= 15 && this.column >= 52;
    const put = (element, flag = false) => single.push({ element: fill(element, { class: `${element.getAttribute("class") ?? ""}${faint}` }, []), flag });
    if (critical) put(s("path", { class: "mast", d: `M${px(x) - 0.8} ${px(y)}v-22h1.6l10 5l-10 5v12z` }), true);
    if (end) this.end(ink, node, x, y, faint, put);
    else if (node.children.length > 1 && runs[node.index] > 1 && this.column >= 40) {
      const words = `${won[node.index]}/${runs[node.index]}`, wide = 9 + 5.6 * words.length;
      put(s("rect", { class: critical ? "ring" : "pill", x: x - wide / 2, y: y - 7.5, width: wide, height: 15, rx: 7.5 }), critical);
      put(s("text", { class: "pill-text", x, y: y + 3.4 }, words), critical);
    } else if (critical) put(s("circle", { class: "ring", cx: x, cy: y, r: Math.min(5, this.row * 0.7) }), true);
    else ink.add(`dot${faint}`, disc(x, y, px(Math.min(2.6, this.row * 0.3))));
    if (!roomy || !node.parent) return;
    const most = Math.floor((this.column - 14) / 5.9);
    put(s("text", { x: x - 9, y: y - this.size(node.index) / 2 - 4, "text-anchor": "end", class: "mono" }, shorten(label(node), most)));
  }

  end(ink, node, x, y, faint, put) {
    const kind = outcome(node), r = px(Math.min(6, Math.max(2.2, this.row * 0.36)));
    if (this.marked.has(node.index)) put(s("circle", { class: "halo", cx: x, cy: y, r: r + 3 }), true);
    ink.add(`end ${kind}${faint}`, kind === "lost" ? square(x, y, r) : disc(x, y, r));
    if (r >= 4.5) ink.add(`glyph${faint}`, `M${px(x)} ${px(y)}${GLYPHS[kind]}`);
    if (this.row >= 11 && node.reward !== undefined) put(s("text", { x: x + r + 5, y: y + 3.6 }, number(node.reward)));
  }

  // The step that is shown, and the way to it.
  choose() {
    const { chosen } = this.look;
    const node = this.model.nodes[chosen];
    const ink = new Ink();
    for (const step of this.model.path(node).slice(1)) {
      const course = this.course(step), wide = this.size(step.index) + 8;
      addBand(ink, "trail", { ...course, a: course.a - 4, b: course.b - 4 }, wide, { probe: true, faint: "" });
    }
    const item = s("g", {
      id: `${this.name}-${chosen}`, role: "treeitem", "aria-level": node.depth + 1, "aria-selected": "true", "aria-label": this.describe(node),
    }, s("circle", { class: "chosen", cx: this.x(node), cy: this.y(node), r: Math.max(6, Math.min(11, this.row * 0.6)) }));
    this.trail.replaceChildren(...ink.elements());
    this.choice.replaceChildren(item);
    this.scroll.setAttribute("aria-activedescendant", item.id);
  }

  describe(node) {
    const { all } = this.model;
    const runs = `${all.won[node.index]} of ${plural(all.runs[node.index], "run")} succeeded`;
    if (!node.parent) return `prompt, ${runs}`;
    const fault = this.marked.has(node.index) ? ", first fault" : "";
    return `step ${node.depth} of rollout ${node.rollout}, ${shorten(label(node), 60)}, ${node.children.length ? runs : OUTCOMES[outcome(node)]}${fault}`;
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
