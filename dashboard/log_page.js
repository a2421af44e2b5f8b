// A job's whole log, with an address for every line: #/jobs/ID/log?attempt=1&at=OFFSET

import { Problem, download, get, query, request } from "./api.js";
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
  let known = null; // the job, as far as it is known
  let shown = null; // the attempt whose log is shown
  let mark = null;
  let turn = 0;
  let isClosed = false;
  const wantedOf = (from) => Number(from.get("attempt") ?? known.attempt);
  const show = async (wanted) => {
    view?.close();
    const number = wantedOf(wanted);
    shown = number;
    view = logViewOf(known, number, { isTall: true });
    const attempts = known.attempt > 1 && el("select", { "aria-label": "Attempt", on: { change: (event) => { location.hash = `#/jobs/${id}/log${query({ attempt: event.target.value })}`; } } },
      Array.from({ length: known.attempt }, (_, index) => el("option", { value: index + 1, selected: index + 1 === number }, `Attempt ${index + 1}`)));
    mark = el("span", null, statusMark(known.status));
    document.title = `Log of ${known.name ?? shortId(id)} · Snakeline`;
    replace(root, el("div.title", null, el("h1", null, el("a", { href: `#/jobs/${id}` }, known.name ?? shortId(id)), " · log"), el("div.inline", null, attempts, mark)), view.element);
    const at = wanted.get("at");
    const isLive = isActive(known) && number === known.attempt;
    const opened = view;
    await opened.open({ at: at !== null && /^\d+$/.test(at) ? Number(at) : isLive ? "end" : undefined, isLive });
    if (opened === view) opened.setLive(isActive(known) && number === known.attempt); // it may have ended meanwhile
  };
  const take = (job) => {
    known = job;
    replace(mark, statusMark(job.status));
    view.setLive(isActive(job) && shown === job.attempt);
  };
  const load = () => attempt(async () => {
    turn += 1;
    const mine = turn;
    let job;
    try {
      job = await get(`jobs/${id}`);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404) || isClosed) throw error;
      view?.close();
      replace(root, el("h1", null, "There is no such job"), el("p", null, "It was deleted, or it is not yours. ", el("a", { href: "#/" }, "To the jobs")));
      return;
    }
    if (isClosed || mine !== turn) return;
    if (known) take(job);
    else {
      known = job;
      await show(search);
    }
  });
  const stop = changes.listen((change) => {
    if (change === null) load();
    if (change?.job_id !== id || !known) return;
    turn += 1; // an answer that is under way is older
    take({ ...known, ...change.job });
  });
  load();
  return {
    refresh: load,
    close() {
      isClosed = true;
      stop();
      view?.close();
    },
    moved(next) {
      search = next;
      if (!known) return;
      const at = next.get("at");
      if (at !== null && view && shown === wantedOf(next)) view.showAt(Number(at));
      else show(next);
    },
  };
}
