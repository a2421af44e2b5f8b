// The tasks of a run: as a list, by rule and status, and along the time line.

import { get, query } from "./api.js";
import { attempt } from "./app.js";
import { button, el, replace } from "./dom.js";
import { Timeline } from "./timeline.js";
import { duration, plural, statusMark, when } from "./words.js";

const DRAWN = 2000;
const SHOWN = 20;

export class Tasks {
  constructor(jobId, number, search) {
    this.jobId = jobId;
    this.number = number;
    this.timeline = new Timeline((task) => this.link(task));
    this.list = el("div");
    this.line = el("section");
    this.element = el("div", null, el("h2", null, "Tasks"), this.list, this.line);
    this.cursor = null;
    this.rule = search.get("rule");
    this.status = search.get("status");
  }

  close() {
    this.isClosed = true;
    this.timeline.close();
  }

  link(task) {
    return `#/jobs/${this.jobId}/tasks/${task.number}?attempt=${this.number}`;
  }

  filter(search) {
    this.rule = search.get("rule");
    this.status = search.get("status");
    this.cursor = null;
    attempt(async () => {
      await this.loadList();
      this.element.scrollIntoView({ block: "start" });
      this.element.querySelector("h2").setAttribute("tabindex", "-1");
      this.element.querySelector("h2").focus({ preventScroll: true });
    });
  }

  async load(isLive) {
    await this.loadList();
    // The whole time line of a long run is not read again each second.
    if (!this.readAt || Date.now() - this.readAt > (isLive ? 2000 + this.took * 20 : 0)) await this.loadLine();
  }

  async loadList() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const ask = (more) => get(`jobs/${this.jobId}/tasks${query({ rule: this.rule, attempt: this.number, limit: SHOWN, ...more })}`);
    const page = await ask({ status: this.status, cursor: this.cursor });
    // What failed and what runs is looked for first: above the first page of all.
    const isSought = !this.status && !this.cursor && page.next_cursor && (page.counts.failed || page.counts.running);
    const first = isSought ? (await ask({ status: ["failed", "running"] })).items.toSorted((a, b) => (b.status === "failed") - (a.status === "failed")) : [];
    const above = new Set(first.map((task) => task.number));
    const items = [...first, ...page.items.filter((task) => !above.has(task.number))];
    if (this.isClosed || turn !== this.turn) return; // another filter has been chosen since
    this.element.hidden = !page.total && !this.rule && !this.status;
    const state = JSON.stringify([page, first, this.rule, this.status]);
    if (state === this.state) return;
    this.state = state;
    const place = (values) => { location.hash = `#/jobs/${this.jobId}${query({ attempt: this.number, rule: this.rule, status: this.status, ...values })}`; };
    const filters = ["failed", "running", "pending", "completed", "cancelled"].filter((name) => page.counts[name] || this.status === name);
    replace(this.list,
      el("div.tools", null, filters.map((name) => button([statusMark(name), el("b", null, page.counts[name])], () => place({ status: this.status === name ? null : name }), { "aria-pressed": String(this.status === name) })),
        this.rule && button(`rule ${this.rule} ✕`, () => place({ rule: null }), { "aria-label": `Show every rule, not ${this.rule} alone` }), el("span.quiet", null, plural(page.total, "task"))),
      items.length > 0 && el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Tasks" }, el("table", null,
        el("thead", null, el("tr", null, ["Status", "Rule", "Wildcards", "Started", "Took", "Threads"].map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", null, items.map((task) => el("tr", null,
          el("td", null, statusMark(task.status)),
          el("td", null, el("a", { href: this.link(task) }, task.rule), task.error && el("div.why", null, task.error.message)),
          el("td.mono", null, Object.values(task.wildcards).join(" ")),
          el("td", null, when(task.started_at)),
          el("td.figure", null, task.duration_s === null ? "–" : duration(task.duration_s * 1000)),
          el("td", null, task.threads ?? "–")))))),
      (page.next_cursor || this.cursor) && el("div.tools", null,
        this.cursor && button("First", () => { this.cursor = null; attempt(() => this.loadList()); }),
        page.next_cursor && button("More", () => { this.cursor = page.next_cursor; attempt(() => this.loadList()); })));
  }

  async loadLine() {
    const began = performance.now();
    const tasks = [];
    let cursor = null;
    let total = 0;
    do {
      const page = await get(`jobs/${this.jobId}/tasks${query({ status: ["failed", "running", "completed", "cancelled"], attempt: this.number, limit: 200, cursor })}`);
      tasks.push(...page.items);
      total = page.total;
      cursor = page.next_cursor;
    } while (cursor && tasks.length < DRAWN && !this.isClosed);
    if (this.isClosed) return;
    this.took = performance.now() - began;
    this.readAt = Date.now();
    if (!tasks.some((task) => task.started_at)) return;
    if (!this.line.childNodes.length) replace(this.line, el("h2", null, "Time line"), this.timeline.element);
    this.timeline.show(tasks, { left: total - tasks.length });
  }
}
