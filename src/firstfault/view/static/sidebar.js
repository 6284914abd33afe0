// The trees of an iteration: a list, filters, and a search through all of them.

const FILTERS = {
  all: ["all", "everything", () => true],
  failed: ["failed", "trees with a failed run; steps that failed runs went through", (tree) => tree.lost > 0],
  critical: ["critical", "trees with a first fault; such steps and what follows", (tree) => tree.critical > 0],
  nothing: ["no gradient", "trees that teach nothing; steps without an advantage", (tree) => !tree.gradient],
};

class Sidebar {
  constructor(onPick, onFilter) {
    this.onPick = onPick;
    this.hits = null; // of a search through all trees: matching steps by tree
    this.buttons = Object.fromEntries(Object.entries(FILTERS).map(([key, [name, title]]) => [
      key, h("button", { role: "radio", title, onclick: () => onFilter(key) }, name)]));
    $("filters").append(...Object.values(this.buttons));
  }

  show(trees, state) {
    for (const [key, button] of Object.entries(this.buttons)) {
      const [name, , passes] = FILTERS[key];
      button.textContent = `${name} ${trees.filter(passes).length}`;
      button.setAttribute("aria-checked", key === state.filter);
    }
    const passes = FILTERS[state.filter][2];
    this.listed = trees.map((tree, i) => i).filter((i) => passes(trees[i]) && (!this.hits || this.hits[i] > 0));
    const mark = `${trees.length} ${state.filter} ${this.hits} ${state.iteration}`;
    if (this.trees !== trees || this.mark !== mark) {
      $("trees").replaceChildren(...this.listed.map((i) => h("li", {}, this.entry(trees[i], i))));
      [this.trees, this.mark] = [trees, mark];
    }
    for (const button of $("trees").querySelectorAll("button")) {
      const current = Number(button.dataset.tree) === state.tree;
      if (current !== (button.getAttribute("aria-current") === "true")) button.setAttribute("aria-current", current);
      if (current) button.scrollIntoView({ block: "nearest" });
    }
  }

  entry(tree, i) {
    const won = h("i"), lost = h("b");
    won.style.width = `${(100 * tree.won) / Math.max(1, tree.runs)}%`;
    lost.style.width = `${(100 * tree.lost) / Math.max(1, tree.runs)}%`;
    const notes = [this.hits ? `${this.hits[i]} found` : "", tree.gradient ? "" : "no gradient", tree.searches && !tree.critical ? plural(tree.searches, "search", "searches") : ""];
    return h("button", { "data-tree": i, onclick: () => this.onPick(i) },
      h("span", { class: "line" }, h("span", {}, String(i + 1)), h("span", { class: "share", "aria-hidden": "true" }, won, lost),
        h("span", {}, `${tree.won}/${tree.runs}`), tree.critical ? h("span", { class: "flag" }, "fault") : null,
        h("span", { class: "notes" }, notes.filter(Boolean).join(", "))),
      h("span", { class: "question", title: tree.id }, tree.question));
  }
}
