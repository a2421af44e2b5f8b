// Elements are made by their parts: whatever comes from outside is text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const REFUSED = /^(on|style$|srcdoc$)/i;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "value" || name === "checked" || name === "disabled" || name === "selected") {
      node[name] = value;
    } else if (REFUSED.test(name)) {
      throw new Error(`attribute ${name}`);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(4)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// el("a.quiet", {href: "#/"}, "text", node, [more])
export function el(kind, attributes, ...children) {
  const [name, ...classes] = kind.split(".");
  const node = document.createElement(name || "div");
  if (classes.length) node.className = classes.join(" ");
  return fill(node, attributes, children);
}

export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export function replace(node, ...children) {
  node.replaceChildren();
  add(node, children);
}

export function button(label, onClick, attributes) {
  return el("button", { type: "button", on: { click: onClick }, ...attributes }, label);
}

// What a rapid series of calls should lead to once: at once, and then at most every `pauseMs`.
export function throttled(pauseMs, work) {
  let timer = null;
  let wanted = false;
  let running = false;
  let isStopped = false;
  const run = async () => {
    timer = null;
    wanted = false;
    running = true;
    try {
      await work();
    } finally {
      running = false;
      if (!isStopped) {
        timer = setTimeout(() => {
          timer = null;
          if (wanted) run();
        }, pauseMs);
      }
    }
  };
  const call = () => {
    if (isStopped) return;
    if (timer === null && !running) run();
    else wanted = true;
  };
  call.stop = () => {
    clearTimeout(timer);
    isStopped = true;
  };
  return call;
}

export async function copy(text, control) {
  let told = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS there is no clipboard: the text is selected instead, and Ctrl+C takes it.
    const field = el("textarea.offscreen", { readonly: true, value: text });
    document.body.append(field);
    field.select();
    if (!document.execCommand("copy")) told = "Not copied";
    field.remove();
  }
  control.dataset.label ??= control.textContent; // not what is told of the time before
  control.textContent = told;
  setTimeout(() => { control.textContent = control.dataset.label; }, 1500);
}

// A dialog that can be closed with Escape and gives the focus back.
export function dialog(title, content, actions) {
  const box = el("dialog", { "aria-label": title }, el("h2", null, title), content, el("div.actions", null, actions));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

// Ask before what cannot be undone: true, if the person goes on.
export function confirmed(title, detail, action) {
  return new Promise((resolve) => {
    const box = dialog(title, el("p", null, detail), [
      button("Back", () => box.close()),
      button(action, () => { resolve(true); box.close(); }, { class: "danger" }),
    ]);
    box.addEventListener("close", () => resolve(false));
  });
}
