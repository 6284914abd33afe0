// Making elements. Whatever a tree holds gets into the page as text only: through here.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "onchange" || name === "onpointerenter") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== "") node.append(child);
  return node;
}

// h("p", {class: "x"}, "text", element): strings become text nodes, never markup.
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const $ = (id) => document.getElementById(id);

const shorten = (text, most) => {
  const line = text.slice(0, 4 * most + 64).split(/\s+/u).join(" ").trim();
  return line.length <= most ? line : `${line.slice(0, Math.max(1, most - 1))}…`;
};

function signed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${(value / 1e3).toPrecision(3)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

const outcome = (node) => (node.success === true ? "won" : node.success === false ? "lost" : "open");
const OUTCOMES = { won: "succeeded", lost: "failed", open: "not judged" };

// Of a step in few words: what it called, or answered, or said.
function label(node) {
  if (!node.parent) return "prompt";
  if (node.calls?.length) {
    const [call] = node.calls;
    return `${node.named ? `${call.name} ` : ""}${Object.values(call.arguments).join(", ")}${node.calls.length > 1 ? ` +${node.calls.length - 1}` : ""}`;
  }
  if (node.answer === undefined) return node.text ?? "";
  return `= ${String(node.answer).replace(/^\\boxed\{(.*)\}$/su, "$1")}`;
}
