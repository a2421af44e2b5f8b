// Shows a log of any length: only the lines on the screen are in the document.
//
// The scroll bar stands for bytes, not for lines, which nobody has counted. Small movements go by lines and
// pixels; the bar is put right when the hand rests. Large ones go to the byte that the bar points at.

import { Problem } from "./api.js";
import { button, el, replace } from "./dom.js";
import { LineNumbers } from "./log_numbers.js";
import { LogRows } from "./log_rows.js";
import { LogSearch } from "./log_search.js";
import { bytes as sized } from "./words.js";

const CHUNK = 65536;
const TALLEST = 8_000_000; // pixels that every browser can scroll
const ENDS_TOLD = "onscrollend" in window;

export class LogView {
  top = { chunk: 0, line: 0 };
  shift = 0;
  isLive = false;
  isStuck = false;
  here = null;
  #turn = Promise.resolve();
  #last = 0;
  #isClosed = false;

  // `linkTo(offset)` is the address of a line; `save()` downloads; `isTall` fills the window.
  constructor({ lines, linkTo, save, label, isTall = false }) {
    this.lines = lines;
    this.isTall = isTall;
    this.scroller = el("div.log", { tabindex: "0", role: "region", "aria-label": label, class: isTall ? "log tall" : "log" });
    this.inner = el("div.inner");
    this.clip = el("div.clip", null, this.inner);
    this.spacer = el("div");
    this.scroller.append(el("div.rows", null, this.clip), this.spacer);
    this.numbers = new LineNumbers(lines);
    this.search = new LogSearch(lines, {
      tell: (text) => { this.told.textContent = text; },
      begin: () => (this.lines.line(this.top)?.offset ?? 0) - 1,
      show: (offset) => this.showAt(offset),
      redraw: () => this.#do(() => this.#draw()),
    });
    this.rows = new LogRows({ lines, numbers: this.numbers, search: this.search, linkTo });
    this.wrap = button("Wrap", () => this.setWrap(!this.scroller.classList.contains("wrap")), { "aria-pressed": "false" });
    this.told = el("span.told", { role: "status" });
    this.ending = button("Jump to end", () => this.toEnd(), { "aria-pressed": "false" });
    this.element = el("div.logview", null,
      el("div.tools", null, this.search.controls, this.wrap, button("Top", () => this.toStart()), this.ending, save && button("Download", save), this.told),
      this.scroller);
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // Whoever turns the wheel up while the end is still being looked for has nothing to scroll yet, and means it.
    this.scroller.addEventListener("wheel", (event) => { if (event.deltaY < 0 && this.#mostScroll) this.#setStuck(false); }, { passive: true });
    if (ENDS_TOLD) this.scroller.addEventListener("scrollend", () => this.#do(async () => this.#settle()));
    this.clip.addEventListener("scroll", () => { this.clip.scrollTop = 0; }, { passive: true });
    this.resized = new ResizeObserver(() => this.#do(() => (this.isStuck ? this.#end() : this.#draw())));
    this.resized.observe(this.scroller);
  }

  close() {
    this.#isClosed = true;
    this.isLive = false;
    clearTimeout(this.timer);
    clearTimeout(this.resting);
    this.search.close();
    this.numbers.close();
    this.resized.disconnect();
  }

  // `at`: an offset to show; "end"; otherwise the beginning. While live, what comes is shown as it comes.
  async open({ at, isLive }) {
    this.isGrowing = isLive; // its box has its height from the start: what is below does not move
    await this.#do(() => this.lines.look());
    if (typeof at === "number") await this.showAt(at);
    else if (at === "end") await this.toEnd();
    else await this.toStart();
    this.setLive(isLive);
    if (at === "end") this.#setStuck(isLive);
    this.#count();
  }

  setLive(isLive) {
    if (isLive === this.isLive || this.#isClosed) return;
    this.isLive = isLive;
    clearTimeout(this.timer);
    if (isLive) this.#watch(0);
    else this.#do(async () => { await this.lines.look(); await this.#grown(); });
    this.#tell();
  }

  #watch(idle) {
    this.timer = setTimeout(async () => {
      let next = idle + 1;
      await this.#do(async () => {
        if (document.hidden || !await this.lines.look()) return;
        next = 0;
        await this.#grown();
      });
      if (this.isLive) this.#watch(next);
    }, Math.min(300 * (1 + idle / 4), 2000));
  }

  async #grown() {
    this.rows.clear();
    if (this.isStuck) await this.#end();
    else await this.#draw();
    this.#tell();
    this.#count();
  }

  // One thing at a time: each may wait for a part of the log.
  #do(work) {
    this.#turn = this.#turn.then(async () => {
      if (this.#isClosed) return;
      try {
        await work();
      } catch (error) {
        if (error.name === "AbortError" || this.#isClosed) return;
        if (error instanceof Problem && error.status === 404) this.#empty("There is no log yet.");
        else this.told.textContent = error instanceof Problem ? error.message : "The log cannot be read now.";
      }
    });
    return this.#turn;
  }

  async #count() {
    if (await this.numbers.count()) await this.#do(() => this.#draw());
  }

  #empty(text) {
    replace(this.inner, el("div.row", null, el("span.text.quiet", null, text)));
  }

  // ---------------------------------------------------------------- measures

  get #rowHeight() {
    this.rowHeight ??= Number.parseFloat(getComputedStyle(this.scroller).lineHeight) || 19;
    return this.rowHeight;
  }

  get #viewHeight() {
    return this.clip.clientHeight || this.scroller.clientHeight;
  }

  get #isWrapped() {
    return this.scroller.classList.contains("wrap");
  }

  #height(position) {
    if (!this.#isWrapped) return this.#rowHeight;
    const row = this.#row(position);
    if (!row.isConnected) {
      this.inner.append(row);
      const height = row.offsetHeight;
      row.remove();
      return height;
    }
    return row.offsetHeight;
  }

  #row(position) {
    return this.rows.of(position, this.here);
  }

  // ---------------------------------------------------------------- drawing

  async #draw() {
    const height = this.scroller.clientHeight;
    this.clip.style.height = `${height}px`;
    if (!this.lines.size) {
      this.#stretch();
      this.#empty(this.isLive ? "Nothing written yet." : "Nothing was written.");
      return;
    }
    await this.lines.chunk(this.top.chunk);
    this.#stretch(); // with the lines there: were it less for a moment, the browser would move the bar
    let position = this.lines.line(this.top) ? this.top : await this.lines.at((this.top.chunk + 1) * CHUNK - 1);
    if (!position) return;
    this.top = position;
    const shown = [];
    let filled = -this.shift;
    while (position && filled < height + this.#rowHeight) {
      shown.push(this.#row(position));
      filled += this.#height(position);
      const next = await this.lines.next(position);
      if (!next) this.isAtEnd = filled <= this.#viewHeight + 1;
      else if (filled >= height + this.#rowHeight) this.isAtEnd = false;
      position = next;
    }
    if (position) this.isAtEnd = false;
    if (shown.length !== this.inner.childElementCount || shown.some((row, index) => row !== this.inner.children[index])) this.inner.replaceChildren(...shown);
    this.inner.style.transform = `translateY(${-Math.round(this.shift)}px)`;
  }

  #stretch() {
    const first = this.lines.have(0);
    if (first?.length) this.perLine = Math.min(CHUNK, this.lines.size) / first.length;
    const wanted = (this.lines.length / (this.perLine ?? 80)) * this.#rowHeight + (this.lines.size > CHUNK ? 200 : 0);
    const tall = Math.max(this.#rowHeight, Math.min(TALLEST, this.lines.size <= CHUNK && first && !this.#isWrapped ? first.length * this.#rowHeight : wanted));
    if (Math.abs(tall - this.tall) < 1) return;
    this.tall = tall;
    this.spacer.style.height = `${tall}px`;
    if (!this.isTall && !this.isGrowing) this.scroller.style.height = `${Math.ceil(Math.max(4 * this.#rowHeight, Math.min(tall + 16, this.most ??= this.scroller.clientHeight)))}px`;
  }

  get #mostScroll() {
    return Math.max(0, this.scroller.scrollHeight - this.scroller.clientHeight);
  }

  // Puts the bar where the lines are. A hand that has moved it since comes first: that is told in a moment,
  // and would be undone here.
  #settle(isWanted = false) {
    if (!isWanted && Math.abs(this.scroller.scrollTop - this.#last) >= 1) return;
    const most = this.#mostScroll;
    const line = this.lines.line(this.top);
    if (!line || most <= 0) return;
    let wanted;
    const isAtStart = line.offset === 0 && this.shift < 1;
    if (isAtStart) wanted = 0;
    else if (this.isAtEnd) wanted = most;
    else {
      const margin = Math.min(most / 4, 3 * this.#viewHeight);
      wanted = Math.max(margin, Math.min(most - margin, (this.lines.toKept(line.offset) / this.lines.length) * most));
      if (this.lines.size <= CHUNK && !this.#isWrapped) wanted = this.top.line * this.#rowHeight + this.shift;
    }
    if (Math.abs(wanted - this.scroller.scrollTop) >= 1) this.scroller.scrollTop = wanted;
    this.#last = this.scroller.scrollTop;
  }

  #scrolled() {
    const now = this.scroller.scrollTop;
    if (Math.abs(now - this.#last) < 0.5) return;
    const moved = now - this.#last;
    this.#last = now;
    this.pending = (this.pending ?? 0) + moved;
    this.isJump ||= Math.abs(moved) > 1.5 * this.#viewHeight;
    if (moved < 0) this.#setStuck(false);
    if (!ENDS_TOLD) {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.#do(async () => this.#settle()), 160);
    }
    if (this.isMoving) return;
    this.isMoving = true;
    this.#do(async () => {
      this.isMoving = false;
      const by = this.pending;
      const isJump = this.isJump;
      this.pending = 0;
      this.isJump = false;
      if (isJump) await this.#toBar();
      else await this.#move(by);
      this.#setStuck(this.isLive && this.isAtEnd && by > 0);
      const most = this.#mostScroll;
      // The bar is at its end and the lines are not, or the other way round.
      if (!isJump && (now < 1 || now > most - 1)) this.#settle();
    });
  }

  async #toBar() {
    const most = this.#mostScroll;
    const part = most ? Math.min(1, this.#last / most) : 0;
    if (part >= 0.9999) return this.#end(true);
    const position = await this.lines.at(this.lines.toOffset(Math.floor(part * this.lines.length)));
    if (position) this.top = part <= 0 ? { chunk: 0, line: 0 } : position;
    this.shift = 0;
    await this.#draw();
    if (this.isAtEnd) await this.#end();
    return undefined;
  }

  async #move(by) {
    await this.lines.chunk(this.top.chunk);
    let shift = this.shift + by;
    let position = this.top;
    while (shift < 0) {
      const before = await this.lines.previous(position);
      if (!before) {
        shift = 0;
        break;
      }
      position = before;
      shift += this.#height(position);
    }
    for (let height = this.#height(position); shift >= height; height = this.#height(position)) {
      const after = await this.lines.next(position);
      if (!after) {
        shift = 0;
        break;
      }
      position = after;
      shift -= height;
    }
    this.top = position;
    this.shift = shift;
    await this.#draw();
    if (this.isAtEnd && by > 0) await this.#end();
  }

  // ---------------------------------------------------------------- places

  async #end(isWanted = false) {
    const last = await this.lines.last();
    if (!last) return this.#draw();
    await this.lines.chunk(last.chunk);
    let position = last;
    let filled = this.#height(position);
    const height = this.#viewHeight;
    while (filled < height) {
      const before = await this.lines.previous(position);
      if (!before) break;
      position = before;
      filled += this.#height(position);
    }
    this.top = position;
    this.shift = Math.max(0, filled - height);
    await this.#draw();
    this.isAtEnd = true;
    this.#settle(isWanted);
    return undefined;
  }

  toEnd() {
    return this.#do(async () => {
      await this.lines.look();
      await this.#end(true);
      this.#setStuck(this.isLive);
    });
  }

  toStart() {
    this.#setStuck(false);
    return this.#do(async () => {
      this.top = { chunk: 0, line: 0 };
      this.shift = 0;
      if (this.lines.size && !(await this.lines.chunk(0)).length) this.top = await this.lines.next(this.top) ?? this.top;
      await this.#draw();
      this.#settle(true);
    });
  }

  // The line with this byte, a third of the way down, marked.
  showAt(offset) {
    this.#setStuck(false);
    return this.#do(async () => {
      const position = await this.lines.at(offset);
      if (!position) return this.#draw();
      this.here = this.lines.line(position).offset;
      let top = position;
      for (let above = this.#viewHeight / 3; above > 0; above -= this.#rowHeight) {
        const before = await this.lines.previous(top);
        if (!before) break;
        top = before;
      }
      await this.lines.chunk(top.chunk);
      this.top = top;
      this.shift = 0;
      await this.#draw();
      if (this.isAtEnd) await this.#end(true);
      this.#settle(true);
      return undefined;
    });
  }

  #setStuck(isStuck) {
    this.isStuck = isStuck;
    this.ending.setAttribute("aria-pressed", String(isStuck));
    this.#tell();
  }

  setWrap(isOn) {
    this.scroller.classList.toggle("wrap", isOn);
    this.wrap.setAttribute("aria-pressed", String(isOn));
    this.#do(async () => {
      this.shift = 0;
      this.tall = 0;
      this.clip.scrollLeft = 0;
      if (this.isStuck) await this.#end(true);
      else await this.#draw();
      this.#settle(true);
    });
  }

  #tell() {
    const state = this.isLive ? (this.isStuck ? "following" : "live, not following") : "";
    this.told.textContent = [state, sized(this.lines.size)].filter(Boolean).join(" · ");
  }
}
