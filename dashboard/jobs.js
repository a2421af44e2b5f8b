// The list of jobs: live by the one stream of changes, filtered by the address.

import { Problem, address, get, query } from "./api.js";
import { attempt, failed, setSearch } from "./app.js";
import { button, copy, el, replace, throttled } from "./dom.js";
import { curves } from "./curves.js";
import { RuleProgress, ruleBar } from "./rule_progress.js";
import { Selection } from "./selection.js";
import { STATUSES, count, lasting, plural, progressBar, shortId, statusMark, when } from "./words.js";

const PAGE = 50;
const CURVED = 500;

export function open(root, { search, changes }) {
  return new JobList(root, search, changes);
}

class JobList {
  constructor(root, search, changes) {
    this.jobs = [];
    this.abort = new AbortController();
    this.later = new Map(); // changes that are still to be shown, by job
    this.heard = new Map(); // changes since a page was asked for
    // Whoever comes back finds the list as it was.
    const before = history.state?.list;
    this.current = before?.current ?? null;
    this.cursors = before?.cursors ?? []; // of the pages before this one
    this.scrollTo = before?.y;
    this.selection = new Selection(this);
    this.rules = new RuleProgress((id) => { const job = this.jobs.find((each) => each.id === id); if (job) this.drawRow(job); });
    this.draw(root, search);
    this.load = throttled(1000, () => this.fetchPage());
    this.loadCounts = throttled(2000, () => this.fetchCounts());
    this.drawCurves = throttled(15_000, async () => this.showCurves());
    this.apply = throttled(250, async () => this.applyChanges());
    this.stopListening = changes.listen((change) => this.onChange(change));
    // The list first: everything else can wait until it is seen.
    this.fetchPage().finally(() => {
      if (this.abort.signal.aborted) return;
      this.fetchWorkflows();
      this.loadCounts();
      this.fetchCurves();
    });
    document.title = "Jobs · Snakeline";
  }

  close() {
    this.abort.abort();
    this.stopListening();
    this.rules.close();
    for (const call of [this.load, this.loadCounts, this.drawCurves, this.apply]) call.stop();
    clearTimeout(this.typing);
  }

  refresh() {
    this.load();
    this.loadCounts();
    this.fetchCurves();
  }

  moved(search) {
    clearTimeout(this.typing);
    this.filters = new URLSearchParams(search);
    this.cursors = [];
    this.showFilters();
    this.drawCounts();
    this.load();
  }

  draw(root, search) {
    this.filters = new URLSearchParams(search);
    this.field = el("input", {
      type: "search", "data-search": true, placeholder: "Name or id", "aria-label": "Search by name or id", "aria-keyshortcuts": "/",
      on: {
        input: () => {
          clearTimeout(this.typing);
          this.typing = setTimeout(() => this.filter("q", this.field.value.trim()), 250);
        },
      },
    });
    this.workflow = el("select", { "aria-label": "Workflow", on: { change: () => this.filter("workflow", this.workflow.value) } }, el("option", { value: "" }, "every workflow"));
    this.label = el("input", { placeholder: "label: key:value", "aria-label": "Label, as key:value", on: { change: () => this.filter("label", this.label.value.trim()) } });
    this.statuses = el("div.statuses", { role: "group", "aria-label": "Filter by status" });
    this.charts = el("section.charts", { "aria-label": "Lately" });
    this.body = el("tbody");
    this.table = el("table.jobs", null,
      el("caption.offscreen", null, "Jobs, newest first"),
      el("thead", null, el("tr", null, el("th", { scope: "col" }, this.selection.all),
        ["Status", "Job", "Workflow", "Progress", "Submitted", "Duration", "Who"].map((name) => el("th", { scope: "col" }, name)))),
      this.body);
    this.foot = el("div.foot");
    this.place = el("div.place", null, el("p.quiet", null, "Loading …"));
    this.showFilters();
    replace(root,
      el("div.title", null, el("h1", null, "Jobs"), el("a.primary.button", { href: "#/new" }, "New job")),
      this.statuses,
      el("div.filters", null, this.field, this.workflow, this.label), this.selection.bar, this.place, this.foot, this.charts);
    this.place.addEventListener("click", (event) => {
      const id = event.target.closest("a")?.closest("tr[data-id]")?.dataset.id;
      if (id) this.leave(id);
    });
  }

  // Before a job is opened: to be found again by the browser's way back.
  leave(id) {
    history.replaceState({ list: { current: id, cursors: this.cursors, y: window.scrollY } }, "");
  }

  showFilters() {
    this.field.value = this.filters.get("q") ?? "";
    this.label.value = this.filters.getAll("label").join(" ");
    const workflow = this.filters.get("workflow") ?? "";
    if (![...this.workflow.options].some((each) => each.value === workflow)) this.workflow.append(el("option", { value: workflow }, workflow));
    this.workflow.value = workflow;
  }

  fetchWorkflows() {
    attempt(async () => {
      const { items } = await get("workflows", { signal: this.abort.signal });
      const there = new Set([...this.workflow.options].map((each) => each.value));
      for (const { name } of items) if (!there.has(name)) this.workflow.append(el("option", { value: name }, name));
      this.showFilters();
      if (this.place.querySelector(".empty.card")) this.drawRows(); // its example names a workflow
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
    this.heard.clear();
    try {
      const page = await get(`jobs${query({ ...this.asked, limit: PAGE, cursor: this.cursors.at(-1) })}`, { signal: this.abort.signal });
      if (turn !== this.turn) return; // a later one has been asked for
      // What was heard while the answer was under way may be newer than the answer.
      this.jobs = page.items.map((job) => this.changed(job, this.heard.get(job.id)));
      this.drawRows();
      this.drawFoot(page);
      if (this.filters.has("status") && this.jobs.some((job, index) => job.status !== page.items[index].status)) this.load();
    } catch (error) {
      if (turn !== this.turn) return;
      if (error instanceof Problem && error.type.endsWith("invalid-cursor") && this.cursors.length) {
        this.cursors = [];
        this.load();
      } else if (error instanceof Problem && error.status === 422) {
        this.jobs = [];
        replace(this.foot);
        replace(this.place, el("p.bad", { role: "alert" }, error.errors.map((each) => each.detail).join("; ") || error.message));
      } else failed(error);
    }
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

  // Asked for once; from then on the changes say how they go on.
  async fetchCurves() {
    try {
      const { items, next_cursor: more } = await get(`jobs${query({ limit: CURVED })}`, { signal: this.abort.signal });
      this.curved = new Map(items.toReversed().map((job) => [job.id, job]));
      this.isPart = more !== null;
      this.showCurves();
    } catch { /* told by the list itself */ }
  }

  curve(job) {
    if (!this.curved || (this.isPart && !this.curved.has(job.id) && job.created_at < this.curved.values().next().value?.created_at)) return;
    this.curved.set(job.id, job);
    if (this.curved.size > CURVED) {
      this.curved.delete(this.curved.keys().next().value);
      this.isPart = true;
    }
  }

  showCurves() {
    if (this.curved) replace(this.charts, curves([...this.curved.values()], this.isPart));
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
      this.body.replaceChildren();
    } else if (this.table.parentNode !== this.place) replace(this.place, this.table);
    const kept = new Map([...this.body.children].map((row) => [row.dataset.id, row]));
    let before = null;
    for (const job of this.jobs) {
      const row = kept.get(job.id) ?? this.row(job);
      kept.delete(job.id);
      const wanted = before ? before.nextSibling : this.body.firstChild;
      if (row !== wanted) this.body.insertBefore(row, wanted);
      this.drawRow(job, row);
      before = row;
    }
    for (const row of kept.values()) row.remove();
    this.selection.draw();
    this.rules.list(this.jobs, (id) => this.rowOf(id));
    if (this.scrollTo !== undefined) window.scrollTo(0, this.scrollTo);
    this.scrollTo = undefined;
  }

  lesson() {
    const workflow = this.workflow.options[1]?.value ?? "demo"; // after «every workflow»: those that are registered
    const command = `curl ${address("jobs")} -H 'Content-Type: application/json' -d '{"workflow": "${workflow}", "name": "my first job"}'`;
    return el("div.empty.card", null, el("h2", null, "No job yet"),
      el("p", null, "Submit one ", el("a", { href: "#/new" }, "with a form"), ", or from a terminal:"),
      el("pre", { tabindex: "0" }, command), button("Copy", (event) => copy(command, event.currentTarget)));
  }

  clear() {
    setSearch(new URLSearchParams());
    this.moved(new URLSearchParams());
  }

  rowOf(id) {
    return this.body.querySelector(`tr[data-id="${CSS.escape(id)}"]`);
  }

  cells(job) {
    const title = job.name ?? shortId(job.id);
    return [
      el("td", null, statusMark(job.status), job.queue_position && el("span.position", { title: "Its place in the queue" }, `#${count(job.queue_position)} in the queue`)),
      el("td", null, el("a", { href: `#/jobs/${job.id}`, title: job.id }, title),
        job.labels && Object.entries(job.labels).map(([key, value]) => button(`${key}: ${value}`, () => { this.label.value = `${key}:${value}`; this.filter("label", `${key}:${value}`); }, { class: "label", title: `${key}: ${value} – show the jobs with this label` })),
        job.status === "failed" && job.error_message && el("div.why", null, job.error_message.split("\n", 1)[0])),
      el("td", null, job.workflow),
      el("td"),
      el("td", null, when(job.created_at)),
      el("td", null, lasting(job.started_at, job.completed_at)),
      el("td", null, job.owner),
    ];
  }

  row(job) {
    const check = el("input", {
      type: "checkbox", checked: this.selection.has(job.id), "aria-label": `Select ${job.name ?? job.id}`,
      on: { change: (event) => this.selection.set(job.id, event.target.checked) },
    });
    return el("tr", { "data-id": job.id, "aria-current": this.current === job.id ? "true" : null }, el("td", null, check));
  }

  // Progress changes often, and alone: whoever is in the row with the keyboard is not thrown out of it.
  drawRow(job, row = this.rowOf(job.id)) {
    if (!row) return;
    const state = JSON.stringify([job.status, job.attempt, job.started_at, job.completed_at, job.error_message, job.queue_position]);
    if (row.dataset.state !== state) {
      row.dataset.state = state;
      row.dataset.progress = "";
      const focused = [...row.querySelectorAll("a, button")].indexOf(document.activeElement);
      while (row.children.length > 1) row.lastChild.remove();
      row.append(...this.cells(job));
      if (focused >= 0) row.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true });
    }
    const rules = this.rules.of(job);
    const progress = JSON.stringify([job.progress, rules]);
    if (row.dataset.progress === progress) return;
    row.dataset.progress = progress;
    replace(row.children[4], progressBar(job.progress, rules && ruleBar(rules)));
  }

  drawFoot(page) {
    const total = `${page.total_is_exact ? "" : "at least "}${plural(page.total, "job")}`;
    replace(this.foot, el("span.quiet", null, total),
      this.cursors.length > 0 && button("Newer", () => { this.cursors.pop(); this.load(); }),
      page.next_cursor && button("Older", () => { this.cursors.push(page.next_cursor); this.load(); }));
  }

  // ---------------------------------------------------------------- changes

  // The job as a change tells it; without one, as it is.
  changed(job, change) {
    if (!change) return job;
    return { ...job, ...change.job, queue_position: change.job.status === "pending" ? job.queue_position : null };
  }

  onChange(change) {
    if (change === null) {
      this.refresh();
      return;
    }
    this.heard.set(change.job_id, change);
    // A change that only tells progress must not hide what came before it.
    this.isNews ||= change.kind !== "progressed";
    const isNew = (this.later.get(change.job_id)?.isNew ?? false) || change.kind !== "progressed";
    this.later.set(change.job_id, { ...change, isNew });
    this.apply();
  }

  applyChanges() {
    const { isNews } = this;
    this.isNews = false;
    let isOther = isNews && this.jobs.some((job) => job.status === "pending"); // whose places have changed
    for (const change of this.later.values()) {
      if (change.isNew) this.curve(change.job);
      const index = this.jobs.findIndex((job) => job.id === change.job_id);
      if (index < 0) {
        isOther ||= change.isNew && !this.cursors.length;
        continue;
      }
      isOther ||= this.jobs[index].status !== change.job.status && this.filters.has("status");
      this.jobs[index] = this.changed(this.jobs[index], change);
      this.rules.update(this.jobs[index]);
      this.drawRow(this.jobs[index]);
    }
    this.later.clear();
    if (isOther) this.load();
    if (isNews) {
      this.loadCounts();
      this.drawCurves();
      this.selection.draw();
    }
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
      this.leave(this.current);
      location.hash = `#/jobs/${this.current}`;
      return true;
    }
    if (event.key === "x" && index >= 0) {
      const box = rows[index].querySelector("input");
      box.checked = !box.checked;
      this.selection.set(this.current, box.checked);
      return true;
    }
    return false;
  }
}
