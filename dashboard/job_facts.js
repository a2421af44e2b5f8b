// All that a job is besides what becomes of it: its numbers, labels, parameters, options and files.

import { el } from "./dom.js";
import { bytes, duration, when } from "./words.js";

const pretty = (value) => JSON.stringify(value, null, 2);

export function facts(job) {
  const fact = (name, value) => value !== null && value !== undefined && value !== "" && el("div", null, el("dt", null, name), el("dd", null, value));
  return [el("dl.facts", null,
    fact("Id", el("code", null, job.id)), fact("Workflow", job.workflow), fact("Version", job.workflow_version && el("code", { title: job.workflow_version }, job.workflow_version.slice(0, 19))),
    fact("Commit", job.workflow_commit && el("code", null, job.workflow_commit.slice(0, 12))), fact("Engine", job.engine), fact("Isolation", job.isolation), fact("Cores", job.cores), fact("Priority", job.priority),
    fact("Time limit", job.timeout_s && duration(job.timeout_s * 1000)), fact("Memory limit", job.memory_mb && bytes(job.memory_mb * 2 ** 20)), fact("Retries", job.max_retries), fact("Attempt", job.attempt),
    fact("Submitted", when(job.created_at)), fact("Started", job.started_at && when(job.started_at)), fact("Ended", job.completed_at && when(job.completed_at)), fact("Tenant", job.tenant), fact("Targets", job.targets.join(" ")),
    Object.entries(job.labels).map(([name, value]) => fact(name, value))),
  el("h3", null, "Parameters"), el("pre", { tabindex: "0" }, pretty(job.parameters)),
  Object.keys(job.options).length > 0 && [el("h3", null, "Options"), el("pre", { tabindex: "0" }, pretty(job.options))],
  job.attachments.length > 0 && [el("h3", null, "Files that came with it"), el("ul", null, job.attachments.map((each) => el("li", null, el("code", null, each.name), ` ${bytes(each.size)}`)))]];
}
