// A log as lines, read in windows of 64 KiB: however long it is, only what is looked at is ever fetched.
//
// Every line is known by the offset of its first byte, which never changes. A chunk holds the lines that begin
// in it. A line is followed into the next chunk for 8 KiB; one that goes on is cut where the chunk ends, and
// both chunks see that by themselves. Lines longer than 4 KiB are shown in pieces.

const CHUNK = 65536;
const BEYOND = 8192;
const PIECE = 4096;
const KEPT_CHUNKS = 48; // 3 MiB of text

export class LogLines {
  #chunks = new Map();
  #waiting = new Map();
  size = 0;
  gap = null; // {start, end} of bytes that are no longer kept

  // `read(offset, limit)` gives {bytes, offset, size, gap}.
  constructor(read) {
    this.read = read;
  }

  get length() { // of what is kept
    return this.size - (this.gap ? this.gap.end - this.gap.start : 0);
  }

  toKept(offset) {
    if (!this.gap || offset < this.gap.start) return offset;
    return Math.max(this.gap.start, offset - (this.gap.end - this.gap.start));
  }

  toOffset(kept) {
    return !this.gap || kept < this.gap.start ? kept : kept + this.gap.end - this.gap.start;
  }

  // How much there is now. True, if that has changed.
  async look() {
    const { size, gap } = await this.read(Math.max(0, this.size - 1), 1);
    return this.#know(size, gap);
  }

  #know(size, gap) {
    const before = `${this.size} ${this.gap?.end}`;
    if (size > this.size) {
      // The last chunks end elsewhere now.
      for (const index of this.#chunks.keys()) if ((index + 1) * CHUNK + BEYOND >= this.size) this.#chunks.delete(index);
    }
    if (gap && gap.end !== this.gap?.end) {
      for (const index of this.#chunks.keys()) if ((index + 1) * CHUNK > gap.start && index * CHUNK < gap.end) this.#chunks.delete(index);
    }
    this.size = Math.max(size, this.size);
    this.gap = gap;
    return before !== `${this.size} ${gap?.end}`;
  }

  // The lines that begin in chunk `index`, if they are here already.
  have(index) {
    return this.#chunks.get(index);
  }

  async chunk(index) {
    const there = this.#chunks.get(index);
    if (there) {
      this.#chunks.delete(index);
      this.#chunks.set(index, there); // the last to be forgotten
      return there;
    }
    if (!this.#waiting.has(index)) {
      this.#waiting.set(index, this.#fetch(index).finally(() => this.#waiting.delete(index)));
    }
    return this.#waiting.get(index);
  }

  async #fetch(index) {
    const start = index * CHUNK;
    const gap = this.gap;
    let lines;
    if (gap && start >= gap.start && start + CHUNK <= gap.end) lines = [];
    else if (gap && start < gap.start && start + CHUNK > gap.start) {
      lines = await this.#linesOf(start, gap.start, gap.start);
      lines.push(skipped(gap));
      if (gap.end < start + CHUNK) lines.push(...await this.#linesOf(gap.end, start + CHUNK));
    } else if (gap && gap.end > start && gap.end < start + CHUNK) {
      lines = await this.#linesOf(gap.end, start + CHUNK);
    } else {
      lines = await this.#linesOf(start, start + CHUNK, gap && start < gap.start ? gap.start : Infinity);
      if (gap && gap.start === start + CHUNK) lines.push(skipped(gap));
    }
    this.#chunks.set(index, lines);
    while (this.#chunks.size > KEPT_CHUNKS) this.#chunks.delete(this.#chunks.keys().next().value);
    return lines;
  }

  async #linesOf(start, end, last = Infinity) {
    const isBehindGap = this.gap !== null && start === this.gap.end;
    const before = start > 0 && !isBehindGap ? 1 : 0;
    const limit = Math.min(end + BEYOND, last) - (start - before);
    const { bytes, offset, size, gap } = await this.read(start - before, limit);
    this.#know(size, gap);
    if (!bytes.length || offset > start) return [];
    let from = before;
    let isCut = false;
    if (before && bytes[0] !== 10) {
      const newline = bytes.indexOf(10, before);
      // The line before ends in here, and is the other chunk's; or it goes on, and was cut.
      if (newline >= 0 && newline - before < BEYOND) from = newline + 1;
      else if (newline < 0 && start + bytes.length - before >= this.size && bytes.length - before < BEYOND) return [];
      else isCut = true;
    }
    const stop = before + end - start; // lines begin before it
    const lines = [];
    const text = new TextDecoder();
    while (from < Math.min(stop, bytes.length)) {
      let to = bytes.indexOf(10, from);
      let isWhole = to >= 0;
      if (to < 0) to = bytes.length;
      if (to - stop >= BEYOND || (!isWhole && to > stop && start - before + to < this.size)) {
        to = stop;
        isWhole = false;
      }
      let first = !isCut;
      isCut = false;
      do {
        const cut = characterStart(bytes, Math.min(from + PIECE, to), from);
        const piece = to - from <= PIECE ? to : cut;
        lines.push({ offset: start - before + from, text: text.decode(bytes.subarray(from, piece)), isContinued: !first, kind: "" });
        from = piece;
        first = false;
      } while (from < to);
      from = isWhole ? to + 1 : to;
    }
    return lines;
  }

  async next(position) { // {chunk, line}, or null at the end
    const lines = await this.chunk(position.chunk);
    if (position.line + 1 < lines.length) return { chunk: position.chunk, line: position.line + 1 };
    for (let index = this.#after(position.chunk); index * CHUNK < this.size; index = this.#after(index)) {
      if ((await this.chunk(index)).length) return { chunk: index, line: 0 };
    }
    return null;
  }

  async previous(position) {
    if (position.line > 0) return { chunk: position.chunk, line: position.line - 1 };
    for (let index = this.#before(position.chunk); index >= 0; index = this.#before(index)) {
      const lines = await this.chunk(index);
      if (lines.length) return { chunk: index, line: lines.length - 1 };
    }
    return null;
  }

  #after(index) {
    const isGap = this.gap && (index + 1) * CHUNK >= this.gap.start && (index + 2) * CHUNK <= this.gap.end;
    return isGap ? Math.floor(this.gap.end / CHUNK) : index + 1;
  }

  #before(index) {
    const isGap = this.gap && (index - 1) * CHUNK >= this.gap.start && index * CHUNK <= this.gap.end;
    return isGap ? Math.floor(this.gap.start / CHUNK) - (this.gap.start % CHUNK === 0 && this.gap.start ? 1 : 0) : index - 1;
  }

  line(position) {
    return this.#chunks.get(position.chunk)?.[position.line];
  }

  // The line that holds the byte at `offset`, or the one before it.
  async at(offset) {
    let index = Math.max(0, Math.min(Math.floor(offset / CHUNK), Math.floor(Math.max(0, this.size - 1) / CHUNK)));
    for (; index >= 0; index = this.#before(index)) {
      const lines = await this.chunk(index);
      const line = lines.findLastIndex((each) => each.offset <= offset);
      if (line >= 0) return { chunk: index, line };
    }
    return this.next({ chunk: -1, line: 0 }).catch(() => null);
  }

  async last() {
    return this.size ? this.at(this.size - 1) : null;
  }
}

const skipped = (gap) => ({ offset: gap.start, text: `… ${(gap.end - gap.start).toLocaleString("en")} bytes are not kept: the log was longer than its limit …`, isContinued: false, kind: "skipped" });

function characterStart(bytes, at, from) {
  let cut = at;
  while (cut > from + 1 && cut < bytes.length && (bytes[cut] & 0xc0) === 0x80) cut -= 1;
  return cut;
}

// Reads a job's log; its answers say what is missing.
export function jobLog(request, path) {
  return async (offset, limit) => {
    const answer = await request(`${path}${path.includes("?") ? "&" : "?"}offset=${offset}&limit=${limit}`, { accept: "text/plain" });
    const told = answer.headers.get("X-Log-Skipped");
    const [start, end] = told ? told.split("-").map(Number) : [];
    const bytes = new Uint8Array(await answer.arrayBuffer());
    return { bytes, offset: Number(answer.headers.get("X-Log-Offset") ?? offset), size: Number(answer.headers.get("X-Log-Size")), gap: told ? { start, end } : null };
  };
}

// Reads a file by ranges: a task's own log.
export function fileLog(request, path) {
  return async (offset, limit) => {
    let answer;
    try {
      answer = await request(path, { accept: "text/plain", more: { Range: `bytes=${offset}-${offset + limit - 1}` } });
    } catch (error) {
      if (error.status !== 416) throw error;
      const size = Number((await request(path, { method: "HEAD", accept: "text/plain" })).headers.get("Content-Length"));
      return { bytes: new Uint8Array(), offset, size, gap: null };
    }
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const size = answer.status === 206 ? Number(answer.headers.get("Content-Range").split("/")[1]) : bytes.length;
    return { bytes, offset: answer.status === 206 ? offset : 0, size, gap: null };
  };
}
