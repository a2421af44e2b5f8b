// Who is there: the view that asks for it, and what an issuer's answer leaves in the address.

import { Problem, get } from "./api.js";
import { button, el, replace } from "./dom.js";

// Where a tab remembers what it has asked an issuer, until the answer is there.
export const BEGUN = "snakeline.sign-in";

// What an issuer has answered: taken out of the address and the history before anything else happens. `begun` is
// what this tab asked it, which counts once; null where it asked nothing or the answer belongs to something else.
export function takeAnswer() {
  const behind = new URLSearchParams(location.hash.startsWith("#/") ? "" : location.hash.slice(1));
  const isBehind = behind.has("state") || behind.has("code") || behind.has("error");
  if (!isBehind && !location.search) return null;
  const told = isBehind ? behind : new URLSearchParams(location.search);
  let begun = null;
  try {
    begun = JSON.parse(sessionStorage.getItem(BEGUN));
  } catch { /* nothing of ours */ }
  sessionStorage.removeItem(BEGUN);
  const states = told.getAll("state");
  if (!begun?.state || states.length !== 1 || states[0] !== begun.state) begun = null;
  const place = begun?.place ?? (isBehind ? "" : location.hash);
  history.replaceState(null, "", location.pathname + place);
  return { told, begun };
}

const host = (address) => new URL(address).host;

// `why` is told above all; `ended` is whether a session at the issuer may go on; `tryKey` is called with what was
// typed, and what it throws is told.
export function signInForm({ why = "", detail = "", ended = false, tryKey }) {
  const field = el("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false", id: "key", "aria-describedby": "key-told" });
  const told = el("p.bad", { role: "alert" }, why);
  const words = el("p.quiet", null, detail);
  words.hidden = !detail;
  const help = el("p.quiet", { id: "key-told" }, "It is kept in this tab alone, until you close it, and is sent in a header only. The first key is in the service's log; the next are made with ",
    el("code", null, "snakeline keys create --name NAME"), ".");
  const submit = el("button.primary", { type: "submit" }, "Sign in");
  const issuer = el("div.issuer");
  const say = (text, more = "") => {
    told.textContent = text;
    words.textContent = more;
    words.hidden = !more;
  };

  async function lead(redirect) {
    say("");
    try {
      await (await import("./oidc.js")).begin(redirect, location.hash.startsWith("#/") ? location.hash : "");
    } catch (error) {
      say("detail" in error ? error.message : "The service could not be reached.");
    }
  }

  async function ask() {
    let offer;
    try {
      offer = await get("sign-in");
    } catch (error) {
      replace(issuer, el("p.quiet", null, error instanceof Problem ? error.message : "The service could not be reached."), button("Try again", ask));
      return;
    }
    const { mode, redirect } = offer;
    if (mode === "oidc" && !redirect) help.append(" This service takes tokens of an issuer (OpenID Connect), too: paste the access token.");
    if (!redirect) return;
    const leading = button(`Sign in with ${host(redirect.issuer)}`, () => lead(redirect), { class: "primary" });
    submit.classList.remove("primary");
    let end = null;
    if (ended && redirect.end_session_endpoint) {
      end = new URL(redirect.end_session_endpoint);
      end.searchParams.set("client_id", redirect.client_id);
    }
    replace(issuer, leading, el("p.quiet", null, "It asks who you are, and you come back to this place."),
      end && el("p", null, "You are signed out here. ", el("a", { href: end.href, rel: "noreferrer" }, `End your session at ${end.host}, too`)),
      el("p.or", { "aria-hidden": "true" }, "or"));
    if (!field.value) leading.focus();
  }

  const form = el("form.card.narrow", {
    on: {
      submit: async (event) => {
        event.preventDefault();
        try {
          await tryKey(field.value.trim());
        } catch (error) {
          if (!(error instanceof Problem)) say("The service could not be reached.");
          else if (error.status !== 401) say(error.message);
        }
      },
    },
  }, el("h1", null, "Sign in"), told, words, issuer, el("label", { for: "key" }, "API key or token"), field, help, submit);
  ask();
  return { form, field };
}
