// The lines of a log as elements; those made last are kept.

import { nodes, plain } from "./ansi.js";
import { el } from "./dom.js";

const KEPT = 600;
export const ERROR = /^\s*(error|fatal|exception|traceback)\b|\b\w*(Error|Exception): |^Error in rule |Exiting because a job/i;

export class LogRows {
  #kept = new Map(); // by the offset of the line

  // `linkTo(offset)` is the address of a line.
  constructor({ lines, numbers, search, linkTo }) {
    Object.assign(this, { lines, numbers, search, linkTo });
  }

  clear() {
    this.#kept.clear();
  }

  // `here` is the offset of the line that is marked.
  of(position, here) {
    const line = this.lines.line(position);
    const { found } = this.search;
    const number = this.numbers.of(position);
    const old = this.#kept.get(line.offset);
    if (old?.line === line && old.found === found && old.number === number) {
      old.row.classList.toggle("here", here === line.offset);
      return old.row;
    }
    const text = el("span.text", null, line.kind ? line.text : nodes(line.text, found));
    const label = line.isContinued || line.kind ? "" : number ?? `@${line.offset}`;
    const classes = ["row", line.kind, here === line.offset && "here", !line.kind && ERROR.test(plain(line.text)) && "error"].filter(Boolean).join(" ");
    const row = el("div", { class: classes, "data-offset": line.offset },
      label === "" ? el("span.number") : el("a.number", { href: this.linkTo(line.offset), "aria-label": number ? `Link to line ${number}` : `Link to byte ${line.offset}`, tabindex: "-1" }, label), text);
    this.#kept.set(line.offset, { line, row, found, number });
    if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return row;
  }
}
