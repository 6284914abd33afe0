// The search in the order in which it happened, rollout by rollout.

class Player {
  constructor(onTime) {
    this.onTime = onTime;
    $("time").addEventListener("input", () => {
      this.stop();
      onTime(this.position());
    });
    $("play").addEventListener("click", () => this.toggle());
  }

  position() {
    const value = Number($("time").value);
    return value >= this.model.data.events.length ? null : value;
  }

  show(model, time) {
    this.model = model;
    const { events } = model.data;
    $("time").max = events.length;
    $("time").value = time ?? events.length;
    const at = time ?? events.length;
    $("event").textContent = at === 0 ? "nothing sampled yet" : `${at} of ${events.length}: ${this.tell(events[at - 1])}`;
    $("time").setAttribute("aria-valuetext", $("event").textContent);
  }

  tell(event) {
    const { data, nodes } = this.model;
    if (event.verdict !== undefined) {
      const verdict = data.verdicts[event.verdict];
      const found = verdict.step > verdict.steps ? "no step is irrecoverable" : `the first fault is step ${verdict.step}`;
      return `search ${event.verdict + 1} ends: ${found}${verdict.finished ? "" : " (without an answer to rely on)"}`;
    }
    const leaf = event.leaf === undefined ? null : nodes[event.leaf];
    const result = leaf ? OUTCOMES[outcome(leaf)] : "was not finished";
    if (event.search === undefined) return `${leaf?.probe ? "completion" : "run"} ${event.rollout} ${result}`;
    return `search ${event.search + 1}, after step ${event.after}: probe ${event.rollout} ${result}`;
  }

  toggle() {
    if (this.timer) {
      this.stop();
      return this.onTime(this.position());
    }
    const { length } = this.model.data.events;
    let at = this.position() ?? 0;
    const pause = Math.max(30, Math.min(450, 15000 / length));
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "pause");
    this.onTime(at);
    this.timer = setInterval(() => {
      at += 1;
      if (at >= length) this.stop();
      this.onTime(at >= length ? null : at);
    }, pause);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "play");
  }
}
