// Where the data comes from: blocks in this page, or the server that sent it.

const KEPT = 16; // trees that stay unpacked: a run may have thousands

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

class Store {
  constructor() {
    this.served = document.getElementById("data-index") === null;
    this.known = new Map();
  }

  // Of a tree that was asked for twice, the second answer is the first one.
  get(name, credits = []) {
    const query = this.served ? credits.map((c) => `credit=${encodeURIComponent(c)}`).join("&") : "";
    const key = query ? `${name}?${query}` : name;
    let value = this.known.get(key);
    this.known.delete(key);
    value ??= (this.served ? this.ask(key) : this.read(name)).catch((error) => {
      this.known.delete(key);
      throw error;
    });
    this.known.set(key, value);
    const trees = [...this.known.keys()].filter((k) => k.startsWith("tree-"));
    for (const old of trees.slice(0, Math.max(0, trees.length - KEPT))) this.known.delete(old);
    return value;
  }

  async read(name) {
    const block = document.getElementById(`data-${name}`);
    if (block === null) throw new Error(`this page holds no ${name.replaceAll("-", " ")}.`);
    return unpack(block.textContent);
  }

  async ask(key) {
    const response = await fetch(`/data/${key}`).catch(() => {
      throw new Error("the server doesn't answer; start `firstfault view` again.");
    });
    const value = await response.json();
    if (!response.ok) throw new Error(value.error);
    return value;
  }
}
