// What is known of one step: what was written and answered, its value, its credit.

const SHADES = {
  entropy: ["entropy", (node) => node.entropies, "darkest from 1 nat on"],
  surprise: ["surprise", (node) => node.logprobs?.map((p) => -p), "minus log-probability, darkest from 1 nat on"],
  ratio: ["ratio", ratios, "log-probability against the policy that training began with: blue is likelier now"],
  credit: ["advantage", (node, credit) => credit.nodes[node.index]?.tokens, "advantage of each token"],
};

class Detail {
  constructor(host, onSelect) {
    this.host = host;
    this.onSelect = onSelect;
    this.shade = "entropy";
  }

  show(model, index, credits, chosen) {
    this.args = [model, index, credits, chosen];
    const node = model.nodes[index];
    const credit = credits[0];
    const parts = node.parent
      ? [this.head(model, node, credits), this.before(model, node), this.written(model, node, credit), this.calls(node), this.end(model, node),
        this.value(model, node), this.credit(node, credits), this.figures(node)]
      : [h("h2", {}, "Prompt"), this.prompt(model, node), this.value(model, node)];
    this.host.replaceChildren(...[...parts, this.searches(model)].flat(Infinity).filter(Boolean));
    this.host.scrollTop = 0;
  }

  head(model, node, credits) {
    const kind = node.probe ? "probe" : "run";
    const critical = credits.filter((credit) => credit.critical.includes(node.index));
    const whose = credits.length > 1 ? ` (${critical.map((c) => c.name).join(", ")})` : "";
    return [
      h("h2", {}, `Step ${node.depth} of ${kind} ${node.rollout}`),
      h("div", { class: "badges" },
        critical.length ? h("span", { class: "flag" }, `first fault${whose}`) : null,
        h("span", { class: "muted" }, `${model.all.won[node.index]} of ${plural(model.all.runs[node.index], "run")} through it succeeded`)),
    ];
  }

  prompt(model, node) {
    const words = model.words(node.prompt ? { words: node.prompt } : {});
    return [h("pre", { class: "written" }, model.data.task.question),
      model.data.task.answer ? h("dl", {}, h("dt", {}, "expected"), h("dd", {}, model.data.task.answer)) : null,
      words.length ? h("details", { class: "before" }, h("summary", {}, `as the model saw it, ${words.length} tokens`), h("pre", {}, words.join(""))) : null];
  }

  before(model, node) {
    const steps = model.path(node).slice(1, -1);
    if (steps.length === 0) return null;
    return h("details", { class: "before" }, h("summary", {}, `${plural(steps.length, "step")} before it`),
      steps.map((step) => h("div", {}, this.link(step.index, `${step.depth}`), " ", h("code", {}, shorten(label(step), 60)),
        (step.calls ?? []).map((call) => h("code", { class: "muted" }, ` → ${shorten(call.failed ?? call.output, 40)}`)))));
  }

  link(index, text) {
    return h("button", { class: "link", onclick: () => this.onSelect(index) }, text);
  }

  written(model, node, credit) {
    const words = model.words(node);
    const heading = h("h3", {}, `Written${node.tokens ? `, ${node.tokens} tokens` : ""}`);
    if (words.length === 0) return [heading, h("pre", { class: "written" }, node.text || "(nothing)")];
    const known = Object.entries(SHADES).filter(([, [, of]]) => of(node, credit)?.length === words.length);
    const name = known.some(([key]) => key === this.shade) ? this.shade : known[0]?.[0];
    const values = name ? SHADES[name][1](node, credit) : [];
    if (name) heading.append(this.picker(known, name));
    const most = name === "credit" ? Math.max(1e-9, ...values.map(Math.abs)) : 1;
    const spans = words.map((word, i) => {
      const strength = values.length ? Math.min(1, Math.sqrt(Math.abs(values[i]) / most)) : 0;
      const turned = name === "ratio" || name === "credit" ? (values[i] < 0 ? " down" : " up") : "";
      const span = h("span", { class: `token${turned}`, title: this.hint(node, i) }, word);
      span.style.setProperty("--strength", strength.toFixed(3));
      return span;
    });
    return [heading, h("pre", { class: "written", title: name ? SHADES[name][2] : null }, spans)];
  }

  picker(known, name) {
    const select = h("select", { class: "shade", "aria-label": "shading of the tokens", onchange: () => {
      this.shade = select.value;
      this.show(...this.args);
    } }, known.map(([key, [text]]) => h("option", { value: key }, text)));
    select.value = name;
    return select;
  }

  hint(node, i) {
    const parts = [["entropy", node.entropies], ["log-probability", node.logprobs], ["log ratio to the first policy", ratios(node)]];
    return parts.filter(([, of]) => of).map(([text, of]) => `${text} ${number(of[i])}`).join(" · ");
  }

  calls(node) {
    return (node.calls ?? []).map((call) => {
      const values = Object.values(call.arguments).join(", ");
      const result = call.failed === null ? h("span", {}, ` → ${shorten(call.output, 30)}`) : h("span", { class: "failed" }, ` ! ${shorten(call.failed, 40)}`);
      return h("details", { class: "call" },
        h("summary", {}, h("code", {}, `${shorten(call.name, 30)}(${shorten(values, 34)})`), result),
        Object.entries(call.arguments).map(([name, value]) => [h("div", { class: "muted" }, name), h("pre", {}, value)]),
        h("div", { class: "muted" }, "output"), h("pre", {}, call.output || "(nothing)"),
        call.failed === null ? null : [h("div", { class: "failed" }, "failed"), h("pre", {}, call.failed)]);
    });
  }

  end(model, node) {
    if (node.children.length) return null;
    const rows = [["answer", node.answer], ["expected", model.data.task.answer], ["ended by", node.end?.replaceAll("_", " ")],
      ["reward", node.reward === undefined ? undefined : number(node.reward)], ["judge's reward", node.judged === undefined ? undefined : number(node.judged)]];
    return [h("h3", {}, "End of the run"),
      h("dl", {}, h("dt", {}, "outcome"), h("dd", { class: outcome(node) }, OUTCOMES[outcome(node)]),
        rows.filter(([, value]) => value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))];
  }

  value(model, node) {
    const runs = model.all.runs[node.index], won = model.all.won[node.index], lost = model.all.lost[node.index];
    const rows = [];
    if (node.value !== undefined) {
      rows.push(["value", node.value, node.interval ? `95 % interval: ${node.interval.map(number).join(" to ")}` : "as the method wrote it"]);
    } else if (node.children.length && won + lost > 1) {
      const [low, high] = wilson(won / (won + lost), won + lost);
      rows.push(["estimate", `${number(won / (won + lost))} (${number(low)} to ${number(high)})`,
        `share of successes among the ${runs} runs through it; no method wrote a value here. The interval is right only as far as these runs are independent.`]);
    }
    if (node.target !== undefined) rows.push(["target", number(node.target), "what the critic shall learn"]);
    if (rows.length === 0) return null;
    return [h("h3", {}, "Value of the state after it"),
      h("dl", {}, rows.map(([name, value, note]) => [h("dt", {}, name), h("dd", {}, value, h("div", { class: "muted" }, note))]))];
  }

  credit(node, credits) {
    const of = credits.map((credit) => credit.nodes[node.index]);
    if (!of.some(Boolean)) return [h("h3", {}, "Credit"), h("p", { class: "muted" }, "No credit was given to this step: it teaches nothing.")];
    const rows = [];
    const add = (name, value, kind = null) => {
      const cells = credits.map((credit, i) => value(credit, of[i]));
      if (cells.some((cell) => cell !== null)) rows.push(h("tr", { class: kind }, h("th", {}, name), cells.map((cell) => h("td", {}, cell ?? "–"))));
    };
    add("branch advantage", (credit) => (credit.parts ? signed(credit.parts[node.index][0], 3) : null));
    add("trajectory advantage", (credit) => (credit.parts ? signed(credit.parts[node.index][1], 3) : null));
    add("λ branch + (1 − λ) trajectory", (credit) => {
      if (!credit.parts) return null;
      const [branch, trajectory] = credit.parts[node.index];
      return `λ = ${number(credit.lambda)}: ${signed(credit.lambda * branch + (1 - credit.lambda) * trajectory, 3)}`;
    });
    add("advantage", (_, c) => (c ? signed(c.advantage, 3) : null), "sum");
    add("terms", (_, c) => (c ? `${c.terms}${c.least < c.most ? `, ${signed(c.least)} to ${signed(c.most)}` : ""}` : null));
    add("weight of a token", (_, c) => (c ? number(c.weight) : null));
    add("ratio clipped to", (_, c) => (c ? (c.clip ? `${number(c.clip[0])} to ${number(c.clip[1])}` : "not clipped") : null));
    const names = credits.length > 1 ? h("thead", {}, h("tr", {}, h("th", {}, ""), credits.map((c) => h("th", {}, c.name)))) : null;
    return [h("h3", {}, credits.length > 1 ? "Credit" : `Credit of ${credits[0].name}`), h("table", { class: "credit" }, names, h("tbody", {}, rows))];
  }

  figures(node) {
    const of = ratios(node);
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const rows = [];
    if (node.entropies) rows.push(["mean entropy", `${number(mean(node.entropies))} nats`]);
    if (node.logprobs) rows.push(["log-probability", `${number(sum(node.logprobs))} nats`]);
    if (of) rows.push(["log-probability ratio", `${signed(sum(of), 3)} nats against the policy that training began with`]);
    return rows.length ? [h("h3", {}, "Tokens"), h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))] : null;
  }

  searches(model) {
    return model.data.verdicts.map((verdict, i) => {
      const found = verdict.step > verdict.steps ? "no step is irrecoverable" : "first fault at step ";
      const rows = verdict.probes.map((probe) => h("tr", {}, h("th", {}, "after step ", this.link(verdict.path[probe.step], String(probe.step))),
        h("td", {}, `${probe.successes} of ${probe.tries} succeed`)));
      const sure = verdict.probability === null ? "" : `probability ${verdict.probability.toFixed(2)}`;
      const state = [sure, verdict.finished ? "" : "without an answer to rely on", verdict.marked ? "" : "not used by the method"].filter(Boolean).join(", ");
      return [h("h3", {}, `Search ${i + 1} on run ${model.nodes[verdict.leaf].rollout}`), h("table", {}, h("tbody", {}, rows)),
        h("p", {}, "→ ", found, verdict.step > verdict.steps ? "" : this.link(verdict.path[verdict.step], String(verdict.step)), state ? ` (${state})` : "")];
    });
  }
}
