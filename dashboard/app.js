// The shell: which view is shown, who is signed in, whether the service can be reached.

import { Problem, get, hasKey, onNews, session, setKey } from "./api.js";
import { Changes } from "./changes.js";
import { button, dialog, el, replace } from "./dom.js";
import { signInForm, takeAnswer } from "./sign_in.js";

const main = document.getElementById("main");
const head = document.getElementById("head");
const notices = document.getElementById("notices");
const changes = new Changes();
let view = null;
let shown = null;

// ---------------------------------------------------------------- theme

const THEMES = ["auto", "light", "dark"];
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("snakeline.theme", name);
  } catch { /* refused by the reader's browser: it holds for this page */ }
}
try {
  document.documentElement.dataset.theme = localStorage.getItem("snakeline.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}

// ---------------------------------------------------------------- notices

const passing = new Map(); // notices that go by themselves, and when

function notice(name, kind, ...content) {
  clearTimeout(passing.get(name));
  const old = notices.querySelector(`[data-name="${name}"]`);
  if (!content.length) {
    old?.remove();
    return;
  }
  const fresh = el(`div.notice.${kind}`, { "data-name": name }, content);
  if (old) old.replaceWith(fresh);
  else notices.append(fresh);
}

// One that goes by itself, unless another has taken its place.
function passingNotice(name, ms, ...content) {
  notice(name, "good", ...content);
  passing.set(name, setTimeout(() => notice(name, "good"), ms));
}

let isOwed = false; // something that was asked for could not be fetched
let lostTimer = null;
onNews("lost", () => {
  // A stream that a proxy ends now and then is back before anybody needs to know.
  lostTimer ??= setTimeout(() => notice("connection", "warning", "The connection to the service is lost. What you see may be old; the page catches up by itself."), 1200);
});
onNews("found", () => {
  clearTimeout(lostTimer);
  lostTimer = null;
  const wasTold = notices.querySelector('[data-name="connection"].warning');
  if (!wasTold && !isOwed) return;
  if (wasTold) passingNotice("connection", 4000, "Connected again: what happened meanwhile is shown.");
  if (isOwed) notice("told", "bad");
  isOwed = false;
  if (view) view.refresh?.();
  else route();
  lookReady();
});

export const tell = (text, kind = "good") => {
  const told = [text, button("✕", () => notice("told", kind), { "aria-label": "Close this message", class: "plain" })];
  if (kind === "good") passingNotice("told", 6000, ...told);
  else notice("told", kind, ...told);
};

export function failed(error) {
  if (error.name === "AbortError") return;
  isOwed ||= !(error instanceof Problem);
  const more = error.requestId ? ` (request ${error.requestId})` : "";
  tell(error instanceof Problem ? error.message + more : "The service could not be reached.", "bad");
}

// Something a person asked for: what goes wrong is told.
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    failed(error);
    return undefined;
  }
}

// ---------------------------------------------------------------- head

function drawHead() {
  const place = location.hash.slice(1) || "/";
  const link = (to, text, key) => el("a", { href: `#${to}`, "aria-current": place.split("?")[0] === to ? "page" : null, "aria-keyshortcuts": key }, text);
  const theme = el("select", { "aria-label": "Colours", on: { change: (event) => setTheme(event.target.value) } },
    THEMES.map((name) => el("option", { value: name, selected: document.documentElement.dataset.theme === name }, name)));
  replace(head,
    el("a.brand", { href: "#/" }, "Snakeline"),
    el("nav", { "aria-label": "Views" }, link("/", "Jobs"), link("/new", "New job"), link("/admin", "Admin")),
    el("div.right", null, theme,
      el("a", { href: "docs" }, "API"),
      button("?", showKeys, { "aria-label": "Keyboard shortcuts" }),
      hasKey() && button("Sign out", signOut)));
}

function showKeys() {
  const rows = [["j, k", "next, previous job in the list"], ["Enter", "open it"], ["x", "select it"], ["/", "search"], ["n", "new job"], ["g", "back to the jobs"], ["?", "this list"]];
  const box = dialog("Keyboard", el("dl.keys", null, rows.map(([key, what]) => [el("dt", null, el("kbd", null, key)), el("dd", null, what)])),
    [button("Close", () => box.close())]);
}

// ---------------------------------------------------------------- sign-in

function signOut() {
  const ended = session() !== null;
  setKey(null);
  changes.stop();
  askForKey(null, { ended });
  drawHead();
}

let isStray = false; // somebody came with an answer of an issuer that this tab has not asked for

async function tryKey(key) {
  setKey(key);
  shown = null;
  try {
    await get("jobs?limit=1");
  } catch (error) {
    setKey(null);
    throw error;
  }
  start();
}

function askForKey(problem, { why, detail, ended } = {}) {
  if (shown === "sign-in" && !problem?.type.startsWith("credentials-invalid")) return;
  view?.close();
  view = null;
  shown = "sign-in";
  changes.stop();
  const isRefused = problem?.type === "credentials-invalid" || problem?.type === "too-many-failures";
  const told = why ?? (isRefused ? problem.message : isStray ? "That sign-in was not begun in this tab, or is over already: begin again." : "");
  isStray = false;
  const { form, field } = signInForm({ why: told, detail, ended, tryKey });
  replace(main, form);
  document.title = "Sign in · Snakeline";
  field.focus();
}
onNews("signed-out", (event) => {
  const until = session()?.until;
  const isOver = until && Date.now() >= until;
  setKey(null);
  drawHead();
  askForKey(event.detail, { why: isOver ? "You have been signed in for as long as the issuer allows: sign in again to go on where you were." : undefined });
});

// Somebody has come back from the issuer.
async function comeBack(answer) {
  replace(main, el("p.quiet", null, "Signing in …"));
  try {
    await (await import("./oidc.js")).finish(answer);
  } catch (error) {
    askForKey(null, { why: "detail" in error ? error.message : "The service could not be reached.", detail: error.detail });
    return;
  }
  drawHead();
  try {
    await get("jobs?limit=1"); // alone, as each token that is refused counts against this address
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return; // and that was told
  }
  start();
}

// ---------------------------------------------------------------- views

const VIEWS = [
  [/^\/$/, () => import("./jobs.js")],
  [/^\/new$/, () => import("./submit.js")],
  [/^\/admin(?:\/(?<part>\w+))?$/, () => import("./admin.js")],
  [/^\/jobs\/(?<id>[0-9a-fA-F-]{36})$/, () => import("./job.js")],
  [/^\/jobs\/(?<id>[0-9a-fA-F-]{36})\/log$/, () => import("./log_page.js")],
  [/^\/jobs\/(?<id>[0-9a-fA-F-]{36})\/tasks\/(?<number>\d+)$/, () => import("./task.js")],
];

export function place() {
  const [path, search = ""] = (location.hash.slice(1) || "/").split("?");
  return { path, search: new URLSearchParams(search) };
}

// Changes the address without another entry in the history.
export function setSearch(values) {
  const text = values.toString();
  const wanted = `#${place().path}${text ? `?${text}` : ""}`;
  if (wanted !== location.hash) history.replaceState(null, "", wanted);
}

async function route() {
  if (location.hash && !location.hash.startsWith("#/")) return; // to a place on the page itself
  const { path, search } = place();
  drawHead();
  if (shown === path && view) {
    view.moved?.(search);
    return;
  }
  if (shown === "sign-in") return;
  view?.close();
  view = null;
  shown = path;
  document.title = "Snakeline";
  const found = VIEWS.map(([pattern, load]) => [pattern.exec(path), load]).find(([match]) => match);
  if (!found) {
    replace(main, el("h1", null, "There is nothing here"), el("p", null, el("a", { href: "#/" }, "To the jobs")));
    return;
  }
  let module;
  try {
    module = await found[1]();
  } catch (error) {
    // Not here yet, and cannot be fetched now; asked for again by the next click, or when the service is back.
    if (shown === path) {
      shown = null;
      failed(error);
    }
    return;
  }
  if (shown !== path) return;
  const root = el("div.view");
  replace(main, root);
  view = module.open(root, { ...found[0].groups, search, changes });
  window.scrollTo(0, 0);
}
window.addEventListener("hashchange", async () => {
  const before = shown;
  await route();
  if (shown !== before && view) main.focus({ preventScroll: true });
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (shown === "sign-in") return;
  if (view?.key?.(event)) event.preventDefault();
  else if (event.key === "?") showKeys();
  else if (event.key === "g") location.hash = "#/";
  else if (event.key === "n") location.hash = "#/new";
  else if (event.key === "/") {
    const field = main.querySelector("[data-search]");
    if (field) field.focus();
    else location.hash = "#/";
  } else return;
  event.preventDefault();
});

// Whether jobs can run is looked at again for as long as they cannot.
let looking = null;
async function lookReady() {
  clearTimeout(looking);
  try {
    const { engine } = await get("readyz");
    notice("ready", "bad");
    notice("engine", "warning", ...(engine?.is_mock ? ["The engine is the stand-in: no real pipelines run here. (SNAKELINE_ENGINE=snakemake runs them.)"] : []));
  } catch (error) {
    if (!(error instanceof Problem && error.status === 503)) return;
    notice("ready", "bad", el("span", null, "The service is not ready: it takes no jobs now, or cannot run them. ", el("a", { href: "#/admin" }, "Why")));
    looking = setTimeout(lookReady, 15_000);
  }
}

async function start() {
  shown = null;
  changes.start();
  await route();
  await lookReady();
}

const answer = takeAnswer();
drawHead();
if (answer?.begun) comeBack(answer);
else {
  isStray = answer !== null && (answer.told.has("code") || answer.told.has("error"));
  start();
}
