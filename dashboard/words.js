// How things are told: statuses, times, sizes.

import { el, svg } from "./dom.js";

export const STATUSES = ["running", "pending", "failed", "completed", "cancelled"];
export const ENDED = new Set(["completed", "failed", "cancelled"]);
const ICONS = {
  pending: "M4.5 0a4.5 4.5 0 1 1-9 0a4.5 4.5 0 1 1 9 0z",
  running: "M-3.5-5L5.5 0L-3.5 5z",
  completed: "M-5 .5L-1.5 4.5L5.5-4.5",
  failed: "M-4.5-4.5L4.5 4.5M4.5-4.5L-4.5 4.5",
  cancelled: "M5 0a5 5 0 1 1-10 0a5 5 0 1 1 10 0zM-3.5-3.5L3.5 3.5",
  up_to_date: "M-5-2.5H5M-5 2.5H5",
};
export const REASONS = {
  exited_zero: "It ended well",
  exited_nonzero: "The run ended with an error",
  killed_by_signal: "A signal killed the run",
  timed_out: "It took longer than its time limit",
  out_of_memory: "It ran out of memory",
  launch_failed: "It could not be started",
  lost: "Nobody knows how it ended: what watched over it was killed",
  cancel_requested: "Cancelled on request",
};

export function statusIcon(status) {
  return svg("svg", { viewBox: "-8 -8 16 16", class: `icon ${status}`, "aria-hidden": "true" }, svg("path", { d: ICONS[status] ?? ICONS.pending }));
}
export const statusMark = (status) => el(`span.status.${status}`, null, statusIcon(status), status.replaceAll("_", " "));

// By the service's clock, which its times are of; the reader's may go wrong by minutes.
let aheadMs = 0;
export const now = () => Date.now() + aheadMs;

// `date` is what the service said its time was, in whole seconds, between these two moments of ours.
export function setClock(date, fromMs, toMs) {
  const served = Date.parse(date);
  if (Number.isNaN(served) || toMs - fromMs > 2000) return;
  const found = served + 500 - (fromMs + toMs) / 2;
  aheadMs = Math.abs(found) > 2500 ? found : 0;
}

const UNITS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function told(ms) {
  const away = (ms - now()) / 1000;
  if (Math.abs(away) < 5) return "just now";
  const [unit, size] = UNITS.find(([, s]) => Math.abs(away) >= s) ?? UNITS.at(-1);
  return relative.format(Math.trunc(away / size), unit);
}

export const absoluteTime = (text) => absolute.format(new Date(text));

export function when(text) {
  if (!text) return "–";
  return el("time", { datetime: text, title: absoluteTime(text), "data-ago": "" }, told(Date.parse(text)));
}

// A duration that grows for as long as there is no end.
export function lasting(from, to) {
  if (!from) return "–";
  const node = el("span", { "data-since": to ? null : from }, duration((to ? Date.parse(to) : now()) - Date.parse(from)));
  return node;
}

setInterval(() => {
  for (const node of document.querySelectorAll("time[data-ago]")) {
    const text = told(Date.parse(node.dateTime));
    if (node.textContent !== text) node.textContent = text;
  }
  for (const node of document.querySelectorAll("[data-since]")) {
    node.textContent = duration(now() - Date.parse(node.dataset.since));
  }
}, 1000);

export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  let value = number;
  for (const unit of ["bytes", "KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024 || unit === "TiB") return `${unit === "bytes" ? value : value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
    value /= 1024;
  }
  return "";
}

export const count = (number) => number.toLocaleString("en");
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
export const shortId = (id) => `${id.slice(0, 8)}…${id.slice(-4)}`;

// A bar of parts by status, with its words for those who do not see it.
export function bar(counts, total, label) {
  const parts = ["completed", "up_to_date", "running", "failed", "cancelled"].filter((name) => counts[name]);
  const words = parts.map((name) => `${counts[name]} ${name.replaceAll("_", " ")}`).join(", ") || "none done";
  const node = el("div.bar", { role: "img", "aria-label": `${label}: ${words}, of ${total}` });
  for (const name of parts) {
    const part = el(`span.${name}`);
    part.style.width = `${(100 * counts[name]) / Math.max(1, total)}%`;
    node.append(part);
  }
  return node;
}

// `byRule`: a bar that tells more, where there is one.
export function progressBar(progress, byRule) {
  if (!progress) return el("span.quiet", null, "–");
  const { done, running, failed, total } = progress;
  return el("div.progress", null, byRule || bar({ completed: done, running, failed }, total, "Tasks"),
    el("span.figure", null, `${count(done)}/${count(total)}`));
}
