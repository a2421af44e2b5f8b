// The numbers of a log's lines, counted from its beginning as far as that is worth reading.

const CHUNK = 65536;
const COUNTED_BYTES = 16 << 20; // of longer logs only the beginning is numbered

// For each of a chunk's lines, how many have begun up to it; a piece of a long line begins none.
function begunUpTo(lines) {
  let number = 0;
  return lines.map((line) => (line.isContinued || line.kind ? number : ++number));
}

export class LineNumbers {
  #first = [1]; // of the first line that begins in each chunk, as far as is known
  #isCounting = false;
  #isClosed = false;

  constructor(lines) {
    this.lines = lines;
  }

  close() {
    this.#isClosed = true;
  }

  // The line's number, or null where nobody has counted that far.
  of(position) {
    const first = this.#first[position.chunk];
    const lines = this.lines.have(position.chunk);
    if (first === undefined || !lines) return null;
    lines.begun ??= begunUpTo(lines);
    return first + lines.begun[position.line] - 1;
  }

  // Counts the chunks that are whole; true, if there is more to number than before.
  async count() {
    if (this.#isCounting || this.lines.gap) return false;
    this.#isCounting = true;
    try {
      const before = this.#first.length;
      const whole = Math.floor(Math.min(this.lines.size, COUNTED_BYTES) / CHUNK);
      while (this.#first.length <= whole && !this.#isClosed) {
        const lines = await this.lines.chunk(this.#first.length - 1);
        this.#first.push(this.#first.at(-1) + (begunUpTo(lines).at(-1) ?? 0));
      }
      return this.#first.length > before;
    } catch {
      return false; // without numbers, then
    } finally {
      this.#isCounting = false;
    }
  }
}
