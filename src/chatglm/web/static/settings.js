// The side sheet: every change is stored at once, or kept for a conversation that is not stored yet.

import { ask, find, here, words } from "./dom.js";

const sheet = find("#settings");
const form = find("#settings-form");
const saved = find(".saved", sheet);
const wrong = find("form > .failed", sheet);

/** What is being stored just now. */
export const store = { pending: Promise.resolve() };

/** The settings that the form shows, as the server takes them. */
export function chosen() {
  const settings = { params: {} };
  for (const field of form.elements) {
    if (!field.name || field.name === "tools" || field.name === "knowledge") continue;
    if (field.name.startsWith("params.")) {
      const name = field.name.slice(7);
      if (field.value.trim() === "") continue;
      settings.params[name] = field.dataset.kind === "strings" ? field.value.split("\n").filter(Boolean) : Number(field.value);
    } else settings[field.name] = field.type === "checkbox" ? field.checked : field.value;
  }
  const of = (name) => [...form.elements].filter((field) => field.name === name);
  const ticked = (name) => of(name).filter((field) => field.checked).map((field) => field.value);
  if (of("tools").length) settings.tools = ticked("tools").length === of("tools").length ? null : ticked("tools");
  if (of("knowledge").length) settings.knowledge = ticked("knowledge");
  return settings;
}

/** Stores one setting: the others may have been changed elsewhere, in another tab or by the model's own summary. */
async function change(field) {
  if (!field.checkValidity()) {
    field.reportValidity();
    return;
  }
  const name = field.name.startsWith("params.") ? "params" : field.name;
  if (!here.id) {
    if (name === "mode") location.assign(`${location.pathname}?mode=${field.value}`);
    return;
  }
  const settings = { [name]: chosen()[name] };
  if (name === "model") settings.adapter = "";
  try {
    await ask("PATCH", here.path.replace("/c/", "/conversations/"), { settings });
    if (name === "mode" || name === "model") location.reload(); // adapters, empty states and more follow from them
    wrong.hidden = true;
    saved.textContent = words.saved;
    setTimeout(() => (saved.textContent = ""), 1500);
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
    wrong.scrollIntoView({ block: "nearest" });
  }
}

/** Shows what a page that was just loaded has as the summary, unless somebody is writing there. */
export function showSummary(page) {
  const field = form.elements.summary;
  if (document.activeElement !== field) field.value = page.querySelector("[name=summary]").value;
}

/** Opens or closes the sheet; returns whether it is open. */
export function toggleSettings(open = sheet.hidden) {
  const button = find(".bar [data-do=settings]");
  const was = !sheet.hidden;
  sheet.hidden = !open;
  button.setAttribute("aria-expanded", open);
  if (open) find("select, input", form).focus();
  else if (was) button.focus();
  return open;
}

export const settingsOpen = () => !sheet.hidden;

export function startSettings() {
  form.onsubmit = (event) => event.preventDefault();
  document.addEventListener("change", ({ target }) => {
    if (target.form === form) store.pending = store.pending.then(() => change(target)); // also what stands elsewhere
  });
}
