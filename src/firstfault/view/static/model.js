// A tree and what can be asked of it. No drawing here.

class Model {
  constructor(data) {
    this.data = data;
    const functions = new Set(data.nodes.flatMap((node) => (node.calls ?? []).map((call) => call.name)));
    const named = functions.size > 1; // where there is but one, calls need no name
    this.nodes = data.nodes.map((node, index) => ({ ...node, index, named, children: [] }));
    for (const node of this.nodes) {
      node.parent = node.parent === null || node.parent === undefined ? null : this.nodes[node.parent];
      node.depth = node.parent ? node.parent.depth + 1 : 0;
      node.parent?.children.push(node);
    }
    this.depth = this.nodes.reduce((most, node) => Math.max(most, node.depth), 0);
    this.all = this.count(null);
    this.order();
    // where a rollout comes in the order of sampling, in events
    this.sampled = new Map();
    this.judged = new Map(); // and when a search came to its verdict
    data.events.forEach((event, i) => {
      if (event.rollout !== undefined) this.sampled.set(event.rollout, i);
      else this.judged.set(event.verdict, i);
    });
    this.bundle = this.nodes.reduce((most, node) => (node.parent ? Math.max(most, this.all.runs[node.index]) : most), 1);
  }

  // Runs through each node by outcome, of the rollouts that had been sampled after so many events (null: of all).
  count(time) {
    const size = this.nodes.length;
    const found = { won: new Float64Array(size), lost: new Float64Array(size), runs: new Float64Array(size) };
    for (let i = size - 1; i >= 0; i--) {
      const node = this.nodes[i];
      if (node.children.length === 0 && (time === null || this.isSampled(node, time)) && node.parent) {
        found.runs[i] += 1;
        if (node.success === true) found.won[i] += 1;
        if (node.success === false) found.lost[i] += 1;
      }
      if (!node.parent) continue;
      found.won[node.parent.index] += found.won[i];
      found.lost[node.parent.index] += found.lost[i];
      found.runs[node.parent.index] += found.runs[i];
    }
    return found;
  }

  isSampled(node, time) {
    return time === null || !node.parent || this.sampled.get(node.rollout) < time;
  }

  // Rows from top to bottom: at every branch the best subtree first. Then the middle of its rows for every node.
  order() {
    const share = (node) => this.all.won[node.index] / Math.max(1, this.all.runs[node.index]);
    let row = 0;
    const stack = [this.nodes[0]];
    const ends = [];
    while (stack.length) {
      const node = stack.pop();
      node.children.sort((a, b) => share(b) - share(a) || a.index - b.index);
      if (node.children.length === 0) {
        node.top = node.bottom = row++;
        ends.push(node);
      }
      for (let i = node.children.length - 1; i >= 0; i--) stack.push(node.children[i]);
    }
    for (let i = this.nodes.length - 1; i >= 0; i--) {
      const { children } = this.nodes[i];
      if (children.length) {
        this.nodes[i].top = children[0].top;
        this.nodes[i].bottom = children[children.length - 1].bottom;
      }
      this.nodes[i].row = (this.nodes[i].top + this.nodes[i].bottom) / 2;
    }
    this.ends = ends;
    this.columns = Array.from({ length: this.depth + 1 }, () => []);
    for (const node of this.nodes) this.columns[node.depth].push(node);
    for (const column of this.columns) column.sort((a, b) => a.row - b.row);
  }

  path(node) {
    const nodes = [];
    for (let at = node; at; at = at.parent) nodes.unshift(at);
    return nodes;
  }

  // Critical steps by a credit, as far as the verdicts on them had been found.
  critical(credit, time) {
    const marked = new Set(credit.critical);
    if (time === null) return marked;
    const late = new Set();
    this.data.verdicts.forEach((verdict, i) => {
      if ((this.judged.get(i) ?? -1) >= time) late.add(verdict.path[verdict.step]);
    });
    this.data.verdicts.forEach((verdict, i) => {
      if ((this.judged.get(i) ?? -1) < time) late.delete(verdict.path[verdict.step]);
    });
    return new Set([...marked].filter((index) => !late.has(index)));
  }

  words(node) {
    return (node.words ?? []).map((place) => this.data.words[place]);
  }

  // All that a search looks through.
  haystack(node) {
    if (node.hay === undefined) {
      const parts = [node.text, node.answer, node.parent ? "" : this.data.task.question];
      for (const call of node.calls ?? []) parts.push(call.name, ...Object.values(call.arguments), call.output, call.failed);
      node.hay = parts.filter(Boolean).join("\n").toLowerCase();
    }
    return node.hay;
  }

  // The nodes that a filter and a search leave bright; null where both let all through.
  matching(filter, query, credit) {
    if (filter === "all" && !query) return null;
    const wanted = query.toLowerCase();
    const critical = new Set(credit.critical);
    const passes = {
      all: () => true,
      failed: (node) => this.all.lost[node.index] > 0,
      critical: (node) => this.path(node).some((step) => critical.has(step.index)),
      nothing: (node) => node.parent && !credit.nodes[node.index]?.gradient,
    }[filter];
    return new Set(this.nodes.filter((n) => passes(n) && (!wanted || this.haystack(n).includes(wanted))).map((n) => n.index));
  }
}

const mean = (values) => (values?.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

// A log-probability under the policy that sampled, less that under the one that training began with, by token.
function ratios(node) {
  return node.reference && node.logprobs ? node.logprobs.map((p, i) => p - node.reference[i]) : null;
}

function wilson(share, n) {
  const z = 1.96;
  const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [centre - half, centre + half].map((bound) => Math.min(1, Math.max(0, Number(bound.toFixed(6)))));
}
