// A job's files: listed, fetched, and shown where they are pictures, tables or texts.

import { Problem, download, get, query, request } from "./api.js";
import { attempt } from "./app.js";
import { button, el, replace } from "./dom.js";
import { bytes, count, plural, when } from "./words.js";

const relative = (link) => link.replace(/^\//, "");

export class Outputs {
  constructor(jobId) {
    this.jobId = jobId;
    this.chosen = null; // which are listed, once somebody has said so
    this.element = el("div");
    this.images = [];
  }

  close() {
    this.isClosed = true;
    for (const url of this.images) URL.revokeObjectURL(url);
  }

  // More may have come; whoever has turned a page or looks into a file is left there.
  async grow() {
    if (!this.cursor && !this.element.querySelector('[aria-expanded="true"]')) await this.load(null, true);
  }

  async load(cursor = null, isLive = false) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const ask = (declared) => get(`jobs/${this.jobId}/outputs${query({ declared, limit: 20, cursor })}`);
    let isResults = this.chosen ?? true;
    let page = await ask(isResults);
    if (this.chosen === null && !page.total && !cursor && !isLive) page = await ask((isResults = false));
    if (turn !== this.turn) return; // something else has been asked for since
    const state = JSON.stringify([page, isResults]);
    if (isLive && state === this.state) return;
    this.state = state;
    this.cursor = cursor;
    const which = button(isResults ? "Show every file" : "Show results only", () => { this.chosen = !isResults; attempt(() => this.load()); });
    const total = isResults && !page.total ? "No results yet" : `${page.total_is_exact ? "" : "at least "}${plural(page.total, isResults ? "result" : "file")}`;
    replace(this.element,
      el("div.tools", null, el("span.quiet", null, total), which,
        page.total > 0 && button("Download all (ZIP)", () => attempt(() => download(`jobs/${this.jobId}/outputs/?format=zip`, `${this.jobId}.zip`)))),
      page.items.length > 0 && el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Files" }, el("table.files", null,
        el("thead", null, el("tr", null, ["File", "Size", "Changed", "Made by", ""].map((name) => el("th", { scope: "col" }, name || el("span.offscreen", null, "Actions"))))),
        el("tbody", null, page.items.map((item) => this.rows(item))))),
      page.next_cursor && el("div.tools", null, cursor && button("First", () => attempt(() => this.load())), button("More", () => attempt(() => this.load(page.next_cursor)))));
  }

  rows(item) {
    const place = el("div.preview");
    const below = el("tr.below", { hidden: true }, el("td", { colspan: 5 }, place));
    const show = button("Preview", async () => {
      below.hidden = !below.hidden;
      show.setAttribute("aria-expanded", String(!below.hidden));
      if (!below.hidden && !place.childNodes.length) await this.preview(item, place);
    }, { "aria-expanded": "false", "aria-label": `Preview ${item.path}` });
    const name = item.path.split("/").at(-1);
    return [el("tr", null,
      el("td.mono", null, item.path),
      el("td.figure", { title: `${count(item.size)} bytes` }, bytes(item.size)),
      el("td", null, when(item.modified_at)),
      el("td", null, item.task ? el("a", { href: `#/jobs/${this.jobId}/tasks/${item.task.number}?attempt=${item.task.attempt}` }, item.task.rule) : "–"),
      el("td", null, el("div.inline", null, show, button("Download", () => attempt(() => download(relative(item.links.self), name)), { "aria-label": `Download ${item.path}` })))), below];
  }

  async preview(item, place) {
    replace(place, el("span.quiet", null, "Loading …"));
    try {
      const answer = await request(`${relative(item.links.self)}?preview=true`, { accept: "application/json, image/*" });
      if (answer.headers.get("Content-Type").startsWith("image/")) {
        const picture = await answer.blob();
        if (this.isClosed) return; // nobody would let go of it
        const url = URL.createObjectURL(picture);
        this.images.push(url);
        replace(place, el("img", { src: url, alt: item.path }));
        return;
      }
      const shown = await answer.json();
      replace(place, shown.kind === "table" ? table(shown) : text(shown));
    } catch (error) {
      replace(place, el("span.quiet", null, error instanceof Problem ? error.message : "It could not be read."));
    }
  }
}

function table(shown) {
  return [el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Table" }, el("table", null,
    el("thead", null, el("tr", null, shown.header.map((cell) => el("th", { scope: "col" }, cell)))),
    el("tbody", null, shown.rows.map((row) => el("tr", null, row.map((cell) => el("td", null, cell))))))),
  !shown.is_whole && el("p.quiet", null, "Only the beginning is shown.")];
}

function text(shown) {
  const lines = shown.is_whole ? [...shown.first, ...shown.last] : [...shown.first, "…", ...shown.last];
  return el("pre", { tabindex: "0" }, lines.join("\n"));
}
