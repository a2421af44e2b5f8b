// Looks for a text in a log, window by window, keeping none of them.

import { button, el } from "./dom.js";
import { bytes as sized } from "./words.js";

const WINDOW = 1 << 20;
const latin = new TextDecoder("latin1"); // one letter for each byte

// The offset of the next place behind `from` (or before it), or null. `told(read)` hears how much was read.
export async function find(lines, text, from, { isBack, signal, told }) {
  const wanted = latin.decode(new TextEncoder().encode(text)).toLowerCase();
  const step = WINDOW - wanted.length;
  let at = isBack ? from - WINDOW + wanted.length - 1 : from + 1;
  let read = 0;
  while (!signal.aborted && (isBack ? at > -WINDOW : at < lines.size)) {
    if (lines.gap && !isBack && at >= lines.gap.start && at < lines.gap.end) at = lines.gap.end;
    const start = Math.max(0, at);
    const limit = isBack ? Math.min(WINDOW, at + WINDOW) : WINDOW;
    const { bytes, offset } = await lines.read(start, limit);
    const here = latin.decode(bytes).toLowerCase();
    const found = isBack ? here.lastIndexOf(wanted) : here.indexOf(wanted);
    if (found >= 0 && (!isBack || offset + found < from)) return offset + found;
    read += bytes.length;
    told(read);
    if (!isBack && offset + bytes.length >= lines.size) break;
    if (!isBack && lines.gap && offset < lines.gap.start && offset + bytes.length >= lines.gap.start) at = lines.gap.end;
    else at = isBack ? at - step : Math.max(offset + bytes.length - wanted.length + 1, start + 1);
  }
  return null;
}

// The field and the buttons with which a log is searched, and what was found last.
export class LogSearch {
  found = ""; // what is marked, in small letters
  #foundAt;
  #searching = null;

  // `begin()` is the offset that is before what is shown; `show(offset)` shows a place.
  constructor(lines, { tell, begin, show, redraw }) {
    Object.assign(this, { lines, tell, begin, show, redraw });
    this.field = el("input", {
      type: "search", placeholder: "Search the log", "aria-label": "Search the log", "data-search": true,
      on: { keydown: (event) => { if (event.key === "Enter") this.go(event.shiftKey); if (event.key === "Escape") this.close(); } },
    });
    this.controls = [this.field, button("↑", () => this.go(true), { "aria-label": "Search backwards" }), button("↓", () => this.go(false), { "aria-label": "Search forwards" })];
  }

  close() {
    this.#searching?.abort();
  }

  async go(isBack) {
    const text = this.field.value;
    this.close();
    const abort = new AbortController();
    this.#searching = abort;
    if (!text) {
      this.found = "";
      await this.redraw();
      return;
    }
    const wanted = text.toLowerCase();
    let from = this.#foundAt;
    if (this.found !== wanted || from === undefined) from = isBack ? this.lines.size : this.begin();
    this.found = wanted;
    try {
      const offset = await find(this.lines, text, from, { isBack, signal: abort.signal, told: (read) => { if (!abort.signal.aborted) this.tell(`searching, ${sized(read)} …`); } });
      if (abort.signal.aborted) return;
      if (offset === null) {
        this.tell(isBack ? "not found before here" : "not found behind here");
        this.#foundAt = undefined;
        await this.redraw();
        return;
      }
      this.#foundAt = offset;
      this.tell("found");
      await this.show(offset);
      this.tell(`found at byte ${offset.toLocaleString("en")}`);
    } catch {
      if (!abort.signal.aborted) this.tell("The log cannot be read now.");
    }
  }
}
