// A job's whole log, with an address for every line: #/jobs/ID/log?attempt=1&at=OFFSET

import { download, get, query, request } from "./api.js";
import { attempt } from "./app.js";
import { el, replace } from "./dom.js";
import { LogLines, jobLog } from "./log_lines.js";
import { LogView } from "./log_view.js";
import { shortId, statusMark } from "./words.js";

export const isActive = (job) => job.status === "running" || job.status === "pending";

export function logViewOf(job, number, more) {
  const path = `jobs/${job.id}/logs?attempt=${number}`;
  return new LogView({
    lines: new LogLines(jobLog(request, path)),
    linkTo: (offset) => `#/jobs/${job.id}/log?attempt=${number}&at=${offset}`,
    save: () => attempt(() => download(`jobs/${job.id}/logs?attempt=${number}`, `${job.name ?? job.id}-${number}.log`)),
    label: "Log of the job",
    ...more,
  });
}

export function open(root, { id, search, changes }) {
  let view = null;
  let stop = () => {};
  let isClosed = false;
  const show = async (job, wanted) => {
    view?.close();
    const number = Number(wanted.get("attempt") ?? job.attempt);
    view = logViewOf(job, number, { isTall: true });
    const attempts = job.attempt > 1 && el("select", { "aria-label": "Attempt", on: { change: (event) => { location.hash = `#/jobs/${id}/log${query({ attempt: event.target.value })}`; } } },
      Array.from({ length: job.attempt }, (_, index) => el("option", { value: index + 1, selected: index + 1 === number }, `Attempt ${index + 1}`)));
    const mark = el("span", null, statusMark(job.status));
    document.title = `Log of ${job.name ?? shortId(id)} · Snakeline`;
    replace(root, el("div.title", null, el("h1", null, el("a", { href: `#/jobs/${id}` }, job.name ?? shortId(id)), " · log"), el("div.inline", null, attempts, mark)), view.element);
    const at = wanted.get("at");
    const isLive = isActive(job) && number === job.attempt;
    await view.open({ at: at !== null && /^\d+$/.test(at) ? Number(at) : isLive ? "end" : undefined, isLive });
    stop();
    stop = changes.listen((change) => {
      if (change?.job_id !== id) return;
      replace(mark, statusMark(change.job.status));
      if (change.attempt === number) view.setLive(isActive(change.job));
    });
  };
  let known = null;
  attempt(async () => {
    known = await get(`jobs/${id}`);
    if (!isClosed) await show(known, search);
  });
  return {
    close() {
      isClosed = true;
      stop();
      view?.close();
    },
    moved(next) {
      if (!known) return;
      const at = next.get("at");
      const number = Number(next.get("attempt") ?? known.attempt);
      if (at !== null && view && number === Number(search.get("attempt") ?? known.attempt)) view.showAt(Number(at));
      else show(known, next);
      search = next;
    },
  };
}
