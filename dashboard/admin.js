// For operators: the service, who may call, whose quota is what, and who changed what.

import { Problem, get, query, request, send } from "./api.js";
import { attempt, tell } from "./app.js";
import { button, confirmed, copy, dialog, el, replace } from "./dom.js";
import { field } from "./schema_form.js";
import { bytes, count, statusIcon, when } from "./words.js";

const SCOPES = ["read", "submit", "admin"];
const PARTS = [["service", "Service"], ["keys", "Keys"], ["tenants", "Tenants"], ["audit", "Audit"]];

export function open(root, { part = "service", search }) {
  document.title = "Admin · Snakeline";
  const place = el("div");
  replace(root, el("h1", null, "Admin"),
    el("nav.tabs", { "aria-label": "Parts" }, PARTS.map(([name, label]) => el("a.button", { href: `#/admin/${name}`, "aria-current": name === part ? "page" : null }, label))), place);
  const show = () => attempt(async () => {
    try {
      await { service, keys, tenants, audit }[PARTS.some(([name]) => name === part) ? part : "service"](place, search, show);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 403) throw error;
      replace(place, el("p.empty", null, "Your key does not allow this: ", error.message));
    }
  });
  show();
  return { close() {}, refresh: show, moved(next) { search = next; show(); } };
}

const table = (label, heads, rows) => el("div.scrolls", { tabindex: "0", role: "region", "aria-label": label }, el("table", null, el("thead", null, el("tr", null, heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", null, rows)));
const cells = (...values) => el("tr", null, values.map((value) => el("td", null, value)));

// Where files of the service are is for those who have a terminal there (`snakeline check`): here their names do.
export const named = (text) => text?.replace(/(^|[\s("'=])\/(?:[^\s/:;,'"()]+\/)*([^\s/:;,'"()]+)/g, "$1$2");

// ---------------------------------------------------------------- service

async function service(place) {
  let told;
  try {
    told = await get("readyz");
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 503) throw error;
    told = { ...error.told, status: "not ready", problem: error.message };
  }
  let figures = new Map();
  try {
    const text = await (await request("metrics", { accept: "text/plain" })).text();
    figures = new Map([...text.matchAll(/^(snakeline_\w+(?:\{[^}]*\})?) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
  const fact = (name, value) => value !== undefined && value !== null && el("div", null, el("dt", null, name), el("dd", null, value));
  const size = (name) => (figures.has(name) ? bytes(figures.get(name)) : null);
  replace(place,
    told.problem && el("div.banner", { role: "alert" }, el("h2", null, "The service is not ready"), el("p", null, named(told.problem))),
    el("dl.facts", null,
      fact("State", told.status), fact("Engine", told.engine && `${told.engine.name} ${told.engine.version}${told.engine.is_mock ? " (a stand-in: no real pipelines run)" : ""}`),
      fact("Isolation", told.isolation && `${told.isolation}${told.isolation_certain ? "" : " (best effort)"}`), fact("Protections", told.isolation_protections?.join(", ") || "none"),
      fact("Disk free", size("snakeline_disk_free_bytes")), fact("Jobs' files", size("snakeline_job_files_bytes")),
      ["pending", "running", "completed", "failed", "cancelled"].map((name) => { const value = figures.get(`snakeline_jobs{status="${name}"}`); return value !== undefined && fact(`Jobs ${name}`, count(value)); })),
    told.isolation_detail && el("p", null, named(told.isolation_detail)),
    told.checks && [el("h2", null, "Checks"), table("Checks", ["Check", "State", "Detail"], told.checks.map((check) => cells(check.name, el("span", { class: `status ${check.ok ? "completed" : "failed"}` }, statusIcon(check.ok ? "completed" : "failed"), check.ok ? "good" : "not good"), named(check.detail))))]);
}

// ---------------------------------------------------------------- keys

async function keys(place, _search, show) {
  const { items } = await get("keys");
  replace(place,
    el("div.tools", null, button("New key", () => newKey(show), { class: "primary" })),
    items.length ? table("Keys", ["Key", "Name", "Tenant", "Scopes", "State", "Created", "Expires", ""], items.map((key) => cells(
      el("code", null, key.prefix), key.name, key.tenant, key.scopes.join(", "), key.status, [when(key.created_at), " by ", key.created_by], key.expires_at ? when(key.expires_at) : "never",
      key.status === "active" && el("div.inline", null,
        button("Replace", () => attempt(async () => {
          if (!await confirmed(`Replace ${key.name}?`, "A new key is made. The old one stays good for a day, so that its holder can change over.", "Replace it")) return;
          showKey(await send("POST", `keys/${encodeURIComponent(key.prefix)}/rotate`, { overlap_s: 86400 }), show);
        }), { "aria-label": `Replace ${key.name}` }),
        button("Revoke", () => attempt(async () => {
          if (!await confirmed(`Revoke ${key.name}?`, "It is refused from the next request on.", "Revoke it")) return;
          await send("DELETE", `keys/${encodeURIComponent(key.prefix)}`);
          tell(`${key.name} is revoked.`);
          show();
        }), { class: "danger", "aria-label": `Revoke ${key.name}` })))))
      : el("div.empty.card", null, el("h2", null, "No keys"), el("p", null, "Where callers have to say who they are (SNAKELINE_AUTH=keys), make the next ones here or with"), el("pre", { tabindex: "0" }, "snakeline keys create --name NAME")));
}

function newKey(show) {
  const parts = {
    name: field({ name: "name", label: "Name", isRequired: true, schema: { type: ["string", "null"], pattern: "^[a-z0-9][a-z0-9._-]{0,62}$", description: "Who will use it: small letters, digits, . _ -" } }),
    tenant: field({ name: "tenant", label: "Tenant", schema: { type: ["string", "null"], pattern: "^(\\*|[a-z0-9][a-z0-9._-]{0,62})$", description: "Whose jobs it sees; * for every tenant's; your own if left empty" } }),
    days: field({ name: "days", label: "Days until it expires", schema: { type: "integer", minimum: 1, maximum: 36500, description: "Never, if left empty" } }),
  };
  const scopes = Object.fromEntries(SCOPES.map((name) => [name, field({ name, schema: { type: "boolean" }, value: name !== "admin", label: name })]));
  const bad = el("p.bad", { role: "alert" });
  const box = dialog("New key", el("div.form", null, Object.values(parts).map((part) => part.element), el("fieldset", null, el("legend", null, "It may"), Object.values(scopes).map((part) => part.element)), bad), [
    button("Back", () => box.close()),
    button("Make it", async () => {
      const found = Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, part.check()]));
      if (Object.values(found).some((each) => !each.isGood)) return;
      const body = { name: found.name.value, scopes: SCOPES.filter((name) => scopes[name].check().value) };
      if (found.tenant.value) body.tenant = found.tenant.value;
      if (found.days.value) body.expires_at = new Date(Date.now() + found.days.value * 86_400_000).toISOString();
      try {
        const made = await send("POST", "keys", body);
        box.close();
        showKey(made, show);
      } catch (error) {
        bad.textContent = error instanceof Problem ? [error.message, ...error.errors.map((each) => each.detail)].join(" ") : "The service could not be reached.";
      }
    }, { class: "primary" }),
  ]);
}

function showKey(made, show) {
  const box = dialog("The new key", [el("p", null, "This is the only time it is shown: copy it now."), el("pre", { tabindex: "0", "data-key": true }, made.key)], [
    button("Copy", (event) => copy(made.key, event.currentTarget)),
    button("Done", () => box.close(), { class: "primary" }),
  ]);
  box.addEventListener("close", () => show());
}

// ---------------------------------------------------------------- tenants

async function tenants(place, _search, show) {
  const { items } = await get("tenants");
  const shown = (value) => (value === null ? el("span.quiet", null, "as set for all") : count(value));
  replace(place,
    el("div.tools", null, button("Set a quota", () => quota(null, show), { class: "primary" })),
    items.length ? table("Tenants", ["Tenant", "Cores at once", "Pending jobs", "GiB of files", ""], items.map((tenant) => cells(
      el("a", { href: `#/${query({ tenant: tenant.name })}` }, tenant.name), shown(tenant.max_cores), shown(tenant.max_pending), shown(tenant.max_gb), button("Change", () => quota(tenant, show), { "aria-label": `Change the quota of ${tenant.name}` }))))
      : el("p.empty", null, "No tenant has a job, a key or a quota yet."));
}

function quota(tenant, show) {
  const name = field({ name: "tenant", label: "Tenant", isRequired: true, value: tenant?.name, schema: { type: ["string", "null"], pattern: "^[a-z0-9][a-z0-9._-]{0,62}$" } });
  const limits = {
    max_cores: field({ name: "max_cores", label: "Cores of its running jobs together", value: tenant?.max_cores ?? undefined, schema: { type: "integer", minimum: 1 } }),
    max_pending: field({ name: "max_pending", label: "Pending jobs", value: tenant?.max_pending ?? undefined, schema: { type: "integer", minimum: 1 } }),
    max_gb: field({ name: "max_gb", label: "GiB of its jobs' files", value: tenant?.max_gb ?? undefined, schema: { type: "number", exclusiveMinimum: 0 } }),
  };
  const bad = el("p.bad", { role: "alert" });
  const box = dialog("Quota", el("div.form", null, name.element, el("p.quiet", null, "What is left empty is as the settings say for every tenant."), Object.values(limits).map((part) => part.element), bad), [
    button("Back", () => box.close()),
    button("Set it", async () => {
      const who = name.check();
      const found = Object.entries(limits).map(([key, part]) => [key, part.check()]);
      if (!who.isGood || found.some(([, each]) => !each.isGood)) return;
      try {
        await send("PUT", `tenants/${encodeURIComponent(who.value)}`, Object.fromEntries(found.filter(([, each]) => each.value !== undefined).map(([key, each]) => [key, each.value])));
        box.close();
        tell(`The quota of ${who.value} is set.`);
        show();
      } catch (error) {
        bad.textContent = error instanceof Problem ? error.message : "The service could not be reached.";
      }
    }, { class: "primary" }),
  ]);
}

// ---------------------------------------------------------------- audit

async function audit(place, search, _show) {
  const asked = Object.fromEntries(["actor", "action", "subject", "cursor"].map((name) => [name, search.get(name)]));
  const page = await get(`audit${query({ ...asked, limit: 50 })}`);
  const go = (values) => { location.hash = `#/admin/audit${query({ ...asked, cursor: null, ...values })}`; };
  const box = (name, label) => el("input", { type: "search", placeholder: label, "aria-label": label, value: asked[name] ?? "", on: { change: (event) => go({ [name]: event.target.value.trim() }) } });
  replace(place,
    el("div.filters", null, box("actor", "Who"), box("subject", "What it was done to"),
      el("select", { "aria-label": "Action", on: { change: (event) => go({ action: event.target.value }) } }, el("option", { value: "" }, "every action"),
        ["job.submitted", "job.cancelled", "job.retried", "job.deleted", "key.created", "key.revoked", "key.rotated", "quota.set"].map((name) => el("option", { value: name, selected: asked.action === name }, name)))),
    page.items.length ? table("Audit", ["When", "Who", "Did", "To", "Tenant", "From", "Request"], page.items.map((each) => cells(when(each.at), each.actor, each.action,
      each.action.startsWith("job.") && each.action !== "job.deleted" ? el("a", { href: `#/jobs/${each.subject}` }, el("code", null, each.subject.slice(0, 8))) : el("code", null, each.subject), each.tenant, each.address ?? "this machine", el("code", null, each.request_id?.slice(0, 12) ?? "–"))))
      : el("p.empty", null, "Nothing of this kind is recorded."),
    el("div.foot", null, asked.cursor && button("Newest", () => go({})), page.next_cursor && button("Older", () => go({ cursor: page.next_cursor }))));
}
