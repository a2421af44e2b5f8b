// One task of a run: its error, its logs, its command and its files.

import { download, get, query, request } from "./api.js";
import { attempt } from "./app.js";
import { button, copy, el, replace, throttled } from "./dom.js";
import { LogLines, fileLog } from "./log_lines.js";
import { ERROR } from "./log_rows.js";
import { LogView } from "./log_view.js";
import { lasting, statusMark, when } from "./words.js";

export function taskLogView(jobId, number, index, attemptNumber, name) {
  const path = `jobs/${jobId}/tasks/${number}/logs${query({ index, attempt: attemptNumber })}`;
  return new LogView({
    lines: new LogLines(fileLog(request, path)),
    linkTo: () => `#/jobs/${jobId}/tasks/${number}?attempt=${attemptNumber}`,
    save: () => attempt(() => download(path, name.split("/").at(-1))),
    label: `Log ${name}`,
  });
}

export const wildcards = (task) => Object.entries(task.wildcards).map(([name, value]) => `${name}=${value}`).join(", ");

export function failureText(error) {
  if (!error) return null;
  return error.exit_code === null || error.message.includes(String(error.exit_code)) ? error.message : `${error.message} (exit code ${error.exit_code})`;
}

// The last words say what went wrong: once it is in the page, it is to be scrolled there.
export const errorBox = (lines) => el("pre", { tabindex: "0", role: "region", "aria-label": "The error" }, lines.map((line) => (ERROR.test(line) ? el("b.bad", null, `${line}\n`) : `${line}\n`)));
export const scrollToEnd = (box) => { if (box) box.scrollTop = box.scrollHeight; };

export function open(root, { id, number, search, changes }) {
  const views = [];
  let isClosed = false;
  let turn = 0;
  let drawn = null;
  const close = () => { for (const view of views.splice(0)) view.close(); };
  const load = async () => {
    turn += 1;
    const mine = turn;
    const task = await get(`jobs/${id}/tasks/${number}${query({ attempt: search.get("attempt") })}`);
    const state = JSON.stringify([task, search.get("attempt")]);
    if (isClosed || mine !== turn || state === drawn) return;
    drawn = state;
    close();
    const list = (title, values) => values.length > 0 && el("section", null, el("h2", null, title), el("pre", { tabindex: "0" }, values.join("\n")));
    const facts = [["Status", statusMark(task.status)], ["Started", when(task.started_at)], ["Took", lasting(task.started_at, task.ended_at)], ["Threads", task.threads ?? "–"],
      ["Tries", task.attempt], task.group && ["Group", task.group], task.external_id && ["In the cluster", task.external_id],
      ...Object.entries(task.resources).map(([name, value]) => [name, String(value)])].filter(Boolean);
    const logs = task.log.map((name, index) => {
      const view = taskLogView(id, number, index, search.get("attempt") ?? "", name);
      views.push(view);
      view.open({ at: "end", isLive: task.status === "running" });
      return el("section", null, el("h2", null, "Log ", el("code", null, name)), view.element);
    });
    document.title = `${task.rule} · Snakeline`;
    replace(root,
      el("p", null, el("a", { href: `#/jobs/${id}${query({ attempt: search.get("attempt") })}` }, "← The job")),
      el("div.title", null, el("h1", null, task.rule, " ", el("span.quiet", null, wildcards(task)))),
      task.error && el("div.banner", { role: "alert" }, el("h2", null, task.error.is_root ? "This task failed" : "It failed because another task had"),
        el("p", null, failureText(task.error)), task.error.log_lines.length > 0 && errorBox(task.error.log_lines)),
      el("dl.facts", null, facts.map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value)))),
      task.reason && el("p", null, el("b", null, "Why it ran: "), task.reason),
      logs,
      !task.log.length && el("p.quiet", null, "The rule names no log file: what it wrote is in ", el("a", { href: `#/jobs/${id}/log${query({ attempt: search.get("attempt") })}` }, "the job's log"), "."),
      (task.shell_command ?? task.script) && el("section", null, el("h2", null, task.shell_command ? "Command" : "Script"), el("pre", { tabindex: "0" }, task.shell_command ?? task.script),
        button("Copy", (event) => copy(task.shell_command ?? task.script, event.currentTarget))),
      list("Input", task.input), list("Output", task.output), list("Benchmark", task.benchmark));
    scrollToEnd(root.querySelector(".banner pre"));
  };
  const again = throttled(2000, () => attempt(load));
  again();
  // Any progress of the run may be this task's.
  const stop = changes.listen((change) => { if (change === null || change.job_id === id) again(); });
  return {
    refresh: again,
    close() {
      isClosed = true;
      stop();
      again.stop();
      close();
    },
    moved(next) {
      search = next;
      attempt(load);
    },
  };
}
