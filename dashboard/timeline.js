// When each task ran: a lane for as many as ran at once. Zoomed by the wheel, by + and - and by dragging.

import { button, el, replace, svg } from "./dom.js";
import { duration, plural, now as served } from "./words.js";

const LANE = 18;
const AXIS = 22;
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800];

export class Timeline {
  constructor(linkTo) {
    this.linkTo = linkTo;
    this.place = el("div.scroller");
    this.told = el("span.quiet", { role: "status" });
    this.element = el("div", null,
      el("div.tools", null, button("+", () => this.zoom(0.5), { "aria-label": "Zoom in" }), button("−", () => this.zoom(2), { "aria-label": "Zoom out" }),
        button("◀", () => this.pan(-0.3), { "aria-label": "Earlier" }), button("▶", () => this.pan(0.3), { "aria-label": "Later" }), button("All", () => this.fit()), this.told),
      el("div.timeline", null, this.place));
    this.place.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return; // the page scrolls
      event.preventDefault();
      const box = this.place.getBoundingClientRect();
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
    }, { passive: false });
    this.place.addEventListener("pointerdown", (event) => { this.drag = { x: event.clientX, from: this.from, to: this.to, moved: false }; });
    this.place.addEventListener("pointermove", (event) => {
      if (!this.drag || event.buttons !== 1) return;
      const by = ((this.drag.x - event.clientX) / this.place.clientWidth) * (this.drag.to - this.drag.from);
      if (Math.abs(this.drag.x - event.clientX) < 4) return;
      this.drag.moved = true;
      [this.from, this.to] = [this.drag.from + by, this.drag.to + by];
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.draw();
      });
    });
    // The click that ends a drag opens nothing; one by the keyboard, later, does.
    this.place.addEventListener("click", (event) => {
      if (this.drag?.moved) event.preventDefault();
      this.drag = null;
    });
    this.resized = new ResizeObserver(() => { if (this.tasks && this.place.clientWidth !== this.width) this.draw(); });
    this.resized.observe(this.place);
  }

  close() {
    this.resized.disconnect();
  }

  show(tasks, { left }) {
    const now = served();
    this.tasks = tasks.filter((task) => task.started_at).map((task) => ({ task, from: Date.parse(task.started_at), to: task.ended_at ? Date.parse(task.ended_at) : now }))
      .sort((a, b) => a.from - b.from);
    const free = []; // when each lane is free again
    for (const each of this.tasks) {
      let lane = free.findIndex((at) => at <= each.from);
      if (lane < 0) lane = free.length;
      free[lane] = each.to;
      each.lane = lane;
    }
    this.lanes = free.length;
    this.left = left;
    const first = this.tasks[0]?.from ?? now;
    const last = Math.max(...this.tasks.map((each) => each.to), first + 100);
    const wasWhole = this.whole === undefined || (this.from === this.whole[0] && this.to === this.whole[1]);
    this.whole = [first - (last - first) * 0.01, last + (last - first) * 0.01];
    if (wasWhole) this.fit();
    else this.draw();
  }

  fit() {
    [this.from, this.to] = this.whole;
    this.draw();
  }

  pan(part) {
    const by = (this.to - this.from) * part;
    this.from += by;
    this.to += by;
    this.draw();
  }

  zoom(factor, at = 0.5) {
    const middle = this.from + (this.to - this.from) * at;
    const span = Math.min((this.whole[1] - this.whole[0]) * 2, Math.max(20, (this.to - this.from) * factor));
    this.from = middle - span * at;
    this.to = this.from + span;
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth || 600;
    this.width = width;
    const height = AXIS + this.lanes * LANE + 4;
    const x = (ms) => ((ms - this.from) / (this.to - this.from)) * width;
    const parts = [];
    const stepMs = 1000 * (STEPS_S.find((step) => (step * 1000 * width) / (this.to - this.from) > 90) ?? STEPS_S.at(-1));
    const base = this.whole[0] + (this.whole[1] - this.whole[0]) / 102; // the run's begin
    for (let at = Math.ceil((this.from - base) / stepMs) * stepMs; base + at < this.to; at += stepMs) {
      parts.push(svg("path", { class: "tick", d: `M${x(base + at).toFixed(1)} 0V${height}` }), svg("text", { x: x(base + at) + 3, y: 14 }, at < 0 ? `−${duration(-at)}` : duration(at)));
    }
    const shown = this.tasks.filter((each) => each.to >= this.from && each.from <= this.to);
    for (const { task, from, to, lane } of shown) {
      const left = Math.max(-5, x(from));
      const wide = Math.max(2, Math.min(width + 5, x(to)) - left);
      const name = `${task.rule} ${Object.values(task.wildcards).join(" ")}`.trim();
      const told = `${name}: ${task.status}, ${duration(to - from)}`;
      parts.push(svg("a", { href: this.linkTo(task), "aria-label": told }, svg("title", null, told),
        svg("rect", { class: task.status, x: left, y: AXIS + lane * LANE, width: wide, height: LANE - 3, rx: 2 }),
        wide > 9 * name.length && svg("text", { class: "in", x: Math.max(0, left) + 4, y: AXIS + lane * LANE + 11 }, name)));
    }
    const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Time line of the tasks" }, parts);
    const focus = this.place.querySelector("a:focus")?.getAttribute("href");
    replace(this.place, picture);
    if (focus) this.place.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus();
    this.told.textContent = `${plural(shown.length, "task")}, ${duration(this.to - this.from)}${this.left ? `; ${plural(this.left, "task")} more are not drawn` : ""}`;
  }
}
