// The graph of rules, as the service lays it out. Its picture is taken apart and made again from shapes and
// texts that are known here: nothing else of it reaches the page.

import { request } from "./api.js";
import { svg } from "./dom.js";

const SHAPES = new Set(["svg", "g", "rect", "path", "text", "title", "desc", "defs", "marker"]);
const ATTRIBUTES = new Set(["width", "height", "viewBox", "transform", "d", "x", "y", "rx", "class", "refX", "refY", "markerWidth", "markerHeight", "orient", "id", "marker-end"]);
const CLASSES = new Set(["name", "told", "box", "inner", "icon", "done", "edge", "back", "tip", "paper", "pending", "running", "completed", "failed", "cancelled", "up_to_date"]);

const TOKEN = /<(\/?)(\w+)((?:\s+[\w:-]+="[^"]*")*)\s*(\/?)>|([^<]+)/g;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', "#x27": "'", "#39": "'" };
const unescaped = (text) => text.replace(/&(#?\w+);/g, (whole, name) => ENTITIES[name] ?? whole);

// The picture's tree, as plain values: no parser of the browser's is handed what comes from outside.
function parsed(text) {
  const root = { name: "", attributes: {}, children: [] };
  const open = [root];
  for (const [, slash, name, attributes, isEmpty, words] of text.matchAll(TOKEN)) {
    if (words !== undefined) open.at(-1).children.push(unescaped(words));
    else if (slash) {
      if (open.length > 1) open.pop();
    } else {
      const node = { name, attributes: {}, children: [] };
      for (const [, key, value] of attributes.matchAll(/([\w:-]+)="([^"]*)"/g)) node.attributes[key] = unescaped(value);
      open.at(-1).children.push(node);
      if (!isEmpty) open.push(node);
    }
  }
  return root.children.find((node) => node.name === "svg");
}

function rebuilt(node, wrap) {
  if (typeof node === "string") return document.createTextNode(node);
  if (!SHAPES.has(node.name)) return null;
  const attributes = {};
  for (const [name, value] of Object.entries(node.attributes)) {
    if (!ATTRIBUTES.has(name)) continue;
    if (name === "class" && !value.split(" ").every((each) => CLASSES.has(each))) continue;
    if (name === "marker-end" && value !== "url(#snakeline-tip)") continue;
    attributes[name] = value;
  }
  const made = svg(node.name, attributes, node.children.map((child) => rebuilt(child, wrap)));
  return wrap(made) ?? made;
}

// Scrolls a graph that is larger than its box to what failed, else to what runs, else to its first rule.
export function lookAt(box) {
  const node = box.querySelector("g.failed") ?? box.querySelector("g.running") ?? box.querySelector("svg g[class]");
  if (!node) return;
  const outer = box.getBoundingClientRect();
  const inner = node.getBoundingClientRect();
  box.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
  box.scrollTop += inner.top + inner.height / 2 - outer.top - outer.height / 2;
}

// `linkTo(rule)` is where a rule's box leads; without it the boxes lead nowhere.
export async function ruleGraph(path, { nodes, linkTo, body }) {
  const answer = await request(path, { method: body === undefined ? "GET" : "POST", json: body, accept: "image/svg+xml" });
  const picture = parsed(await answer.text());
  let index = 0;
  const made = rebuilt(picture, (node) => {
    if (node.localName !== "g" || !node.hasAttribute("class")) return null;
    const rule = nodes[index++]?.rule; // boxes come in the order of the graph
    const title = node.querySelector("title")?.textContent ?? "";
    if (!rule || !linkTo || !title.includes(rule.slice(0, 20))) return null;
    return svg("a", { href: linkTo(rule) }, node);
  });
  made.querySelector(":scope > rect.paper")?.remove();
  made.querySelector(":scope > title")?.remove();
  made.setAttribute("role", linkTo ? "group" : "img");
  made.setAttribute("aria-label", "Graph of the rules");
  return made;
}
