// Looks for a text in a log, window by window, keeping none of them.

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
