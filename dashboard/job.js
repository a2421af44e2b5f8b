// A job: what went wrong first, then how far it got, then everything about it.

import { Problem, download, get, query, send } from "./api.js";
import { attempt, failed, tell } from "./app.js";
import { curl } from "./curl.js";
import { button, confirmed, copy, el, replace, throttled } from "./dom.js";
import { lookAt, ruleGraph } from "./graph.js";
import { facts } from "./job_facts.js";
import { isActive, logViewOf } from "./log_page.js";
import { find } from "./log_search.js";
import { Outputs } from "./outputs.js";
import { errorBox, scrollToEnd, taskLogView, wildcards } from "./task.js";
import { Tasks } from "./tasks.js";
import { UsageView } from "./usage.js";
import { REASONS, bar, bytes, count, lasting, plural, progressBar, shortId, statusMark, when } from "./words.js";

const FIRST_RULES = 14;

// Failed rules first, then those that have begun, those that have not, those that are done: while a run goes on
// a rule moves twice, not each time that one of its tasks begins.
export function place({ counts }) {
  if (counts.failed) return 0;
  const done = counts.completed + counts.up_to_date;
  if (done === counts.total) return 3;
  return done || counts.running ? 1 : 2;
}

export function open(root, options) {
  return new JobView(root, options);
}

class JobView {
  constructor(root, { id, search, changes }) {
    this.id = id;
    this.root = root;
    this.search = search;
    this.outputs = new Outputs(id);
    this.parts = Object.fromEntries(["title", "banner", "actions", "log", "rules", "graph", "tasks", "usage", "files", "about"].map((name) => [name, el("section")]));
    this.loadRun = throttled(1200, () => this.fetchRun());
    this.loadJob = throttled(1500, () => this.fetchJob());
    this.loadFiles = throttled(5000, () => this.outputs.grow().catch(() => {})); // the next change tries again
    this.loadPlace = throttled(3000, () => this.fetchJob());
    this.progress = el("div");
    this.stop = changes.listen((change) => this.changed(change));
    replace(root, el("p.quiet", null, "Loading …"));
    this.begin();
  }

  close() {
    this.isClosed = true;
    this.stop();
    this.loadRun.stop();
    this.loadJob.stop();
    this.loadPlace.stop();
    this.loadFiles.stop();
    this.finding?.abort();
    this.log?.close();
    this.tasks?.close();
    this.usage?.close();
    this.outputs.close();
  }

  refresh() {
    if (!this.tasks) {
      this.begin();
      return;
    }
    this.loadJob();
    this.loadRun();
  }

  moved(search) {
    const before = this.number;
    this.search = search;
    if (this.number !== before) this.begin();
    else this.tasks?.filter(search);
  }

  get number() {
    return Number(this.search.get("attempt") ?? this.job?.attempt ?? 1);
  }

  get isLatest() {
    return this.number === this.job.attempt;
  }

  async begin() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const job = await get(`jobs/${this.id}`);
      if (this.isClosed || turn !== this.turn) return;
      this.job = job;
    } catch (error) {
      if (this.isClosed || turn !== this.turn) return;
      if (error instanceof Problem && error.status === 404) this.gone();
      else failed(error);
      return;
    }
    document.title = `${this.job.name ?? shortId(this.id)} · Snakeline`;
    this.log?.close();
    this.log = null;
    this.tasks?.close();
    this.tasks = new Tasks(this.id, this.number, this.search);
    replace(this.root, this.parts.title, this.parts.banner, this.parts.actions, this.parts.log, this.parts.rules, this.parts.graph, this.parts.tasks, this.parts.usage, this.parts.files, this.parts.about);
    replace(this.parts.tasks, this.tasks.element);
    this.usage?.close();
    this.usage = new UsageView(this.id, this.number);
    replace(this.parts.usage, this.usage.element);
    this.drawHead();
    this.drawAbout();
    await this.showLog();
    if (this.isClosed || turn !== this.turn) return;
    this.loadRun();
    this.compareVersion();
    await this.showOutputs();
    if (this.search.has("rule") || this.search.has("status")) this.tasks.element.scrollIntoView();
  }

  gone() {
    this.close();
    this.tasks = null;
    replace(this.root, el("h1", null, "There is no such job"), el("p", null, "It was deleted, or it is not yours. ", el("a", { href: "#/" }, "To the jobs")));
  }

  changed(change) {
    if (change === null) this.refresh();
    if (!change || !this.tasks) return;
    if (change.job_id !== this.id) {
      // Others start and end: it moves up.
      if (this.job.status === "pending" && change.kind !== "progressed") this.loadPlace();
      return;
    }
    this.heard = change.job;
    this.take({ ...this.job, ...change.job, links: this.job.links });
    this.loadRun();
    this.loadJob();
    if (isActive(this.job)) this.loadFiles();
  }

  async fetchJob() {
    this.heard = null;
    const turn = (this.jobTurn = (this.jobTurn ?? 0) + 1);
    try {
      const job = await get(`jobs/${this.id}`);
      if (this.isClosed || turn !== this.jobTurn) return;
      // What was heard while the answer was under way may be newer.
      this.take({ ...job, ...this.heard, links: job.links });
      this.drawAbout();
    } catch (error) {
      if (this.isClosed) return;
      if (error instanceof Problem && error.status === 404) this.gone();
      else failed(error);
    }
  }

  take(job) {
    const before = this.job;
    this.job = job.status === "pending" ? job : { ...job, queue_position: null };
    if (job.attempt !== before.attempt && !this.search.has("attempt")) {
      this.begin();
      return;
    }
    this.drawHead();
    if (before.status === job.status) return;
    this.log?.setLive(isActive(job) && this.isLatest);
    if (isActive(job)) return;
    this.compareVersion();
    if (job.status === "failed") this.showLog(); // else whoever reads it is left where they are
    this.showOutputs();
  }

  // ---------------------------------------------------------------- what happened

  drawHead() {
    const { job } = this;
    const state = JSON.stringify([job.status, job.reason, job.attempt, job.cancel_requested_at, job.queue_position, job.error_message, this.number]);
    replace(this.progress, job.progress && progressBar(job.progress), job.progress && job.attempt > 1 && el("p.quiet", null, "Of what earlier attempts had left."));
    if (state === this.drawn) return;
    this.drawn = state;
    const focus = document.activeElement?.dataset?.act;
    const attempts = job.attempt > 1 && el("select", { "aria-label": "Attempt", on: { change: (event) => { location.hash = `#/jobs/${this.id}${query({ attempt: event.target.value })}`; } } },
      Array.from({ length: job.attempt }, (_, index) => el("option", { value: index + 1, selected: index + 1 === this.number }, `Attempt ${index + 1} of ${job.attempt}`)));
    replace(this.parts.title,
      el("div.title", null, el("h1", null, job.name ?? shortId(job.id)), el("div.inline", null, statusMark(job.status), job.cancel_requested_at && job.status === "running" && el("span.quiet", null, "being cancelled"),
        job.queue_position && el("span.quiet", null, `#${count(job.queue_position)} in the queue`), attempts)),
      el("p.quiet", null, job.workflow, " · submitted ", when(job.created_at), " by ", job.owner, job.started_at && [" · ", job.completed_at ? "took " : "running for ", lasting(job.started_at, job.completed_at)]),
      this.progress);
    replace(this.parts.actions, el("div.tools", null, this.buttons()),
      this.isOutdated && !isActive(job) && el("p.quiet", null, "The workflow has changed since this job was submitted. A retry runs what was submitted; ", el("a", { href: `#/new?from=${this.id}` }, "a clone"), " runs the workflow as it is now, from its start."),
      this.jumps());
    if (focus) this.parts.actions.querySelector(`[data-act="${focus}"]`)?.focus();
    this.drawBanner();
  }

  // The page is long: to its parts, those that are there.
  jumps() {
    const places = { Log: "log", Rules: "rules", Graph: "graph", Tasks: "tasks", Usage: "usage", Files: "files", About: "about" };
    return el("nav.jumps", { "aria-label": "On this page" }, Object.entries(places).map(([label, name]) => button(label, () => {
      const part = this.parts[name].querySelector("h2");
      part?.setAttribute("tabindex", "-1");
      part?.focus({ preventScroll: true });
      part?.scrollIntoView();
    }, { class: "plain" })));
  }

  // Whoever has mended the workflow and presses Retry would see it fail as before.
  async compareVersion() {
    const { job } = this;
    if ((job.status !== "failed" && job.status !== "cancelled") || !job.workflow_version) return;
    try {
      const { version } = await get(`workflows/${encodeURIComponent(job.workflow)}`);
      const isOutdated = Boolean(version) && version !== job.workflow_version;
      if (this.isClosed || isOutdated === Boolean(this.isOutdated)) return;
      this.isOutdated = isOutdated;
      this.drawn = null;
      this.drawHead();
    } catch { /* it is not registered any more, or came with the job: there is nothing to compare */ }
  }

  buttons() {
    const { job } = this;
    const active = isActive(job);
    const act = (name, label, work, more) => button(label, (event) => attempt(() => work(event.currentTarget)), { "data-act": name, ...more });
    return [
      active && !job.cancel_requested_at && act("cancel", "Cancel", async () => {
        if (await confirmed("Cancel this job?", "What it has finished stays, and a retry goes on from there.", "Cancel the job")) await send("POST", `jobs/${this.id}/cancel`);
      }, { class: "danger" }),
      (job.status === "failed" || job.status === "cancelled") && act("retry", "Retry from failure", async () => {
        this.job = await send("POST", `jobs/${this.id}/retry`);
        tell(`Attempt ${this.job.attempt} waits for its turn; what is finished is not run again.`);
        if (this.search.has("attempt")) location.hash = `#/jobs/${this.id}`;
        else await this.begin();
      }, { class: "primary" }),
      el("a.button", { href: `#/new?from=${this.id}` }, "Clone with changes"),
      act("curl", "Copy as curl", (control) => copy(curl(job), control)),
      !active && act("report", "Report", (control) => this.report(control), { title: "Snakemake's report of the run, a page of HTML" }),
      !active && act("crate", "RO-Crate", () => download(`jobs/${this.id}/ro-crate?format=zip`, `${this.id}.crate.zip`), { title: "The run as an archive for a repository: files, log, and how each was made" }),
      !active && act("delete", "Delete", async () => {
        if (!await confirmed("Delete this job?", "Its log and all its files are deleted with it. This cannot be undone.", "Delete for ever")) return;
        await send("DELETE", `jobs/${this.id}`);
        tell("The job is deleted.");
        location.hash = "#/";
      }, { class: "danger" }),
    ];
  }

  async report(control) {
    control.disabled = true;
    control.textContent = "Making the report …";
    try {
      const made = await send("POST", `jobs/${this.id}/report`);
      await download(`jobs/${this.id}/report`, `${this.job.name ?? this.id}-report.html`);
      tell(`The report (${bytes(made.size)}) is made and was sent to your downloads.`);
    } finally {
      control.disabled = false;
      control.textContent = "Report";
    }
  }

  drawBanner() {
    const { job } = this;
    if (!this.isLatest || !job.reason || (job.status === "completed" && !job.error_message)) {
      replace(this.parts.banner, !this.isLatest && el("p.quiet", null, "An earlier attempt is shown."));
      return;
    }
    const [first, ...rest] = (job.error_message ?? "").split("\n");
    const how = [job.exit_code !== null && job.exit_code !== undefined && job.status !== "completed" && `exit code ${job.exit_code}`, job.exit_signal && `signal ${job.exit_signal}`].filter(Boolean).join(", ");
    replace(this.parts.banner, el("div", { class: `banner ${job.status}`, role: "alert" },
      el("h2", null, first || REASONS[job.reason]),
      el("p", null, first ? `${REASONS[job.reason]}${how ? ` (${how})` : ""}.` : how),
      this.rootFailure && el("p", null, "The root failure: ", el("a", { href: this.taskLink(this.rootFailure) }, `${this.rootFailure.rule} ${wildcards(this.rootFailure)}`.trim()), this.others > 0 && `; ${plural(this.others, "other task")} failed too`),
      rest.length > 0 && errorBox(rest)));
    scrollToEnd(this.parts.banner.querySelector("pre"));
  }

  taskLink(task) {
    return `#/jobs/${this.id}/tasks/${task.number}${query({ attempt: this.number })}`;
  }

  // ---------------------------------------------------------------- the log, opened at the error

  async showLog() {
    const { job } = this;
    const turn = (this.logTurn = (this.logTurn ?? 0) + 1);
    this.rootFailure = null;
    if (job.status === "failed" || !this.isLatest) {
      try {
        const page = await get(`jobs/${this.id}/tasks${query({ status: "failed", attempt: this.number, limit: 100 })}`);
        if (this.isClosed || turn !== this.logTurn) return;
        this.rootFailure = page.items.find((task) => task.error?.is_root) ?? page.items[0] ?? null;
        this.others = page.total - 1;
        if (this.rootFailure) {
          this.drawn = null;
          this.drawHead();
        }
      } catch (error) {
        if (!(error instanceof Problem)) failed(error); // the log itself may be there
      }
    }
    if (this.isClosed || turn !== this.logTurn) return;
    const failure = this.rootFailure;
    const choices = [...(failure?.log ?? []).map((name, index) => [`Log of ${failure.rule}: ${name}`, () => this.openTaskLog(failure, index, name)]), ["Log of the job", () => this.openJobLog()]];
    const tabs = el("div.tabs", { role: "group", "aria-label": "Which log" });
    const place = el("div");
    const choose = (chosen) => {
      this.finding?.abort();
      replace(tabs, choices.length > 1 && choices.map(([name], index) => button(name, () => choose(index), { "aria-pressed": String(index === chosen) })),
        el("a", { href: `#/jobs/${this.id}/log${query({ attempt: this.number })}` }, "Open the whole log"));
      this.log?.close();
      this.log = choices[chosen][1]();
      replace(place, this.log.element);
    };
    replace(this.parts.log, el("h2", null, "Log"), tabs, place);
    choose(0);
  }

  openTaskLog(task, index, name) {
    const view = taskLogView(this.id, task.number, index, this.number, name);
    view.open({ at: "end", isLive: false });
    return view;
  }

  openJobLog() {
    const isLive = isActive(this.job) && this.isLatest;
    const view = logViewOf(this.job, this.number);
    this.finding = new AbortController();
    const { signal } = this.finding;
    view.open({ at: "end", isLive }).then(async () => {
      if (isLive || (this.isLatest && this.job.status !== "failed")) return;
      const words = this.rootFailure ? [`rule ${this.rootFailure.rule}:`] : ["Error in rule", "Traceback", "Exception", "rror:"];
      for (const word of words) {
        const offset = await find(view.lines, word, this.rootFailure ? view.lines.size : Math.max(-1, view.lines.size - (1 << 20)), { isBack: Boolean(this.rootFailure), signal, told() {} });
        if (signal.aborted) return;
        if (offset !== null) {
          await view.showAt(offset);
          return;
        }
      }
    }).catch(() => {});
    return view;
  }

  // ---------------------------------------------------------------- the run

  async fetchRun() {
    const { tasks } = this;
    let graph;
    try {
      graph = await get(`jobs/${this.id}/graph${query({ attempt: this.number })}`);
      if (this.isClosed || tasks !== this.tasks) return; // another attempt is shown by now
      this.drawRules(graph);
      await tasks.load(isActive(this.job) && this.isLatest);
    } catch (error) {
      if (!this.isClosed && !(error instanceof Problem && error.status === 404)) failed(error);
      return;
    }
    if (this.isClosed || tasks !== this.tasks) return;
    if (!graph.nodes.length) {
      replace(this.parts.graph);
      return;
    }
    const state = JSON.stringify(graph);
    if (state === this.graphState) return;
    try {
      const picture = await ruleGraph(`jobs/${this.id}/graph${query({ attempt: this.number, format: "svg" })}`, { nodes: graph.nodes, linkTo: (rule) => this.ruleLink(rule) });
      if (this.isClosed || tasks !== this.tasks) return;
      this.graphState = state;
      const old = this.parts.graph.querySelector(".graph");
      const scroll = old && [old.scrollLeft, old.scrollTop];
      const box = el("div.graph", { tabindex: "0", role: "region", "aria-label": "Graph of the rules; a box opens the rule's tasks" }, picture);
      replace(this.parts.graph, el("h2", null, "Graph"), box);
      if (scroll) [box.scrollLeft, box.scrollTop] = scroll;
      else lookAt(box);
    } catch { /* a picture is not worth a complaint: the bars say the same */ }
  }

  ruleLink(rule) {
    return `#/jobs/${this.id}${query({ attempt: this.search.get("attempt"), rule })}`;
  }

  drawRules(graph) {
    const nodes = graph.nodes.filter((node) => node.counts.total).toSorted((a, b) => place(a) - place(b));
    const shown = this.allRules ? nodes : nodes.slice(0, FIRST_RULES);
    replace(this.parts.rules, nodes.length > 0 && [el("h2", null, "Rules"), el("div.rules", null, shown.map((node) => {
      const { counts } = node;
      const done = counts.completed + counts.up_to_date;
      const told = [`${count(done)}/${count(counts.total)}`, counts.failed && `${count(counts.failed)} failed`, counts.running && `${count(counts.running)} running`].filter(Boolean).join(", ");
      return [el("a", { href: this.ruleLink(node.rule) }, node.rule), statusMark(node.status), bar(counts, counts.total, node.rule), el("span.figure", null, told)];
    })), nodes.length > shown.length && el("div.tools", null, button(`Show all ${count(nodes.length)} rules`, () => { this.allRules = true; this.drawRules(graph); }))]);
  }

  async showOutputs() {
    if (!this.job.started_at) return;
    try {
      await this.outputs.load(null, isActive(this.job));
      replace(this.parts.files, el("h2", null, "Files"), this.outputs.element);
    } catch (error) {
      failed(error);
    }
  }

  // ---------------------------------------------------------------- everything else

  drawAbout() {
    this.usage.show(isActive(this.job) && this.isLatest);
    replace(this.parts.about, el("h2", null, "About"), facts(this.job));
  }
}
