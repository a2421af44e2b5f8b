// The numbers of a log's lines, counted from its beginning as far as that is worth reading.

const CHUNK = 65536;
const COUNTED_BYTES = 16 << 20; // of longer logs only the beginning is numbered

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
    lines.starts ??= lines.map(((number) => (line) => (line.isContinued || line.kind ? number : ++number))(0));
    return first + lines.starts[position.line] - 1;
  }

  // Counts what there is; true, if there is more to number than before.
  async count() {
    if (this.#isCounting || this.lines.gap) return false;
    this.#isCounting = true;
    try {
      const most = Math.ceil(Math.min(this.lines.size, COUNTED_BYTES) / CHUNK);
      for (let index = Math.max(0, this.#first.length - 2); index < most && !this.#isClosed; index += 1) {
        const lines = await this.lines.chunk(index);
        this.#first[index + 1] = this.#first[index] + lines.filter((line) => !line.isContinued && !line.kind).length;
      }
      return most > 1;
    } catch {
      return false; // without numbers, then
    } finally {
      this.#isCounting = false;
    }
  }
}
