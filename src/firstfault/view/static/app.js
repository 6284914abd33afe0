// What is in sight, its address, and the keys.

const KEYS = [
  ["← → ↑ ↓", "walk the tree"], ["Home", "to the prompt"], ["c", "next first fault"], ["[ ]", "tree before, tree after"],
  ["{ }", "iteration before, iteration after"], ["space", "play the search, or pause"], [", .", "one rollout back, one on"],
  ["/", "search; Enter goes from match to match"], ["f", "next filter"], ["- +", "smaller, larger"], ["?", "these keys"], ["Esc", "leave a field or this list"],
];

// The tree to begin with where none is named: the first that has a first fault, else the first that teaches something.
const telling = (trees) => [FILTERS.critical[2], (tree) => tree.gradient].map((has) => trees.findIndex(has)).find((i) => i >= 0) ?? 0;

const tellMatches = (n) => (n === 1 ? "1 step matches" : `${n} steps match`);

class App {
  constructor() {
    this.store = new Store();
    this.state = { iteration: null, tree: null, node: 0, at: null, filter: "all", q: "", credit: [], colour: "success" };
    this.zoom = 1;
    this.detail = new Detail($("detail"), (node) => this.go({ node }));
    this.sidebar = new Sidebar((tree) => this.go({ tree, node: 0, at: null }), (filter) => this.go({ filter }));
    this.player = new Player((at) => this.go({ at }));
    this.panels = ["a", "b"].map((name) => new Panel($("panels"), name, (node) => this.go({ node })));
    this.panels.forEach((panel, i) => panel.scroll.addEventListener("scroll", () => {
      const other = this.panels[1 - i].scroll;
      if (Math.abs(other.scrollTop - panel.scroll.scrollTop) > 1) other.scrollTop = panel.scroll.scrollTop;
    }));
  }

  async start() {
    this.index = await this.store.get("index");
    document.title = `${this.index.title} – firstfault`;
    $("title").textContent = `${this.index.title}  (${this.index.source})`;
    $("iteration").append(...this.index.iterations.map((i) => h("option", { value: i }, String(i))));
    const { methods } = this.index;
    const choices = (none) => [h("option", { value: "" }, none), ...methods.map((name) => h("option", { value: name }, name))];
    $("credit-a").append(...choices("as written"));
    $("credit-b").append(...choices("nothing"));
    for (const id of ["credit-a", "credit-b"]) $(id).parentElement.hidden = !this.store.served;
    $("curves-box").hidden = this.index.curves.length === 0;
    $("help").append(h("h2", {}, "Keys"), h("dl", {}, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
    this.listen();
    await this.follow();
  }

  // the address

  async follow() {
    const given = new URLSearchParams(location.hash.slice(1));
    const whole = (name, otherwise) => (/^\d{1,9}$/.test(given.get(name) ?? "") ? Number(given.get(name)) : otherwise);
    const iteration = whole("iteration", this.index.iterations[0]);
    await this.go({
      iteration: this.index.iterations.includes(iteration) ? iteration : this.index.iterations[0],
      tree: given.has("tree") ? Math.max(0, whole("tree", 1) - 1) : null, node: whole("node", 0), at: whole("at", null),
      filter: Object.hasOwn(FILTERS, given.get("filter")) ? given.get("filter") : "all", q: given.get("q") ?? "",
      credit: given.getAll("credit").slice(0, 2),
      colour: ["success", "credit", "entropy"].includes(given.get("colour")) ? given.get("colour") : this.index.credits.length > 1 ? "credit" : "success",
    });
  }

  address() {
    const { iteration, tree, node, at, filter, q, credit, colour } = this.state;
    const parts = new URLSearchParams({ iteration, tree: tree + 1, node });
    if (at !== null) parts.set("at", at);
    if (filter !== "all") parts.set("filter", filter);
    if (q) parts.set("q", q);
    for (const name of credit) parts.append("credit", name);
    if (colour !== "success") parts.set("colour", colour);
    return `#${parts}`;
  }

  // Change what is in sight. Of two changes at once the later one wins.
  async go(changes) {
    const before = this.state;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const state = { ...before, ...changes };
    this.state = state;
    if (state.tree !== before.tree || state.iteration !== before.iteration) this.player.stop();
    if (state.q !== before.q || state.iteration !== before.iteration) this.sidebar.hits = null;
    try {
      const trees = await this.store.get(`iteration-${state.iteration}`, state.credit.slice(0, 1));
      if (trees.length === 0) throw new Error("this iteration has no trees.");
      state.tree = Math.min(state.tree ?? telling(trees), trees.length - 1);
      const data = await this.store.get(`tree-${state.iteration}-${state.tree}`, state.credit);
      if (turn !== this.turn) return;
      if (this.model?.data !== data) this.model = new Model(data);
      state.node = Math.min(state.node, this.model.nodes.length - 1);
      if (state.at !== null) state.at = state.at >= data.events.length ? null : state.at;
      $("message").hidden = true;
      this.trees = trees;
      this.render(before);
    } catch (error) {
      if (turn !== this.turn) return;
      this.state = this.model ? before : state;
      this.choices();
      $("message").textContent = error.message;
      $("message").hidden = false;
    }
  }

  render(before) {
    const { state, model } = this;
    const { task, credits, discarded } = model.data;
    const { lost, won, runs } = model.all;
    this.choices();
    $("question").textContent = task.question;
    const facts = [task.answer ? `expected ${shorten(task.answer, 60)}` : "", task.id, `${won[0]} of ${runs[0]} runs succeed`,
      runs[0] - won[0] - lost[0] ? `${runs[0] - won[0] - lost[0]} not judged` : "", discarded ? `${discarded} discarded` : ""];
    $("facts").textContent = facts.filter(Boolean).join(" · ");
    const wanted = `${state.filter} ${state.q}`;
    if (this.sought?.wanted !== wanted || this.sought.data !== model.data) {
      this.sought = { wanted, data: model.data, bright: model.matching(state.filter, state.q, credits[0]) };
    }
    const { bright } = this.sought;
    this.matches = state.q && bright ? [...bright] : null;
    if (!this.sidebar.hits) $("found").textContent = this.matches ? tellMatches(this.matches.length) : "";
    this.panels.forEach((panel, i) => {
      panel.element.hidden = i >= credits.length;
      if (i < credits.length) {
        panel.show(model, { time: state.at, chosen: state.node, bright, colour: state.colour, credit: credits[i], zoom: this.zoom,
          title: credits.length > 1 ? credits[i].name : null });
        if (state.node !== before.node || state.tree !== before.tree) panel.reveal(state.node);
      }
    });
    this.legend();
    this.player.show(model, state.at);
    this.detail.show(model, state.node, credits);
    this.sidebar.show(this.trees, state);
    const { curves } = this.index;
    if (curves.length && this.drawn !== state.iteration) {
      this.drawn = state.iteration;
      drawCurves($("curves"), curves, state.iteration, (i) => {
        if (this.index.iterations.includes(i)) this.go({ iteration: i, tree: null, node: 0, at: null });
      });
    }
    this.written = this.address();
    if (location.hash !== this.written && !this.player.timer) location.replace(this.written); // browsers slow down who writes often
  }

  choices() {
    const { state } = this;
    $("iteration").value = state.iteration;
    $("credit-a").value = state.credit[0] ?? this.index.credits[0] ?? "";
    $("credit-b").value = state.credit[1] ?? (state.credit.length ? "" : this.index.credits[1] ?? "");
    $("colour").value = state.colour;
    if (document.activeElement !== $("query")) $("query").value = state.q;
  }

  legend() {
    const entries = { success: [["success", "--won"], ["failure", "--lost"]], entropy: [["mean entropy, full from 1 nat on", "--violet"]],
      credit: [["advantage above 0", "--blue"], ["below 0", "--lost"], ["0 or none", "--open"]] }[this.state.colour];
    const parts = entries.map(([text, colour]) => {
      const part = h("span", {}, text);
      part.style.setProperty("--key", `var(${colour})`);
      return part;
    });
    parts.push(h("span", {}, "width: rollouts"), h("span", { class: "dashed" }, "probe"), h("span", { class: "ring" }, "first fault"));
    $("legend").replaceChildren(...parts);
  }

  // what the user does

  listen() {
    addEventListener("hashchange", () => location.hash !== this.written && this.follow());
    $("iteration").addEventListener("change", () => this.go({ iteration: Number($("iteration").value), tree: null, node: 0, at: null }));
    $("colour").addEventListener("change", () => this.go({ colour: $("colour").value }));
    for (const id of ["credit-a", "credit-b"]) $(id).addEventListener("change", () => this.pick());
    $("query").addEventListener("input", () => this.go({ q: $("query").value }));
    $("query").addEventListener("keydown", (event) => event.key === "Enter" && this.next(event.shiftKey ? -1 : 1));
    $("search-all").addEventListener("click", () => this.searchAll());
    $("zoom-in").addEventListener("click", () => this.resize(1.3));
    $("zoom-out").addEventListener("click", () => this.resize(1 / 1.3));
    $("help-button").addEventListener("click", () => $("help").showModal());
    addEventListener("keydown", (event) => this.key(event));
    let folded = [];
    addEventListener("beforeprint", () => {
      this.panels.forEach((panel) => panel.print(true));
      folded = [...document.querySelectorAll("#detail details:not([open])")];
      for (const fold of folded) fold.open = true;
    });
    addEventListener("afterprint", () => {
      this.panels.forEach((panel) => panel.print(false));
      for (const fold of folded) fold.open = false;
    });
  }

  // "as written" beside a method needs no name for the first: the server takes an empty one for it.
  pick() {
    const [a, b] = [$("credit-a").value, $("credit-b").value];
    const colour = b && this.state.colour === "success" ? "credit" : this.state.colour;
    this.go({ credit: b ? [a, b] : a || this.index.credits.length ? [a] : [], colour });
  }

  resize(factor) {
    this.zoom = Math.min(8, Math.max(0.25, this.zoom * factor));
    this.go({});
  }

  next(way) {
    if (!this.matches?.length) return;
    const at = this.matches.indexOf(this.state.node);
    this.go({ node: this.matches[(at + way + this.matches.length) % this.matches.length] });
  }

  async searchAll() {
    const { q, iteration } = this.state;
    if (!q) return $("query").focus();
    const hits = [];
    for (let i = 0; i < this.trees.length; i++) {
      const found = new Model(await this.store.get(`tree-${iteration}-${i}`)).matching("all", q, { critical: [], nodes: [] });
      hits.push(found.size);
      if (this.state.q !== q || this.state.iteration !== iteration) return;
      $("found").textContent = `searched ${i + 1} of ${this.trees.length} trees`;
    }
    this.sidebar.hits = hits;
    $("found").textContent = `${tellMatches(hits.reduce((a, b) => a + b, 0))} in ${plural(hits.filter(Boolean).length, "tree")}`;
    this.go({});
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !this.model) return;
    if (event.key === "Escape") return document.activeElement.blur();
    if (event.target.closest("input, select, textarea") && !(event.target.id === "time" && event.key === " ")) return;
    if (event.target.closest("button, summary") && [" ", "Enter"].includes(event.key)) return;
    const does = {
      ArrowRight: () => this.walk(1, 0), ArrowLeft: () => this.walk(-1, 0), ArrowDown: () => this.walk(0, 1), ArrowUp: () => this.walk(0, -1),
      Home: () => this.go({ node: 0 }), c: () => this.fault(), "[": () => this.step(-1), "]": () => this.step(1),
      "{": () => this.iterate(-1), "}": () => this.iterate(1), " ": () => this.player.toggle(), ",": () => this.time(-1), ".": () => this.time(1),
      "/": () => $("query").focus(), f: () => this.filter(), "-": () => this.resize(1 / 1.3), "+": () => this.resize(1.3), "?": () => $("help").showModal(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  walk(across, down) {
    const node = this.model.nodes[this.state.node];
    const column = this.model.columns[node.depth];
    const next = across > 0 ? node.children[0] : across < 0 ? node.parent : column[column.indexOf(node) + down];
    if (next) this.go({ node: next.index });
  }

  fault() {
    const found = this.model.data.credits[0].critical;
    const next = found.find((index) => index > this.state.node) ?? found[0];
    if (next !== undefined) this.go({ node: next });
  }

  step(way) {
    const { listed } = this.sidebar;
    const next = listed[listed.indexOf(this.state.tree) + way];
    if (next !== undefined) this.go({ tree: next, node: 0, at: null });
  }

  iterate(way) {
    const next = this.index.iterations[this.index.iterations.indexOf(this.state.iteration) + way];
    if (next !== undefined) this.go({ iteration: next, tree: null, node: 0, at: null });
  }

  time(way) {
    const { length } = this.model.data.events;
    const at = Math.min(length, Math.max(0, (this.state.at ?? length) + way));
    this.player.stop();
    this.go({ at: at === length ? null : at });
  }

  filter() {
    const names = Object.keys(FILTERS);
    this.go({ filter: names[(names.indexOf(this.state.filter) + 1) % names.length] });
  }
}

const app = new App();
app.start().catch((error) => {
  $("message").textContent = error.message;
  $("message").hidden = false;
});
