// Curves of the last hours, drawn from the newest jobs: how many waited, how many ran, how many ended in an hour.

import { el, svg } from "./dom.js";
import { count, now as served } from "./words.js";

const WIDTH = 320;
const HEIGHT = 72;
const HOUR = 3_600_000;

// The most intervals at once in each of `steps` spans of time, and how many there are now.
function levels(intervals, from, to, steps) {
  const changes = intervals.flatMap(([begin, end]) => [[begin, 1], [end, -1]]).sort((a, b) => a[0] - b[0]);
  const found = [];
  let level = 0;
  let index = 0;
  for (let step = 1; step <= steps; step += 1) {
    const until = from + ((to - from) * step) / steps;
    let most = level;
    for (; index < changes.length && changes[index][0] <= until; index += 1) {
      level += changes[index][1];
      if (changes[index][0] >= from || step > 1) most = Math.max(most, level);
    }
    found.push(Math.max(most, level));
  }
  found.push(level);
  return found;
}

function chart(title, values, from, to, isBars) {
  const top = Math.max(1, ...values);
  const x = (index) => (index / Math.max(1, values.length - (isBars ? 0 : 1))) * WIDTH;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
  const shape = isBars
    ? values.map((value, index) => svg("rect", { class: "area", x: x(index) + 0.5, y: y(value), width: Math.max(1, WIDTH / values.length - 1), height: HEIGHT - 2 - y(value) }))
    : svg("path", { class: "line", d: values.map((value, index) => (index ? `H${x(index).toFixed(1)}V${y(value).toFixed(1)}` : `M0 ${y(value).toFixed(1)}`)).join("") });
  const clock = new Intl.DateTimeFormat(undefined, { weekday: to - from > 20 * HOUR ? "short" : undefined, hour: "2-digit", minute: "2-digit" });
  return el("figure", null,
    el("figcaption", null, title, el("span.quiet", null, ` now ${count(values.at(-1))}, most ${count(Math.max(0, ...values))}`)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: now ${values.at(-1)}, most ${Math.max(0, ...values)}`, preserveAspectRatio: "none" },
      svg("path", { class: "ground", d: `M0 ${HEIGHT - 2}H${WIDTH}` }), shape),
    el("div.axis", null, el("span", null, clock.format(from)), el("span", null, "now")));
}

export function curves(jobs, isPart) {
  if (jobs.length < 2) return [];
  const now = served();
  const times = jobs.map((job) => ({ created: Date.parse(job.created_at), started: job.started_at && Date.parse(job.started_at), ended: job.completed_at && Date.parse(job.completed_at) }));
  const oldest = Math.min(...times.map((job) => job.created));
  const hours = Math.min(24, Math.max(6, Math.ceil((now - oldest) / HOUR)));
  const from = now - hours * HOUR;
  const steps = 120;
  const waiting = levels(times.map((job) => [job.created, job.started ?? job.ended ?? now + HOUR]), from, now, steps);
  const running = levels(times.filter((job) => job.started).map((job) => [job.started, job.ended ?? now + HOUR]), from, now, steps);
  const finished = Array(hours).fill(0);
  for (const job of times) if (job.ended && job.ended > from) finished[Math.min(hours - 1, Math.floor((job.ended - from) / HOUR))] += 1;
  return [
    el("h2", null, "Lately", el("span.quiet", null, isPart ? ` of the newest ${count(jobs.length)} jobs, ${hours} h` : ` ${hours} h`)),
    el("div.figures", null, chart("In the queue", waiting, from, now), chart("Running", running, from, now), chart("Finished per hour", finished, from, now, true)),
  ];
}
