// Signing in at an issuer (OpenID Connect): an authorization code with PKCE, asked for and exchanged by this tab,
// as a public client. Whom to talk to is said by the service alone.

import { address, hasKey, session, setKey } from "./api.js";
import { BEGUN } from "./sign_in.js";

const MOST_WORDS = 300;
const PATIENCE_MS = 15_000; // everything else waits for a renewal
const WORDS = {
  access_denied: "The issuer says no: it was declined there, or you may not use this service.",
  consent_required: "The issuer wants your consent first: sign in again.",
  interaction_required: "The issuer wants to ask you something first: sign in again.",
  invalid_client: "The issuer does not know this page by the client id that is set here.",
  invalid_grant: "The issuer does not take its code any more: it is used once and lasts a short time. Sign in again.",
  invalid_request: "The issuer does not understand what it is asked.",
  invalid_scope: "The issuer does not give the scopes that this service asks for.",
  login_required: "The issuer wants you to sign in: try again.",
  server_error: "The issuer has trouble of its own: try again later.",
  temporarily_unavailable: "The issuer is busy: try again later.",
  unauthorized_client: "The issuer does not let this page sign people in: its client has to be a public one with a code and PKCE.",
};

const FOR_LATER = new Set(["server_error", "slow_down", "temporarily_unavailable"]); // who is signed in stays so

// `detail` are the issuer's own words.
export class SignInError extends Error {
  constructor(message, { code = null, detail = "" } = {}) {
    super(message);
    this.code = code;
    this.detail = detail;
  }
}

function refusal(code, description) {
  const name = typeof code === "string" && /^[\w.-]{1,64}$/.test(code) ? code : "no reason";
  const said = typeof description === "string" ? description.replace(/[^\P{C}]+/gu, " ").trim().slice(0, MOST_WORDS) : "";
  return new SignInError(Object.hasOwn(WORDS, name) ? WORDS[name] : `The issuer does not sign you in: ${name}.`,
    { code: name, detail: said && `In its own words: ${said}` });
}

const encoded = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => encoded(crypto.getRandomValues(new Uint8Array(32)));

// Goes to the issuer. `place` is where the person comes back to.
export async function begin(offer, place) {
  if (!crypto.subtle) throw new SignInError("Browsers sign in this way only over https, or on the service's own machine.");
  const begun = { state: random(), nonce: random(), verifier: random(), redirect: address("."), place, issuer: offer.issuer, client: offer.client_id };
  const challenge = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(begun.verifier));
  sessionStorage.setItem(BEGUN, JSON.stringify(begun));
  const to = new URL(offer.authorization_endpoint);
  const said = {
    ...offer.parameters, response_type: "code", response_mode: offer.response_mode, client_id: offer.client_id, redirect_uri: begun.redirect,
    scope: offer.scope, state: begun.state, nonce: begun.nonce, code_challenge: encoded(challenge), code_challenge_method: "S256",
  };
  if (said.response_mode === "query") delete said.response_mode; // what it is without a word, also to those who do not know the word
  for (const [name, value] of Object.entries(said)) to.searchParams.set(name, value);
  location.assign(to);
}

// Exchanges the code of the answer to what was begun. Throws SignInError.
export async function finish({ told, begun }) {
  if (told.has("error")) throw refusal(told.get("error"), told.get("error_description"));
  const code = told.get("code");
  const offer = await offered();
  // Neither code nor verifier goes to anybody but who was asked, whatever is set by now.
  if (!code || begun.issuer !== offer.issuer || begun.client !== offer.client_id || told.getAll("iss").some((each) => each !== offer.issuer)) throw new SignInError("What came back is not of this service's issuer.");
  const tokens = await exchanged(offer, { grant_type: "authorization_code", code, redirect_uri: begun.redirect, code_verifier: begun.verifier });
  const claims = claimsOf(tokens.id_token);
  if (claims?.nonce !== begun.nonce || claims.iss !== offer.issuer || ![claims.aud].flat().includes(offer.client_id)) {
    throw new SignInError("The issuer's tokens are not for what this tab has asked.");
  }
  keep(offer, tokens, null);
}

// Another token by the refresh token; whether there is one. Throws where the issuer can't be asked now.
export async function renew() {
  const before = session();
  let offer;
  let tokens;
  try {
    offer = await offered();
    if (offer.issuer !== before.issuer) return false;
    tokens = await exchanged(offer, { grant_type: "refresh_token", refresh_token: before.refresh });
  } catch (error) {
    if (!(error instanceof SignInError) || error.code === null) throw error;
    return false;
  }
  if (session()?.refresh !== before.refresh) return hasKey(); // signed out meanwhile
  if (!tokens[offer.token]) return false;
  keep(offer, tokens, before.refresh);
  return true;
}

// Without the key, which a request would renew first.
async function offered() {
  const answer = await fetch(address("sign-in"), { credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) });
  const told = await answer.json();
  if (!answer.ok) throw new SignInError(told.detail);
  if (!told.redirect) throw new SignInError("This service leads nobody to an issuer any more.", { code: "unset" });
  return told.redirect;
}

async function exchanged(offer, fields) {
  let answer;
  try {
    answer = await fetch(offer.token_endpoint, {
      method: "POST", body: new URLSearchParams({ client_id: offer.client_id, ...fields }),
      headers: { Accept: "application/json" }, credentials: "omit", redirect: "error", referrerPolicy: "no-referrer", cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new SignInError(`${new URL(offer.token_endpoint).host} could not be reached, or does not let this page ask it: it has to know ${location.origin} as an origin of its client.`);
  }
  let told = null;
  try {
    told = await answer.json();
  } catch { /* no issuer's answer: a proxy's */ }
  if (answer.ok && told !== null && typeof told === "object") return told;
  const isForLater = answer.status >= 500 || answer.status === 429 || FOR_LATER.has(told?.error);
  if (isForLater || typeof told?.error !== "string") throw new SignInError(`The issuer has answered ${answer.status}: try again later.`);
  throw refusal(told.error, told.error_description);
}

function keep(offer, tokens, refresh) {
  const token = tokens[offer.token];
  if (typeof token !== "string" || !token) throw new SignInError(`The issuer gives no ${offer.token.replace("_", " ")}.`);
  const claims = offer.token === "id_token" ? claimsOf(token) : null;
  const lasts = Number(claims ? claims.exp - claims.iat : tokens.expires_in);
  setKey(token, {
    issuer: offer.issuer,
    refresh: typeof tokens.refresh_token === "string" ? tokens.refresh_token : refresh,
    // By this machine's clock, which need not be right. A little before the end, so that no request comes too late.
    renewAt: lasts > 0 ? Date.now() + Math.max(lasts - 30, lasts * 0.8) * 1000 : null,
    until: lasts > 0 ? Date.now() + lasts * 1000 : null,
  }, { isRenewed: refresh !== null });
}

// What it says, unchecked: it came from the issuer itself over TLS, and what counts is checked by the service.
function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  } catch {
    return null;
  }
}
