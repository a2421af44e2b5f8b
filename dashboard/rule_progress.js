// How far each rule of a run is, for the rows of a list. It is asked for only where a row is on the screen, a few
// at once, and of a run that goes on again every other second at most.

import { Problem, get, query } from "./api.js";
import { el } from "./dom.js";
import { count } from "./words.js";

const AT_ONCE = 3;
const PAUSE_MS = 2000;
const KEPT = 400;
const APART = 24; // of more rules, neighbours that are alike are drawn as one
const NAMED = 8;
const ORDER = ["failed", "running", "cancelled", "pending", "completed", "up_to_date"];
const PARTS = ["completed", "up_to_date", "running", "failed", "cancelled"];

const kept = new Map(); // by the job's id: {state, attempt, rules, readAt}; the last to be read is last
const stateOf = (job) => JSON.stringify([job.attempt, job.status, job.progress]);

export class RuleProgress {
  #jobs = new Map(); // those that have a row
  #seen = new Set(); // those whose row is on the screen
  #wanted = new Set();
  #abort = new AbortController();
  #reading = 0;
  #timer = null;

  // `changed(id)` hears of what was read.
  constructor(changed) {
    this.changed = changed;
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const { id } = target.dataset;
        if (isIntersecting) this.#seen.add(id);
        else this.#seen.delete(id);
        this.#want(id);
      }
      this.#read();
    });
  }

  close() {
    this.#abort.abort();
    this.observer.disconnect();
    clearTimeout(this.#timer);
  }

  // What is known of the job's attempt, or null.
  of(job) {
    const known = kept.get(job.id);
    return known?.attempt === job.attempt && known.rules.length ? known.rules : null;
  }

  // The jobs that are listed now, each with its row.
  list(jobs, rowOf) {
    this.observer.disconnect();
    this.#seen.clear();
    this.#jobs = new Map(jobs.map((job) => [job.id, job]));
    for (const id of this.#wanted) if (!this.#jobs.has(id)) this.#wanted.delete(id);
    for (const { id } of jobs) this.observer.observe(rowOf(id));
  }

  update(job) {
    this.#jobs.set(job.id, job);
    this.#want(job.id);
    this.#read();
  }

  #want(id) {
    const job = this.#jobs.get(id);
    if (job?.progress && this.#seen.has(id) && kept.get(id)?.state !== stateOf(job)) this.#wanted.add(id);
    else this.#wanted.delete(id);
  }

  #read() {
    if (this.#abort.signal.aborted) return;
    clearTimeout(this.#timer);
    let pauseMs = Infinity;
    for (const id of this.#wanted) {
      if (this.#reading >= AT_ONCE) return; // one that ends goes on
      const leftMs = document.hidden ? PAUSE_MS : (kept.get(id)?.readAt ?? -Infinity) + PAUSE_MS - performance.now();
      if (leftMs > 0) {
        pauseMs = Math.min(pauseMs, leftMs);
        continue;
      }
      this.#wanted.delete(id);
      this.#readOne(this.#jobs.get(id));
    }
    if (pauseMs < Infinity) this.#timer = setTimeout(() => this.#read(), pauseMs);
  }

  async #readOne(job) {
    const { id, attempt } = job;
    let { state, rules } = { state: stateOf(job), rules: [] };
    this.#reading += 1;
    try {
      const graph = await get(`jobs/${id}/graph${query({ attempt })}`, { signal: this.#abort.signal });
      rules = graph.nodes.filter((node) => node.counts.total);
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      if (!(error instanceof Problem && error.status === 404)) {
        const before = kept.get(id);
        rules = before?.attempt === attempt ? before.rules : [];
        state = null; // asked for again with the next change
      }
    } finally {
      this.#reading -= 1;
    }
    kept.delete(id);
    kept.set(id, { state, attempt, rules, readAt: performance.now() });
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    this.changed(id);
    if (state !== null) this.#want(id);
    this.#read();
  }
}

// ---------------------------------------------------------------- drawing

function words(counts) {
  const told = [`${count(counts.completed + counts.up_to_date)} of ${count(counts.total)} done`];
  for (const name of ["running", "failed", "cancelled"]) if (counts[name]) told.push(`${count(counts[name])} ${name}`);
  return told.join(", ");
}

function segments(rules) {
  const made = [];
  for (const { rule, status, counts } of rules) {
    const last = made.at(-1);
    if (rules.length > APART && last?.status === status) {
      last.names.push(rule);
      for (const name of Object.keys(counts)) last.counts[name] += counts[name];
    } else made.push({ names: [rule], status, counts: { ...counts } });
  }
  return made;
}

function told(rules) {
  const by = Map.groupBy(rules, (rule) => rule.status);
  return ORDER.filter((status) => by.has(status)).map((status) => {
    const names = by.get(status).map((each) => each.rule);
    const shown = status === "failed" || status === "running" ? names.slice(0, NAMED) : [];
    const more = shown.length && names.length > shown.length ? " and others" : "";
    return `${count(names.length)} ${status.replaceAll("_", " ")}${shown.length ? `: ${shown.join(", ")}${more}` : ""}`;
  }).join("; ");
}

// One bar with a segment for each rule, as wide as it has tasks.
export function ruleBar(rules) {
  const parts = segments(rules).map(({ names, status, counts }) => {
    const name = names.length > 2 ? `${names[0]} … ${names.at(-1)} (${count(names.length)} rules)` : names.join(", ");
    const segment = el(`span.rule.of-${status}`, { title: `${name}: ${words(counts)}` });
    segment.style.flexGrow = counts.total;
    for (const part of PARTS) {
      if (!counts[part]) continue;
      const filled = el(`span.${part}`);
      filled.style.width = `${(100 * counts[part]) / counts.total}%`;
      segment.append(filled);
    }
    return segment;
  });
  return el("div.bar.by-rule", { role: "img", "aria-label": `Rules: ${told(rules)}` }, parts);
}
