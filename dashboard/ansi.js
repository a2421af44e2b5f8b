// ANSI colours and styles (SGR, ECMA-48 8.3.117) as classes; every other control sequence is left out.

import { el } from "./dom.js";

const SEQUENCE = /\x1b(?:\[([0-9;:]*)([ -/]*[@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])/g;
const ON = { 1: "b", 2: "d", 3: "i", 4: "u", 7: "v", 9: "s" };
const OFF = { 22: "bd", 23: "i", 24: "u", 27: "v", 29: "s" };

export class Style {
  flags = new Set();
  fore = null;
  back = null;

  apply(codes) {
    const numbers = codes === "" ? [0] : codes.split(/[;:]/).map(Number);
    for (let index = 0; index < numbers.length; index += 1) {
      const code = numbers[index];
      if (code === 0) {
        this.flags.clear();
        this.fore = this.back = null;
      } else if (ON[code]) this.flags.add(ON[code]);
      else if (OFF[code]) for (const flag of OFF[code]) this.flags.delete(flag);
      else if (code >= 30 && code <= 37) this.fore = code - 30;
      else if (code >= 90 && code <= 97) this.fore = code - 90;
      else if (code >= 40 && code <= 47) this.back = code - 40;
      else if (code >= 100 && code <= 107) this.back = code - 100;
      else if (code === 39) this.fore = null;
      else if (code === 49) this.back = null;
      else if (code === 38 || code === 48) {
        const colour = numbers[index + 1] === 5 ? ofPalette(numbers[index + 2]) : ofRgb(numbers.slice(index + 2, index + 5));
        index += numbers[index + 1] === 5 ? 2 : 4;
        if (code === 38) this.fore = colour;
        else this.back = colour;
      }
    }
  }

  get classes() {
    return [...this.flags, this.fore !== null && `f${this.fore}`, this.back !== null && `g${this.back}`].filter(Boolean).join(" ");
  }
}

// The nearest of the eight: those have enough contrast in light and in dark.
function ofRgb([red = 0, green = 0, blue = 0]) {
  const half = Math.max(red, green, blue) / 2 + 1;
  return (red > half ? 1 : 0) + (green > half ? 2 : 0) + (blue > half ? 4 : 0);
}
function ofPalette(index = 0) {
  if (index < 16) return index % 8;
  if (index >= 232) return index > 243 ? 7 : 0;
  const cube = index - 16;
  return ofRgb([Math.floor(cube / 36) * 51, (Math.floor(cube / 6) % 6) * 51, (cube % 6) * 51]);
}

// What a terminal would show of a line that writes over itself: what stands behind its last carriage return.
function overwritten(text) {
  const body = text.endsWith("\r") ? text.slice(0, -1) : text;
  const last = body.lastIndexOf("\r");
  return last < 0 ? body : body.slice(last + 1);
}

export const plain = (text) => overwritten(text).replace(SEQUENCE, "");

// The line as nodes, with every place that holds `found` marked.
export function nodes(text, found) {
  const style = new Style();
  const line = overwritten(text);
  const made = [];
  let from = 0;
  const put = (piece) => {
    if (!piece) return;
    const classes = style.classes;
    const content = marked(piece.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "\ufffd"), found);
    if (classes) made.push(el("span", { class: classes }, content));
    else made.push(...content);
  };
  for (const match of line.matchAll(SEQUENCE)) {
    put(line.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[2] === "m") style.apply(match[1]);
  }
  put(line.slice(from));
  return made;
}

function marked(text, found) {
  if (!found) return [text];
  const parts = [];
  const low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(found); at >= 0; at = low.indexOf(found, from)) {
    parts.push(text.slice(from, at), el("mark", null, text.slice(at, at + found.length)));
    from = at + found.length;
  }
  parts.push(text.slice(from));
  return parts;
}
