// A new job: a form from the workflow's own description, a plan of what it would do, and the submission.

import { Problem, get, query, request, send } from "./api.js";
import { attempt, failed, setSearch, tell } from "./app.js";
import { curl } from "./curl.js";
import { button, copy, el, replace } from "./dom.js";
import { lookAt, ruleGraph } from "./graph.js";
import { field, objectForm } from "./schema_form.js";
import { count, plural } from "./words.js";

const FLAGS = {
  keep_going: "When a task fails, go on with those that do not need it",
  force_all: "Run every task, whether or not what it makes is there",
  dry_run: "Run nothing; the log says what would be run",
};

export function open(root, { search }) {
  return new Submission(root, search);
}

class Submission {
  constructor(root, search) {
    this.root = root;
    this.search = search;
    document.title = "New job · Snakeline";
    replace(root, el("p.quiet", null, "Loading …"));
    attempt(() => this.begin());
  }

  close() {
    this.isClosed = true;
  }

  // What was filled in stays.
  refresh() {
    if (!this.workflows) attempt(() => this.begin());
  }

  moved(search) {
    this.search = search;
    attempt(() => this.begin());
  }

  async begin() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const from = this.search.get("from");
    const [model, { items }] = await Promise.all([from ? get(`jobs/${encodeURIComponent(from)}`) : null, get("workflows")]);
    if (this.isClosed || turn !== this.turn) return;
    this.model = model;
    this.workflows = items;
    if (!items.length) {
      replace(this.root, el("h1", null, "New job"), el("p.empty", null, "No workflow is registered. Put a folder with a Snakefile into the service's workflows directory (SNAKELINE_WORKFLOWS_DIR)."));
      return;
    }
    const wanted = this.search.get("workflow") ?? this.model?.workflow ?? "demo";
    this.workflow = items.find((each) => each.name === wanted) ?? items[0];
    this.draw();
  }

  draw() {
    const { model, workflow } = this;
    const isSame = model?.workflow === workflow.name;
    this.choice = el("select", { id: "workflow", on: { change: () => this.choose(this.choice.value) } }, this.workflows.map(({ name }) => el("option", { value: name, selected: name === workflow.name }, name)));
    this.parameters = objectForm(workflow.parameters_schema, isSame ? model.parameters : {}, { legend: "Parameters" });
    const plain = (name, schema, value, label) => field({ name, schema, value: value ?? undefined, label });
    this.fields = {
      name: plain("name", { type: ["string", "null"], maxLength: 200, description: "To find it by" }, model?.name && `${model.name}`, "Name"),
      cores: plain("cores", { type: "integer", minimum: 1, description: "For all its tasks together" }, model?.cores, "Cores"),
      priority: plain("priority", { type: "integer", minimum: -1000, maximum: 1000, description: "Higher starts earlier" }, model?.priority, "Priority"),
      memory_mb: plain("memory_mb", { type: "integer", minimum: 16, description: "For all its processes together" }, model?.memory_mb, "Memory (MiB)"),
      timeout_s: plain("timeout_s", { type: "number", exclusiveMinimum: 0, description: "Then it is stopped" }, model?.timeout_s, "Time limit (s)"),
      max_retries: plain("max_retries", { type: "integer", minimum: 0, maximum: 100, description: "New attempts by itself after a failure" }, model?.max_retries, "Retries"),
      targets: plain("targets", { type: "array", items: { type: "string" }, description: "Files or rules to make; none: the workflow's default" }, isSame && model.targets.length ? model.targets : undefined, "Targets"),
      labels: plain("labels", { type: "array", items: { type: "string", pattern: "^[A-Za-z0-9][A-Za-z0-9._/-]*:.*$" }, description: "key:value, to filter by" }, model && Object.entries(model.labels).map(([key, value]) => `${key}:${value}`), "Labels"),
    };
    this.options = Object.fromEntries(Object.entries(FLAGS).map(([name, description]) => [name, plain(name, { type: "boolean", description }, isSame ? model.options[name] : undefined, name.replaceAll("_", " "))]));
    this.otherOptions = isSame ? Object.fromEntries(Object.entries(model.options).filter(([name]) => !(name in FLAGS))) : {};
    this.files = workflow.attachments && el("input", { type: "file", multiple: true, id: "files" });
    this.plan = el("section", { "aria-live": "polite" });
    this.wrongs = el("div", { role: "alert" });
    this.planning = button("Preview the plan", () => this.preview());
    this.sending = el("button.primary", { type: "submit" }, "Submit");
    const { name, targets, labels, ...limits } = this.fields;
    const form = el("form.form", { novalidate: true, on: { submit: (event) => { event.preventDefault(); this.submit(); } } },
      el("div.field", null, el("label", { for: "workflow" }, "Workflow"), this.choice, el("div.told", null, workflow.description)),
      name.element, this.parameters.element,
      this.files && el("div.field", null, el("label", { for: "files" }, "Input files"), this.files, el("div.told", null, `At most ${plural(workflow.attachments.max_files, "file")}, ${workflow.attachments.max_mb} MiB together`)),
      el("details", { open: Boolean(model) }, el("summary", null, "Cores, limits, targets and labels"), el("div.form", null,
        el("div.pair", null, Object.values(limits).map((each) => each.element)), targets.element, labels.element,
        el("fieldset", null, el("legend", null, "How Snakemake runs it"), Object.values(this.options).map((each) => each.element)))),
      this.wrongs,
      el("div.actions", null, this.sending, this.planning, button("Copy as curl", (event) => { const body = this.body(); if (body) copy(curl(body), event.currentTarget); })));
    replace(this.root, el("div.title", null, el("h1", null, model ? `New job like ${model.name ?? model.id.slice(0, 8)}` : "New job")), form, this.plan);
  }

  choose(name) {
    this.workflow = this.workflows.find((each) => each.name === name);
    const search = new URLSearchParams(this.search);
    search.set("workflow", name);
    setSearch(search);
    this.draw();
    this.choice.focus();
  }

  // What would be sent, or null where something is wrong.
  body() {
    const parameters = this.parameters.check();
    const body = { workflow: this.workflow.name, parameters: parameters.value };
    let isGood = parameters.isGood;
    for (const [name, part] of Object.entries(this.fields)) {
      const found = part.check();
      isGood &&= found.isGood;
      if (found.value === undefined || found.value === "" || (Array.isArray(found.value) && !found.value.length)) continue;
      body[name] = name === "labels" ? Object.fromEntries(found.value.map((each) => [each.slice(0, each.indexOf(":")), each.slice(each.indexOf(":") + 1)])) : found.value;
    }
    const options = { ...this.otherOptions };
    for (const [name, part] of Object.entries(this.options)) if (part.check().value) options[name] = true;
    if (Object.keys(options).length) body.options = options;
    replace(this.wrongs, !isGood && el("p.bad", null, "Something is not right yet: see the fields above."));
    if (!isGood) {
      const first = this.root.querySelector('[aria-invalid="true"]');
      const details = first?.closest("details");
      if (details) details.open = true;
      first?.focus();
    }
    return isGood ? body : null;
  }

  // The service's word on each field, at the field.
  refused(error) {
    if (!(error instanceof Problem) || error.status !== 422) {
      failed(error);
      return;
    }
    const others = [];
    for (const { pointer, detail } of error.errors) {
      const [top, ...more] = (pointer ?? "").split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
      if (top === "parameters" && more.length && this.parameters.show(more, detail)) continue;
      if (this.fields[top]) this.fields[top].show(detail);
      else others.push(`${pointer ? `${pointer}: ` : ""}${detail}`);
    }
    replace(this.wrongs, el("p.bad", null, others.length ? others.join("; ") : error.errors.length ? "The service does not take this: see the fields above." : error.message));
    const first = this.root.querySelector('[aria-invalid="true"]');
    const details = first?.closest("details");
    if (details) details.open = true;
    first?.focus();
  }

  async submit() {
    const body = this.body();
    if (!body) return;
    this.sending.disabled = true;
    // The same key for each try of this form: a submission whose answer was lost is not made twice.
    const text = JSON.stringify(body) + [...(this.files?.files ?? [])].map((file) => `${file.name} ${file.size} ${file.lastModified}`).join();
    if (this.sent !== text) [this.sent, this.key] = [text, crypto.getRandomValues(new Uint32Array(4)).join("-")];
    try {
      const job = await this.post(body);
      tell(`${job.name ?? "The job"} is submitted.`);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      this.refused(error);
    } finally {
      this.sending.disabled = false;
    }
  }

  async post(body) {
    let sent = JSON.stringify(body);
    const more = { "Idempotency-Key": this.key };
    if (this.files?.files.length) {
      sent = new FormData();
      sent.append("job", new Blob([JSON.stringify(body)], { type: "application/json" }));
      for (const file of this.files.files) sent.append("files", file, file.name);
    } else more["Content-Type"] = "application/json";
    return (await request("jobs", { method: "POST", body: sent, more })).json();
  }

  async preview() {
    const body = this.body();
    if (!body) return;
    const asked = Object.fromEntries(["parameters", "targets", "options", "cores", "memory_mb"].filter((name) => name in body).map((name) => [name, body[name]]));
    if (this.files?.files.length) asked.attachments = [...this.files.files].map((file) => file.name);
    this.planning.disabled = true;
    replace(this.plan, el("p.quiet", null, "Planning …"));
    const path = `workflows/${encodeURIComponent(this.workflow.name)}/plan`;
    try {
      const plan = await send("POST", `${path}${query({ limit: 100 })}`, asked);
      const place = plan.ok && plan.graph.nodes.length ? el("div", null, el("p.quiet", null, "Drawing the graph …")) : el("div");
      replace(this.plan, el("h2", null, plan.ok ? `The plan: ${plural(plan.tasks.total, "task")}` : "It cannot be planned: a job would fail"),
        plan.errors.length > 0 && el("div.banner", null, plan.errors.map((each) => el("pre", { tabindex: "0" }, each))),
        plan.missing_input.length > 0 && [el("h3", null, "Missing input"), el("ul", null, plan.missing_input.map(({ rule, files }) => el("li", null, el("b", null, rule), " needs ", el("code", null, files.join(", ")))))],
        plan.up_to_date > 0 && el("p.quiet", null, `${plural(plan.up_to_date, "task")} would not run: what they make is there.`),
        place,
        Object.keys(plan.rules).length > 0 && el("div.scrolls.planned", { tabindex: "0", role: "region", "aria-label": "Planned rules" }, el("table", null, el("thead", null, el("tr", null, ["Rule", "Tasks"].map((each) => el("th", { scope: "col" }, each)))), el("tbody", null, Object.entries(plan.rules).map(([rule, number]) => el("tr", null, el("td.mono", null, rule), el("td.figure", null, count(number))))))),
        plan.tasks.items.length > 0 && el("details", null, el("summary", null, "The tasks"), el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Planned tasks" }, el("table", null, el("tbody", null, plan.tasks.items.map((task) => el("tr", null, el("td.mono", null, task.rule), el("td.mono", null, Object.values(task.wildcards).join(" ")), el("td", null, task.reason ?? ""))))))));
      this.plan.scrollIntoView({ block: "start" });
      if (plan.ok && plan.graph.nodes.length) {
        const picture = await ruleGraph(`${path}?format=svg`, { nodes: plan.graph.nodes, body: asked });
        const box = el("div.graph", { tabindex: "0", role: "region", "aria-label": "Graph of the planned rules" }, picture);
        replace(place, box);
        lookAt(box);
      }
    } catch (error) {
      if (error instanceof Problem) {
        replace(this.plan);
        this.refused(error);
      }
    } finally {
      this.planning.disabled = false;
    }
  }
}
