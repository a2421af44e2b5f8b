// What an attempt used of the machine: sums against what it may have, and curves as time goes by.

import { Problem, get, query } from "./api.js";
import { el, replace, svg } from "./dom.js";
import { bytes, count, duration, plural } from "./words.js";

const HEIGHT = 156;
const LEFT = 62;
const RIGHT = 8;
const TOP = 18;
const BOTTOM = 20;
const ROWS = 60;
const EVERY_MS = 5000;
const STEPS_S = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const FAR = 4; // a limit further up than so many times the most would press the curve to the ground

const cores = (number) => `${number < 10 ? Number(number.toFixed(2)) : Math.round(number)} ${number === 1 ? "core" : "cores"}`;
const since = (s) => duration(s * 1000);
// A moment of a long run, to the minute: neighbours are not told alike.
const moment = (s) => (s < 86400 ? since(s) : `${Math.floor(s / 86400)} d ${since(s % 86400)}`);

// At most `most` points: neighbours in one, with the mean of the processor and the most of the memory.
export function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  if (size < 2) return points;
  const found = [];
  let began = 0;
  for (let at = 0; at < points.length; at += size) {
    const group = points.slice(at, at + size);
    let before = began;
    let cpu = 0;
    for (const point of group) {
      cpu += point.cores * (point.elapsed_s - before);
      before = point.elapsed_s;
    }
    const largest = (name) => group.reduce((sum, point) => (point[name] === null ? sum : Math.max(sum ?? 0, point[name])), null);
    found.push({ elapsed_s: before, cores: cpu / (before - began), rss_bytes: largest("rss_bytes"), processes: largest("processes") });
    began = before;
  }
  return found;
}

// Round numbers from 0 up to where `top` is reached: 1, 2 or 5 of something, and of memory of a power of 1024.
function ticks(top, isMemory) {
  const unit = isMemory ? 1024 ** Math.max(0, Math.floor(Math.log(top) / Math.log(1024))) : 1;
  const rough = top / unit / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power * unit;
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, index) => index * step);
}

const CURVES = [
  { title: "Processor", name: "cores", unit: "cores", tell: cores, limit: (limits) => limits.cores },
  { title: "Memory", name: "rss_bytes", unit: "memory", tell: bytes, limit: (limits) => limits.memory_bytes, isMemory: true },
];

export class UsageView {
  constructor(id, number) {
    this.id = id;
    this.number = number;
    this.isLive = null;
    this.figures = CURVES.map((curve) => ({ ...curve, caption: el("figcaption"), place: el("div.plot") }));
    this.slider = el("input", { type: "range", min: 0, step: 1, "aria-label": "Time since the start", on: { input: () => this.point(Number(this.slider.value)) } });
    this.told = el("output.quiet");
    this.table = el("details", { on: { toggle: () => this.drawTable() } }, el("summary", null, "As a table"), el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Use of the machine as a table" }));
    this.curves = el("div.usage", null, el("div.figures.wide", null, this.figures.map((each) => el("figure", null, each.caption, each.place))),
      el("div.scrub", null, el("span", { "aria-hidden": "true" }, "Time since the start"), this.slider, this.told), this.table);
    this.sums = el("div.figures");
    this.element = el("div");
    for (const { place } of this.figures) {
      const move = (event) => {
        const box = place.getBoundingClientRect();
        const at = ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * this.end;
        const index = this.points?.findIndex((point) => point.elapsed_s >= at);
        if (index !== undefined) this.point(index < 0 ? this.points.length - 1 : index);
      };
      place.addEventListener("pointermove", move);
      place.addEventListener("pointerdown", move);
    }
    this.resized = new ResizeObserver(() => { if (this.points && this.figures[0].place.clientWidth !== this.width) this.draw(); });
    this.resized.observe(this.curves);
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.resized.disconnect();
  }

  // Live: until the attempt has ended it is looked at again, as often as there can be something new.
  show(isLive) {
    if (isLive === this.isLive) return;
    this.isLive = isLive;
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    let pauseMs = EVERY_MS;
    let isDue = this.isLive;
    // The end is asked for where nobody looks, too: nothing is asked afterwards.
    if (!document.hidden || !this.history || !this.isLive) {
      const asking = Symbol("an answer that is overtaken is not shown");
      this.asking = asking;
      try {
        const history = await get(`jobs/${this.id}/usage${query({ attempt: this.number })}`);
        if (this.isClosed || this.asking !== asking) return;
        this.history = history;
        this.drawAll();
      } catch (error) {
        if (this.isClosed || this.asking !== asking) return;
        if (!(error instanceof Problem) || error.status >= 500) isDue = true; // told where the job itself is asked for
      }
      const [before, last] = this.history?.points.slice(-2) ?? [];
      if (last) pauseMs = Math.max(pauseMs, (last.elapsed_s - before.elapsed_s) * 1000);
    }
    clearTimeout(this.timer);
    if (isDue) this.timer = setTimeout(() => this.load(), pauseMs);
  }

  drawAll() {
    const { usage, limits, points, started_at: start, ended_at: end } = this.history;
    if (!usage) {
      replace(this.element);
      return;
    }
    const tookS = points.at(-1)?.elapsed_s ?? (start && end ? (Date.parse(end) - Date.parse(start)) / 1000 : 0);
    const could = tookS * limits.cores;
    replace(this.sums,
      meter("Processor time", usage.cpu_s, could, `${usage.cpu_s < 1 ? `${usage.cpu_s.toFixed(2)} s` : since(usage.cpu_s)} on ${plural(limits.cores, "core")}${could ? `, ${Math.round((100 * usage.cpu_s) / could)} % of what it could have used` : ""}`),
      meter("Memory, the most at once", usage.max_rss_bytes, limits.memory_bytes ?? 0, `${bytes(usage.max_rss_bytes)}${limits.memory_bytes ? ` of ${bytes(limits.memory_bytes)} allowed` : ", no limit set"}`),
      el("div", null, el("b", null, "Disk"), el("p", null, `${bytes(usage.read_bytes)} read, ${bytes(usage.written_bytes)} written`)));
    if (this.element.firstChild === null) replace(this.element, el("h2", null, "Use of the machine"), this.sums);
    if (points.length < 2) {
      this.curves.remove();
      this.note ??= el("p.quiet", null, "It was over before it could be seen twice: there are no curves.");
      if (end) this.element.append(this.note);
      return;
    }
    this.note?.remove();
    if (!this.curves.isConnected) this.element.append(this.curves);
    this.draw();
    this.drawTable();
  }

  draw() {
    const wasAtEnd = this.points === undefined || this.at === lastSeen(this.points);
    this.width = this.figures[0].place.clientWidth || 400;
    this.points = thinned(this.history.points, Math.max(50, Math.floor((this.width - LEFT - RIGHT) / 2)));
    this.end = Math.max(0.001, this.points.at(-1).elapsed_s);
    for (const figure of this.figures) this.drawCurve(figure);
    this.slider.max = this.points.length - 1;
    this.point(wasAtEnd ? lastSeen(this.points) : Math.min(this.at, this.points.length - 1));
  }

  drawCurve(figure) {
    const { name, title, tell, isMemory } = figure;
    const limit = figure.limit(this.history.limits);
    const values = this.points.map((point) => point[name]).filter((value) => value !== null);
    const most = Math.max(0, ...values);
    const isNear = limit && limit <= Math.max(most * FAR, isMemory ? 0 : 2);
    const marks = ticks(Math.max(most, isNear ? limit : 0, isMemory ? 2 ** 20 : 0.1), isMemory);
    const top = marks.at(-1);
    const { width } = this;
    const x = (s) => LEFT + (s / this.end) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const stepS = STEPS_S.find((step) => (step / this.end) * (width - LEFT - RIGHT) > 64) ?? this.end / 8;
    const parts = marks.map((value) => [svg("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }), svg("text", { class: "mark", x: LEFT - 6, y: y(value) + 4 }, value === 0 ? "0" : isMemory ? bytes(value) : Number(value.toPrecision(3)))]);
    for (let s = 0; s <= this.end; s += stepS) {
      const isLast = x(s) > width - 28;
      parts.push(svg("text", { class: s === 0 ? "mark first" : isLast ? "mark" : "mark middle", x: isLast ? width : x(s), y: HEIGHT - 5 }, axisTime(s, stepS)));
    }
    let line = "";
    let area = "";
    let from = 0;
    let isDown = true; // nothing was seen before: the line begins anew
    for (const point of this.points) {
      const value = point[name];
      if (value !== null) {
        line += `${isDown ? "M" : "L"}${x(from).toFixed(1)} ${y(value).toFixed(1)}H${x(point.elapsed_s).toFixed(1)}`;
        area += `M${x(from).toFixed(1)} ${y(0)}V${y(value).toFixed(1)}H${x(point.elapsed_s).toFixed(1)}V${y(0)}z`;
      }
      isDown = value === null;
      from = point.elapsed_s;
    }
    const bound = isNear && [svg("path", { class: "limit", d: `M${LEFT} ${y(limit)}H${width - RIGHT}` }), svg("text", { class: "limit mark", x: width - RIGHT - 2, y: y(limit) - 5 }, `limit ${tell(limit)}`)];
    figure.cursor = svg("path", { class: "cursor" });
    figure.x = x;
    replace(figure.place, svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title} as time goes by: at most ${tell(most)}${limit ? `, limit ${tell(limit)}` : ""}` },
      parts, svg("path", { class: "area", d: area }), svg("path", { class: "line", d: line }), bound, figure.cursor));
    const now = this.history.ended_at ? "" : `now ${tell(values.at(-1) ?? 0)}, `;
    replace(figure.caption, el("b", null, title), el("span.quiet", null, ` ${isMemory ? "in use" : "in cores"}: ${now}most ${tell(most)}${limit ? (isNear ? "" : `, limit ${tell(limit)}, far above`) : ", no limit set"}`));
  }

  // The point that is told of, for the mouse, the finger, the keyboard and those who hear it.
  point(index) {
    const point = this.points[index];
    this.at = index;
    this.slider.value = index;
    const text = [moment(point.elapsed_s), cores(point.cores), point.rss_bytes !== null && bytes(point.rss_bytes), point.processes !== null && `${count(point.processes)} ${point.processes === 1 ? "process" : "processes"}`].filter(Boolean);
    this.told.textContent = `at ${text.join(" · ")}`;
    this.slider.setAttribute("aria-valuetext", this.told.textContent);
    for (const { cursor, x } of this.figures) cursor.setAttribute("d", `M${x(point.elapsed_s).toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}`);
  }

  drawTable() {
    if (!this.table.open || !this.points) return;
    const cell = (value, tell) => el("td.figure", null, value === null ? "–" : tell(value));
    replace(this.table.lastChild, el("table", null,
      el("thead", null, el("tr", null, ["Until", "Cores", "Memory, the most", "Processes, the most"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", null, thinned(this.history.points, ROWS).map((point) => el("tr", null, el("th.figure", { scope: "row" }, moment(point.elapsed_s)), cell(point.cores, (value) => value.toFixed(2)), cell(point.rss_bytes, bytes), cell(point.processes, count))))));
  }
}

// The end of an attempt, unless nobody had looked for a while then.
function lastSeen(points) {
  const found = points.findLastIndex((point) => point.rss_bytes !== null);
  return found < 0 ? points.length - 1 : found;
}

function axisTime(s, stepS) {
  if (s === 0) return "0";
  if (s < 60) return `${s} s`;
  if (s < 3600) return stepS % 60 ? `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")} min` : `${s / 60} min`;
  if (s < 86400) return stepS % 3600 ? `${Math.floor(s / 3600)}:${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} h` : `${s / 3600} h`;
  return s % 86400 ? `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h` : `${s / 86400} d`;
}

function meter(name, value, limit, told) {
  const part = limit ? Math.min(1, value / limit) : 0;
  const fill = el("span");
  fill.style.width = `${part * 100}%`;
  return el("div", null, el("b", null, name), limit > 0 && el("div", { class: part > 0.9 && name.startsWith("Memory") ? "meter high" : "meter", role: "img", "aria-label": `${name}: ${told}` }, fill), el("p", null, told));
}
