// The public HTTP interface, and nothing else: a key goes in a header alone, never into an address.

const KEY = "snakeline.key";
const news = new EventTarget();

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? `The service answered ${status}`);
    this.status = status;
    this.type = document.type ?? "";
    this.title = document.title ?? "";
    this.errors = document.errors ?? [];
    this.requestId = document.request_id ?? null;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export function setKey(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

// "signed-out": a key is wanted; "lost" and "found": the service cannot be reached, and can again.
export const onNews = (name, listener, options) => news.addEventListener(name, listener, options);
let isLost = false;
export function setLost(value) {
  if (value === isLost) return;
  isLost = value;
  news.dispatchEvent(new Event(value ? "lost" : "found"));
}

export const address = (path) => new URL(path, document.baseURI).href;

export function query(values) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") parts.append(name, each);
    }
  }
  const text = parts.toString();
  return text ? `?${text}` : "";
}

export function headers(more) {
  const all = { ...more };
  const key = sessionStorage.getItem(KEY);
  if (key !== null) all.Authorization = `Bearer ${key}`;
  return all;
}

export async function request(path, { method = "GET", json, signal, accept = "application/json", more } = {}) {
  const sent = headers({ Accept: accept, ...more });
  if (json !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address(path), {
      method, signal, headers: sent, credentials: "omit", body: json === undefined ? undefined : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name !== "AbortError") setLost(true);
    throw error;
  }
  setLost(false);
  if (answer.ok) return answer;
  let told = {};
  try {
    told = await answer.json();
  } catch { /* not of the service: a proxy's own page */ }
  const problem = new Problem(answer.status, told);
  if (answer.status === 401) news.dispatchEvent(new CustomEvent("signed-out", { detail: problem }));
  throw problem;
}

export async function get(path, options) {
  return (await request(path, options)).json();
}

export async function send(method, path, json) {
  const answer = await request(path, { method, json });
  return answer.status === 204 ? null : answer.json();
}

// Events of a response as {event, id, data}.
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let now = { event: "message", id: null, data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (now.data.length) yield { event: now.event, id: now.id, data: now.data.join("\n") };
        now = { event: "message", id: null, data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const name = colon < 0 ? line : line.slice(0, colon);
      const told = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "data") now.data.push(told);
      else if (name === "event") now.event = told;
      else if (name === "id") now.id = told;
    }
  }
}

// The changes of all jobs, for as long as the page is open: comes back by itself where it broke off.
export class Changes {
  #listeners = new Set();
  #abort = null;
  #seen = null;

  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#seen = null;
  }

  #tell(change) {
    for (const listener of this.#listeners) listener(change);
  }

  async #run(signal) {
    let pauseMs = 500;
    while (!signal.aborted) {
      try {
        const more = this.#seen === null ? {} : { "Last-Event-ID": this.#seen };
        const answer = await request("events", { accept: "text/event-stream", signal, more });
        pauseMs = 500;
        for await (const event of eventsOf(answer)) {
          if (event.id !== null) this.#seen = event.id;
          if (event.event === "gap") this.#tell(null); // a store that was replaced: look at everything again
          else if (event.event !== "start") this.#tell(JSON.parse(event.data));
        }
        setLost(true); // ended by the service or by what is between
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem) {
          if (error.status === 401 || error.status === 403) return;
          if (error.status === 422) this.#seen = null;
          if (error.status < 500 && error.status !== 429) pauseMs = 5000;
        } else {
          setLost(true);
        }
      }
      await new Promise((resolve) => { setTimeout(resolve, pauseMs * (0.75 + Math.random() / 2)); });
      pauseMs = Math.min(pauseMs * 1.7, 8000);
    }
  }
}

// To a file of the reader's: a key cannot stand in a link's address, so the page fetches where one is used.
export async function download(path, name) {
  const link = document.createElement("a");
  link.download = name;
  if (!hasKey()) {
    link.href = address(path);
    link.click();
    return;
  }
  const blob = await (await request(path, { accept: "*/*" })).blob();
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
