// A form from a JSON Schema: a field for each parameter, checked while it is filled in. What is not simple
// enough for a field of its own is written as JSON; the service checks everything again.

import { el, replace } from "./dom.js";

const pretty = (value) => JSON.stringify(value, null, 2);
let lastId = 0;

const typeOf = (schema) => (Array.isArray(schema.type) ? schema.type.find((each) => each !== "null") : schema.type);

function kindOf(schema) {
  if (Array.isArray(schema.enum)) return "choice";
  const type = typeOf(schema);
  if (type === "boolean" || type === "string" || type === "integer" || type === "number") return type;
  if (type === "array" && ["string", "integer", "number"].includes(typeOf(schema.items ?? {}))) return "lines";
  if (type === "object" && schema.properties) return "group";
  return "json";
}

const optional = (schema) => Array.isArray(schema.type) && schema.type.includes("null");

// What is wrong with a value, or null.
export function wrong(schema, value) {
  const type = typeOf(schema);
  if (typeof value === "number") {
    if (type === "integer" && !Number.isInteger(value)) return "must be a whole number";
    if (schema.minimum !== undefined && value < schema.minimum) return `must be at least ${schema.minimum}`;
    if (schema.maximum !== undefined && value > schema.maximum) return `must be at most ${schema.maximum}`;
    if (schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum) return `must be more than ${schema.exclusiveMinimum}`;
    if (schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum) return `must be less than ${schema.exclusiveMaximum}`;
  }
  if (typeof value === "string") {
    if (schema.minLength !== undefined && [...value].length < schema.minLength) return schema.minLength === 1 ? "must not be empty" : `must have at least ${schema.minLength} characters`;
    if (schema.maxLength !== undefined && [...value].length > schema.maxLength) return `must have at most ${schema.maxLength} characters`;
    if (schema.pattern !== undefined) {
      try {
        if (!new RegExp(schema.pattern, "u").test(value)) return `must match ${schema.pattern}`;
      } catch { /* of another dialect: the service knows */ }
    }
  }
  if (Array.isArray(value)) {
    if (schema.minItems !== undefined && value.length < schema.minItems) return `must have at least ${schema.minItems}`;
    if (schema.maxItems !== undefined && value.length > schema.maxItems) return `must have at most ${schema.maxItems}`;
    if (schema.uniqueItems && new Set(value.map(pretty)).size < value.length) return "must not name anything twice";
    for (const [index, each] of value.entries()) {
      const told = wrong(schema.items ?? {}, each);
      if (told) return `line ${index + 1} ${told}`;
    }
  }
  return null;
}

class Invalid extends Error {}

function parsed(kind, schema, control) {
  const text = control.value;
  switch (kind) {
    case "boolean": return control.checked;
    case "choice": return text === "" ? undefined : schema.enum[Number(text)];
    case "lines": {
      const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
      if (typeOf(schema.items) === "string") return lines;
      const numbers = lines.map(Number);
      if (numbers.some(Number.isNaN)) throw new Invalid("every line must be a number");
      return numbers;
    }
    case "integer":
    case "number": {
      if (text.trim() === "") return undefined;
      const number = Number(text);
      if (Number.isNaN(number)) throw new Invalid("must be a number");
      return number;
    }
    case "json": {
      if (text.trim() === "") return undefined;
      try {
        return JSON.parse(text);
      } catch (error) {
        throw new Invalid(`is not JSON: ${error.message}`);
      }
    }
    default: return text === "" && (optional(schema) || schema.minLength) ? undefined : text;
  }
}

const written = (kind, schema, value) => {
  if (value === undefined || value === null) return "";
  if (kind === "choice") return String(schema.enum.findIndex((each) => pretty(each) === pretty(value)));
  if (kind === "lines") return Array.isArray(value) ? value.join("\n") : "";
  return kind === "json" ? pretty(value) : String(value);
};

// One labelled control. `check` gives its value, or undefined, and shows what is wrong.
// `title`: the label is the schema's word; the parameter's own name stands beside it.
export function field({ name, schema, value, isRequired, label = name, title }) {
  lastId += 1;
  const id = `field-${lastId}`;
  const kind = kindOf(schema);
  const start = value === undefined ? schema.default : value;
  const bad = el("div.bad", { id: `${id}-bad`, role: "alert" });
  const shared = { id, name, "aria-describedby": `${id}-told ${id}-bad` };
  let control;
  if (kind === "boolean") control = el("input", { ...shared, type: "checkbox", checked: start === true });
  else if (kind === "choice") {
    control = el("select", shared, !isRequired && schema.default === undefined && el("option", { value: "" }, "–"), schema.enum.map((each, index) => el("option", { value: index }, typeof each === "string" ? each : pretty(each))));
    control.value = written(kind, schema, start) || control.options[0]?.value;
  } else if (kind === "lines" || kind === "json") control = el("textarea", { ...shared, spellcheck: "false", class: "mono", value: written(kind, schema, start) });
  else control = el("input", { ...shared, type: "text", inputmode: kind === "integer" ? "numeric" : kind === "number" ? "decimal" : null, spellcheck: "false", autocomplete: "off", value: written(kind, schema, start) });
  const range = [schema.minimum !== undefined && `from ${schema.minimum}`, schema.maximum !== undefined && `up to ${schema.maximum}`].filter(Boolean).join(" ");
  const hints = [schema.description, range, kind === "lines" && "one a line", kind === "json" && "as JSON", schema.default !== undefined && kind !== "boolean" && `default: ${Array.isArray(schema.default) ? schema.default.join(", ") : typeof schema.default === "object" ? pretty(schema.default) : schema.default}`].filter(Boolean);
  const tag = el("label", { for: id }, label, label !== name && title && el("code.quiet", null, ` ${name}`), isRequired && el("span.quiet", null, " (needed)"));
  const told = el("div.told", { id: `${id}-told` }, hints.join(" · "));
  const show = (text) => {
    replace(bad, text);
    if (text) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  const check = () => {
    try {
      const found = parsed(kind, schema, control);
      const problem = found === undefined ? isRequired && "is needed" : wrong(schema, found);
      show(problem || "");
      return { value: found, isGood: !problem };
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
      show(error.message);
      return { value: undefined, isGood: false };
    }
  };
  control.addEventListener(kind === "boolean" || kind === "choice" ? "change" : "blur", check);
  control.addEventListener("input", () => { if (control.hasAttribute("aria-invalid")) check(); });
  const element = kind === "boolean" ? el("div.field", null, el("div.inline", null, control, tag), told, bad) : el("div.field", null, tag, control, told, bad);
  return { element, check, show, focus: () => control.focus() };
}

// Fields for an object. `check` gives {value, isGood}; `show(pointer, text)` puts the service's word in place.
export function objectForm(schema, values, { legend, path = "" }) {
  const parts = new Map();
  const element = el("fieldset", null, el("legend", null, legend));
  for (const [name, each] of Object.entries(schema?.properties ?? {})) {
    const isRequired = (schema.required ?? []).includes(name) && each.default === undefined;
    const part = kindOf(each) === "group" ? objectForm(each, values?.[name] ?? each.default ?? {}, { legend: each.title ?? name }) : field({ name: `${path}${name}`, schema: each, value: values?.[name], isRequired, label: each.title ?? name, title: each.title });
    parts.set(name, part);
    element.append(part.element);
  }
  // What the schema does not name, where it lets it in.
  const known = new Set(parts.keys());
  const rest = Object.fromEntries(Object.entries(values ?? {}).filter(([name]) => !known.has(name)));
  let free = null;
  if (schema?.additionalProperties !== false && (!schema?.properties || Object.keys(rest).length || !parts.size)) {
    free = field({ name: `${path}other`, schema: { type: "object", description: schema ? "Parameters that the workflow does not describe" : "The workflow does not describe its parameters: any object is taken" }, value: Object.keys(rest).length ? rest : undefined, label: parts.size ? "Others" : "Parameters" });
    element.append(free.element);
  }
  if (!parts.size && !free) element.append(el("p.quiet", null, "It takes no parameters."));
  const check = () => {
    let isGood = true;
    const value = {};
    for (const [name, part] of parts) {
      const found = part.check();
      isGood &&= found.isGood;
      if (found.value !== undefined) value[name] = found.value;
    }
    if (free) {
      const found = free.check();
      if (found.value !== undefined && (typeof found.value !== "object" || Array.isArray(found.value) || found.value === null)) {
        free.show("must be an object: {…}");
        isGood = false;
      } else {
        isGood &&= found.isGood;
        Object.assign(value, found.value);
      }
    }
    return { value, isGood };
  };
  const show = (pointer, text) => {
    const [name, ...more] = pointer;
    const part = parts.get(name) ?? free;
    if (!part) return false;
    if (part.show.length === 2) return part.show(more, text);
    part.show(more.length ? `${more.join("/")}: ${text}` : text);
    return true;
  };
  const focus = () => { [...parts.values(), free].find(Boolean)?.focus(); };
  return { element, check, show, focus };
}
