// The shell: which view is shown, who is signed in, whether the service can be reached.

import { Changes, Problem, get, hasKey, onNews, setKey } from "./api.js";
import { button, dialog, el, replace } from "./dom.js";

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

function notice(name, kind, ...content) {
  const old = notices.querySelector(`[data-name="${name}"]`);
  if (!content.length) {
    old?.remove();
    return;
  }
  const fresh = el(`div.notice.${kind}`, { "data-name": name }, content);
  if (old) old.replaceWith(fresh);
  else notices.append(fresh);
}

let lostTimer = null;
onNews("lost", () => {
  // A stream that a proxy ends now and then is back before anybody needs to know.
  lostTimer ??= setTimeout(() => notice("connection", "warning", "The connection to the service is lost. What you see may be old; the page catches up by itself."), 1200);
});
onNews("found", () => {
  clearTimeout(lostTimer);
  lostTimer = null;
  if (!notices.querySelector('[data-name="connection"].warning')) return;
  notice("connection", "good", "Connected again: what happened meanwhile is shown.");
  setTimeout(() => notice("connection", "good"), 4000);
  if (view) view.refresh?.();
  else route();
});

export const tell = (text, kind = "good") => {
  notice("told", kind, text, button("✕", () => notice("told", kind), { "aria-label": "Close this message", class: "plain" }));
  if (kind === "good") setTimeout(() => notice("told", kind), 6000);
};

export function failed(error) {
  if (error.name === "AbortError") return;
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
  setKey(null);
  changes.stop();
  askForKey(null);
  drawHead();
}

function askForKey(problem) {
  if (shown === "sign-in" && !problem?.type.startsWith("credentials-invalid")) return;
  view?.close();
  view = null;
  shown = "sign-in";
  changes.stop();
  const field = el("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false", id: "key", "aria-describedby": "key-told" });
  const why = el("p.bad", { role: "alert" }, problem?.type === "credentials-invalid" || problem?.type === "too-many-failures" ? problem.message : "");
  const form = el("form.card.narrow", {
    on: {
      submit: async (event) => {
        event.preventDefault();
        setKey(field.value.trim());
        shown = null;
        try {
          await get("jobs?limit=1");
          start();
        } catch (error) {
          setKey(null);
          if (!(error instanceof Problem)) why.textContent = "The service could not be reached.";
          else if (error.status !== 401) why.textContent = error.message;
        }
      },
    },
  },
  el("h1", null, "Sign in"),
  el("label", { for: "key" }, "API key or token"), field,
  el("p.quiet", { id: "key-told" }, "It is kept in this tab alone, until you close it, and is sent in a header only. The first key is in the service's log; the next are made with ",
    el("code", null, "snakeline keys create --name NAME"), ". Where the service takes tokens of an issuer (OpenID Connect), paste the access token."),
  why, el("button.primary", { type: "submit" }, "Sign in"));
  replace(main, form);
  document.title = "Sign in · Snakeline";
  field.focus();
}
onNews("signed-out", (event) => {
  setKey(null);
  drawHead();
  askForKey(event.detail);
});

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
  if (event.target.closest("input, textarea, select, [contenteditable]")) {
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

async function start() {
  shown = null;
  changes.start();
  await route();
  try {
    const { engine } = await get("readyz");
    notice("engine", "warning", ...(engine?.is_mock ? ["The engine is the stand-in: no real pipelines run here. (SNAKELINE_ENGINE=snakemake runs them.)"] : []));
  } catch (error) {
    if (error instanceof Problem && error.status === 503) notice("ready", "bad", `The service is not ready: ${error.message}`);
  }
}

drawHead();
start();
