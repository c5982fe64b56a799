// What all modules share: the page's data, requests, small helpers.

const body = document.body;
export const base = body.dataset.base;
export const words = JSON.parse(document.getElementById("words").textContent);

export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Which conversation this is: "" for one that is not stored yet. */
export const here = {
  id: body.dataset.conversation,
  get path() {
    return `/c/${this.id}`;
  },
};

/** HTML that the server made, as nodes. */
export function nodes(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/** An element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const icon = (name) => nodes(`<svg class="icon" aria-hidden="true"><use href="#i-${name}"/></svg>`);

/** A request; returns the JSON, the text, or null. Throws an Error with a message for people. */
export async function ask(method, path, data, raw = false) {
  const options = { method, headers: { Accept: "application/json, text/html" } };
  if (raw) {
    options.body = data;
    options.headers["Content-Type"] = "application/octet-stream";
  } else if (data !== undefined) {
    options.body = JSON.stringify(data);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(base + path, options);
  } catch {
    throw new Error(words.offline);
  }
  const json = (response.headers.get("content-type") ?? "").includes("json");
  if (response.status === 401) location.assign(`${base}/login`);
  if (!response.ok) {
    const told = json ? (await response.json()).error?.message : "";
    throw new Error(told || words.failed);
  }
  return json ? response.json() : response.text();
}

/** A line above the composer, until the next one. */
export function tell(message = "") {
  find("#status").textContent = message;
}

/** Runs something that may fail, and says so. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    tell(error.message);
    return undefined;
  }
}

/** For screen readers only. */
export function announce(message) {
  find("#heard").textContent = message;
}

/** Keeps a choice of this browser: its language or its colours. */
export const keep = (choice) => attempt(() => ask("POST", "/preferences", choice));

export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "unseen" }); // without TLS there is no clipboard object
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = [...button.childNodes];
  button.replaceChildren(icon("check"));
  announce(words.copied);
  setTimeout(() => button.replaceChildren(...before), 1200);
}

// Safari ends a composition before the Enter that ended it arrives; others mark that Enter.
let composed = -Infinity;
document.addEventListener("compositionend", (event) => (composed = event.timeStamp));

/** Whether a key is one of an input method, and not the person's own. */
export const composing = (event) => event.isComposing || event.keyCode === 229 || event.timeStamp - composed < 50;

/** Whether a key press sends what was written. */
export const sends = (event) => event.key === "Enter" && !event.shiftKey && !event.altKey && !composing(event);
