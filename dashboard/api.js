// The public HTTP interface, and nothing else: a key goes in a header alone, never into an address.

import { setClock } from "./words.js";

const KEY = "snakeline.key";
const SESSION = "snakeline.session";
const news = new EventTarget();

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? `The service answered ${status}`);
    this.status = status;
    this.type = document.type ?? "";
    this.title = document.title ?? "";
    this.errors = document.errors ?? [];
    this.requestId = document.request_id ?? null;
    this.told = document;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
// What renews a token of an issuer's: {issuer, refresh, renewAt, until}; null for a key or a token that was pasted.
export const session = () => JSON.parse(sessionStorage.getItem(SESSION));
let signIns = 0; // what one person has asked for is not sent with what the next one signs in with
export function setKey(text, ofIssuer = null, { isRenewed = false } = {}) {
  if (!isRenewed && (text ?? null) !== sessionStorage.getItem(KEY)) signIns += 1;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
  if (text && ofIssuer) sessionStorage.setItem(SESSION, JSON.stringify(ofIssuer));
  else sessionStorage.removeItem(SESSION);
}

let renewing = null;
// Whether there is another token by now than the one that was sent. Throws where the issuer can't be asked.
async function renewed(sent) {
  if (sessionStorage.getItem(KEY) !== sent) return hasKey();
  if (!session()?.refresh) return false;
  renewing ??= import("./oidc.js").then((oidc) => oidc.renew()).finally(() => { renewing = null; });
  return renewing;
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

async function headers(more) {
  const all = { ...more };
  const renewAt = session()?.renewAt;
  if (renewAt && Date.now() >= renewAt) {
    try {
      await renewed(sessionStorage.getItem(KEY));
    } catch (error) {
      if (Date.now() >= session()?.until) throw error; // else it is still good
    }
  }
  const key = sessionStorage.getItem(KEY);
  if (key !== null) all.Authorization = `Bearer ${key}`;
  return all;
}

export async function request(path, { method = "GET", json, body, signal, accept = "application/json", more } = {}) {
  let sent;
  const asking = signIns;
  const ask = async () => {
    sent = await headers({ Accept: accept, ...more });
    if (asking !== signIns) throw new DOMException("Whoever asked is not signed in any more.", "AbortError");
    if (json !== undefined) sent["Content-Type"] = "application/json";
    const askedAt = Date.now();
    const told = await fetch(address(path), {
      method, signal, headers: sent, credentials: "omit", body: json === undefined ? body : JSON.stringify(json),
    });
    setClock(told.headers.get("Date"), askedAt, Date.now());
    return told;
  };
  let answer;
  try {
    answer = await ask();
    if (answer.status === 401 && sent.Authorization && await renewed(sent.Authorization.slice("Bearer ".length))) answer = await ask();
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
  // Of what was sent with a token that is not used any more nobody needs to hear.
  const isOfNow = (sent.Authorization?.slice("Bearer ".length) ?? null) === sessionStorage.getItem(KEY);
  if (answer.status === 401 && isOfNow) news.dispatchEvent(new CustomEvent("signed-out", { detail: problem }));
  throw problem;
}

export async function get(path, options) {
  return (await request(path, options)).json();
}

export async function send(method, path, json) {
  const answer = await request(path, { method, json });
  return answer.status === 204 ? null : answer.json();
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
