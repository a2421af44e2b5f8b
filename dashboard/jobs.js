// The list of jobs: live by the one stream of changes, filtered by the address.

import { Problem, address, get, query, send } from "./api.js";
import { attempt, failed, setSearch, tell } from "./app.js";
import { button, confirmed, copy, el, replace, throttled } from "./dom.js";
import { curves } from "./curves.js";
import { STATUSES, count, lasting, plural, progressBar, shortId, statusMark, when } from "./words.js";

const PAGE = 50;
const ENDED = new Set(["completed", "failed", "cancelled"]);

export function open(root, { search, changes }) {
  return new JobList(root, search, changes);
}

class JobList {
  constructor(root, search, changes) {
    this.jobs = [];
    this.selected = new Set();
    this.current = null;
    this.positions = new Map();
    this.cursors = []; // of the pages before this one
    this.abort = new AbortController();
    this.later = new Map();
    this.draw(root, search);
    this.load = throttled(1000, () => this.fetchPage());
    this.loadCounts = throttled(2000, () => this.fetchCounts());
    this.loadCurves = throttled(15_000, () => this.fetchCurves());
    this.apply = throttled(250, async () => this.applyChanges());
    this.stopListening = changes.listen((change) => this.onChange(change));
    // The list first: everything else can wait until it is seen.
    this.fetchPage().finally(() => {
      if (this.abort.signal.aborted) return;
      this.fetchWorkflows();
      this.loadCounts();
      this.loadCurves();
    });
    document.title = "Jobs · Snakeline";
  }

  close() {
    this.abort.abort();
    this.stopListening();
    for (const call of [this.load, this.loadCounts, this.loadCurves, this.apply]) call.stop();
    clearTimeout(this.typing);
  }

  refresh() {
    this.load();
    this.loadCounts();
  }

  moved(search) {
    this.filters = search;
    this.cursors = [];
    this.field.value = search.get("q") ?? "";
    this.load();
  }

  draw(root, search) {
    this.filters = new URLSearchParams(search);
    this.field = el("input", {
      type: "search", "data-search": true, placeholder: "Name or id", "aria-label": "Search by name or id", "aria-keyshortcuts": "/", value: search.get("q") ?? "",
      on: {
        input: () => {
          clearTimeout(this.typing);
          this.typing = setTimeout(() => this.filter("q", this.field.value.trim()), 250);
        },
      },
    });
    this.workflow = el("select", { "aria-label": "Workflow", on: { change: () => this.filter("workflow", this.workflow.value) } }, el("option", { value: "" }, "every workflow"));
    this.label = el("input", { placeholder: "label: key:value", "aria-label": "Label, as key:value", value: search.get("label") ?? "", on: { change: () => this.filter("label", this.label.value.trim()) } });
    this.statuses = el("div.statuses", { role: "group", "aria-label": "Filter by status" });
    this.bulk = el("div.bulk", { "aria-live": "polite" });
    this.charts = el("section.charts", { "aria-label": "Lately" });
    this.body = el("tbody");
    this.all = el("input", { type: "checkbox", "aria-label": "Select every job of this page", on: { change: () => this.selectAll(this.all.checked) } });
    this.table = el("table.jobs", null,
      el("caption.offscreen", null, "Jobs, newest first"),
      el("thead", null, el("tr", null, el("th", { scope: "col" }, this.all),
        ["Status", "Job", "Workflow", "Progress", "Submitted", "Duration", "Who"].map((name) => el("th", { scope: "col" }, name)))),
      this.body);
    this.foot = el("div.foot");
    this.place = el("div.place", null, el("p.quiet", null, "Loading …"));
    replace(root,
      el("div.title", null, el("h1", null, "Jobs"), el("a.primary.button", { href: "#/new" }, "New job")),
      this.statuses,
      el("div.filters", null, this.field, this.workflow, this.label), this.bulk, this.place, this.foot, this.charts);
  }

  fetchWorkflows() {
    attempt(async () => {
      const { items } = await get("workflows", { signal: this.abort.signal });
      for (const { name } of items) this.workflow.append(el("option", { value: name }, name));
      this.workflow.value = this.filters.get("workflow") ?? "";
    });
  }

  filter(name, value) {
    if (value) this.filters.set(name, value);
    else this.filters.delete(name);
    this.cursors = [];
    setSearch(this.filters);
    this.load();
  }

  toggleStatus(status) {
    const chosen = new Set(this.filters.getAll("status"));
    if (!chosen.delete(status)) chosen.add(status);
    this.filters.delete("status");
    for (const each of chosen) this.filters.append("status", each);
    this.cursors = [];
    setSearch(this.filters);
    this.drawCounts();
    this.load();
  }

  get asked() {
    const names = ["q", "workflow", "label", "tenant", "created_after", "created_before"];
    return { status: this.filters.getAll("status"), ...Object.fromEntries(names.map((name) => [name, name === "label" ? this.filters.getAll(name) : this.filters.get(name)])) };
  }

  async fetchPage() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const page = await get(`jobs${query({ ...this.asked, limit: PAGE, cursor: this.cursors.at(-1) })}`, { signal: this.abort.signal });
      if (turn !== this.turn) return; // a later one has been asked for
      this.jobs = page.items;
      this.drawRows();
      this.drawFoot(page);
      if (page.items.some((job) => job.status === "pending")) this.fetchQueue().catch(() => {});
    } catch (error) {
      if (error instanceof Problem && error.status === 422) replace(this.place, el("p.bad", { role: "alert" }, error.errors.map((each) => each.detail).join("; ") || error.message));
      else failed(error);
    }
  }

  // What will start before what: by priority, then by age.
  async fetchQueue() {
    const page = await get(`jobs${query({ status: "pending", order: "asc", limit: 500 })}`, { signal: this.abort.signal });
    const order = page.items.toSorted((a, b) => b.priority - a.priority);
    this.positions = page.next_cursor === null ? new Map(order.map((job, index) => [job.id, index + 1])) : new Map();
    this.queued = page.total;
    for (const job of this.jobs) if (job.status === "pending") this.drawRow(job);
  }

  async fetchCounts() {
    try {
      const totals = await Promise.all(STATUSES.map((status) => get(`jobs${query({ status, limit: 1 })}`, { signal: this.abort.signal })));
      this.counts = Object.fromEntries(STATUSES.map((status, index) => [status, totals[index].total]));
      this.drawCounts();
    } catch (error) {
      if (!(error instanceof Problem)) return;
      failed(error);
    }
  }

  async fetchCurves() {
    try {
      const { items, next_cursor: more } = await get(`jobs${query({ limit: 500 })}`, { signal: this.abort.signal });
      replace(this.charts, curves(items, more !== null));
    } catch { /* told by the list itself */ }
  }

  drawCounts() {
    const chosen = new Set(this.filters.getAll("status"));
    const focused = this.statuses.querySelector(":focus")?.dataset.status;
    replace(this.statuses, STATUSES.map((status) => button([statusMark(status), el("b", null, this.counts ? count(this.counts[status]) : "")], () => this.toggleStatus(status),
      { "aria-pressed": String(chosen.has(status)), "data-status": status })));
    if (focused) this.statuses.querySelector(`[data-status="${focused}"]`)?.focus();
  }

  get isFiltered() {
    return [...this.filters.keys()].length > 0;
  }

  drawRows() {
    this.drawCounts();
    if (!this.jobs.length) {
      replace(this.place, this.isFiltered ? el("p.empty", null, "No job matches. ", button("Show all", () => this.clear())) : this.lesson());
      return;
    }
    if (this.table.parentNode !== this.place) replace(this.place, this.table);
    const kept = new Map([...this.body.children].map((row) => [row.dataset.id, row]));
    const focus = document.activeElement?.closest?.("tr[data-id]");
    let before = null;
    for (const job of this.jobs) {
      const fresh = this.row(job);
      const old = kept.get(job.id);
      if (old && (old === focus || old.dataset.state === fresh.dataset.state)) {
        if (old.dataset.state !== fresh.dataset.state) this.drawRow(job);
        kept.delete(job.id);
      } else if (old) {
        old.replaceWith(fresh);
        kept.delete(job.id);
      }
      const row = this.rowOf(job.id) ?? fresh;
      const wanted = before ? before.nextSibling : this.body.firstChild;
      if (row !== wanted) this.body.insertBefore(row, wanted);
      before = row;
    }
    for (const row of kept.values()) row.remove();
    this.drawBulk();
  }

  lesson() {
    const command = `curl ${address("jobs")} -H 'Content-Type: application/json' -d '{"workflow": "demo", "name": "my first job"}'`;
    return el("div.empty.card", null, el("h2", null, "No job yet"),
      el("p", null, "Submit one ", el("a", { href: "#/new" }, "with a form"), ", or from a terminal:"),
      el("pre", { tabindex: "0" }, command), button("Copy", (event) => copy(command, event.currentTarget)));
  }

  clear() {
    this.filters = new URLSearchParams();
    this.field.value = this.label.value = this.workflow.value = "";
    setSearch(this.filters);
    this.load();
  }

  rowOf(id) {
    return this.body.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
  }

  cells(job) {
    const title = job.name ?? shortId(job.id);
    const position = job.status === "pending" && (this.positions.get(job.id) ?? (this.queued ? `of ${count(this.queued)}` : null));
    return [
      el("td", null, statusMark(job.status), position && el("span.position", { title: "Its place in the queue" }, typeof position === "number" ? `#${position} in the queue` : `one ${position} queued`)),
      el("td", null, el("a", { href: `#/jobs/${job.id}`, title: job.id }, title),
        job.labels && Object.entries(job.labels).map(([key, value]) => button(`${key}: ${value}`, () => { this.label.value = `${key}:${value}`; this.filter("label", `${key}:${value}`); }, { class: "label", title: "Show the jobs with this label" })),
        job.status === "failed" && job.error_message && el("div.why", null, job.error_message.split("\n", 1)[0])),
      el("td", null, job.workflow),
      el("td", null, progressBar(job.progress)),
      el("td", null, when(job.created_at)),
      el("td", null, lasting(job.started_at, job.completed_at)),
      el("td", null, job.owner),
    ];
  }

  row(job) {
    const check = el("input", {
      type: "checkbox", checked: this.selected.has(job.id), "aria-label": `Select ${job.name ?? job.id}`,
      on: { change: (event) => this.select(job.id, event.target.checked) },
    });
    return el("tr", { "data-id": job.id, "data-state": this.state(job), "aria-current": this.current === job.id ? "true" : null }, el("td", null, check), this.cells(job));
  }

  state(job) {
    return JSON.stringify([job.status, job.attempt, job.progress, job.completed_at, job.error_message, this.positions.get(job.id)]);
  }

  drawRow(job) {
    const row = this.rowOf(job.id);
    if (!row || row.dataset.state === this.state(job)) return;
    row.dataset.state = this.state(job);
    const hadFocus = row.querySelector("a") === document.activeElement;
    while (row.children.length > 1) row.lastChild.remove();
    row.append(...this.cells(job));
    if (hadFocus) row.querySelector("a").focus({ preventScroll: true });
  }

  drawFoot(page) {
    const total = `${page.total_is_exact ? "" : "at least "}${plural(page.total, "job")}`;
    replace(this.foot, el("span.quiet", null, total),
      this.cursors.length > 0 && button("Newer", () => { this.cursors.pop(); this.load(); }),
      page.next_cursor && button("Older", () => { this.cursors.push(page.next_cursor); this.load(); }));
  }

  // ---------------------------------------------------------------- changes

  onChange(change) {
    if (change === null) {
      this.refresh();
      return;
    }
    this.later.set(change.job_id, change);
    this.apply();
  }

  applyChanges() {
    let isOther = false;
    let isCounted = false;
    for (const change of this.later.values()) {
      const index = this.jobs.findIndex((job) => job.id === change.job_id);
      if (change.kind !== "progressed") isCounted = true;
      if (index < 0) {
        if (change.kind !== "progressed" && !this.cursors.length) isOther = true;
        continue;
      }
      if (this.jobs[index].status !== change.job.status && (this.filters.getAll("status").length || this.positions.size)) isOther = true;
      this.jobs[index] = { ...this.jobs[index], ...change.job };
      if (change.job.status !== "pending") this.positions.delete(change.job_id);
      this.drawRow(this.jobs[index]);
    }
    this.later.clear();
    if (isOther) this.load();
    if (isCounted) {
      this.loadCounts();
      this.loadCurves();
      this.drawBulk();
    }
  }

  // ---------------------------------------------------------------- many at once

  select(id, isOn) {
    if (isOn) this.selected.add(id);
    else this.selected.delete(id);
    this.drawBulk();
  }

  selectAll(isOn) {
    for (const job of this.jobs) {
      if (isOn) this.selected.add(job.id);
      else this.selected.delete(job.id);
    }
    for (const box of this.body.querySelectorAll("input[type=checkbox]")) box.checked = isOn;
    this.drawBulk();
  }

  drawBulk() {
    const jobs = this.jobs.filter((job) => this.selected.has(job.id));
    const active = jobs.filter((job) => !ENDED.has(job.status));
    const again = jobs.filter((job) => job.status === "failed" || job.status === "cancelled");
    const state = `${jobs.length} ${active.length} ${again.length}`;
    if (this.bulk.dataset.state === state) return;
    this.bulk.dataset.state = state;
    replace(this.bulk, jobs.length > 0 && [
      el("span", null, `${plural(jobs.length, "job")} selected`),
      active.length > 0 && button(`Cancel ${active.length}`, () => this.forEach(active, "cancel"), { class: "danger" }),
      again.length > 0 && button(`Retry ${again.length}`, () => this.forEach(again, "retry")),
      button("Select none", () => { this.selected.clear(); this.selectAll(false); this.all.checked = false; }),
    ]);
  }

  async forEach(jobs, action) {
    if (action === "cancel" && !await confirmed(`Cancel ${plural(jobs.length, "job")}?`, "Running ones are ended; what they have finished stays.", "Cancel them")) return;
    let done = 0;
    const refused = [];
    for (const job of jobs) {
      try {
        await send("POST", `jobs/${job.id}/${action}`);
        done += 1;
        this.selected.delete(job.id);
        const box = this.rowOf(job.id)?.querySelector("input");
        if (box) box.checked = false;
      } catch (error) {
        if (!(error instanceof Problem)) {
          failed(error);
          return;
        }
        refused.push(`${job.name ?? job.id}: ${error.message}`);
      }
    }
    const word = action === "cancel" ? "Cancelling" : "Retrying";
    tell([`${word} ${plural(done, "job")}.`, ...refused].join(" "), refused.length ? "bad" : "good");
    this.all.checked = false;
    this.drawBulk();
    this.refresh();
  }

  // ---------------------------------------------------------------- keyboard

  key(event) {
    const rows = [...this.body.children];
    const index = rows.findIndex((row) => row.dataset.id === this.current);
    if (event.key === "j" || event.key === "k") {
      const next = rows[Math.max(0, Math.min(rows.length - 1, event.key === "j" ? index + 1 : index - 1))];
      if (!next) return true;
      rows[index]?.removeAttribute("aria-current");
      next.setAttribute("aria-current", "true");
      this.current = next.dataset.id;
      next.querySelector("a").focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
      return true;
    }
    if (event.key === "Enter" && index >= 0 && document.activeElement === document.body) {
      location.hash = `#/jobs/${this.current}`;
      return true;
    }
    if (event.key === "x" && index >= 0) {
      const box = rows[index].querySelector("input");
      box.checked = !box.checked;
      this.select(this.current, box.checked);
      return true;
    }
    return false;
  }
}
