// Where one writes: the question, files with it, keys of input methods.

import { all, ask, attempt, find, here, icon, make, sends, tell, words } from "./dom.js";
import { again, answer, busy } from "./log.js";
import { chosen, store } from "./settings.js";

const form = find("#composer");
const question = find("#question");
const chips = find("#uploads");
const draft = () => `draft ${here.id}`;
let uploads = []; // {file, name, chip, stored: whether the server has it}
let sending = false;

let making = null;

/** Makes sure that the conversation is stored, with these settings besides those of the sheet. */
export function stored(more = {}) {
  if (here.id) return Promise.resolve();
  making ??= makeIt(more).finally(() => (making = null));
  return making;
}

async function makeIt(more) {
  const { id } = await ask("POST", "/conversations", { settings: { ...chosen(), ...more } });
  here.id = id;
  document.body.dataset.conversation = id;
  history.replaceState(null, "", `${location.pathname.replace(/\/(new)?$/, "")}/c/${id}`);
  for (const link of all("#export a")) link.href = `${location.pathname}/export?form=${link.dataset.form}`;
  find("#export").hidden = false;
  find("#title").tabIndex = 0;
}

function grow() {
  if (CSS.supports("field-sizing", "content")) return;
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

async function send() {
  const text = question.value.trim();
  if (busy() || sending || !text) return;
  sending = true;
  const [sent, files, kept] = [question.value, [...uploads], draft()];
  question.value = "";
  grow();
  try {
    await store.pending;
    await stored();
    for (const one of files) await put(one);
    await answer("send", { text, files: files.map((one) => one.name) });
    uploads = uploads.filter((one) => !files.includes(one)); // others may have come meanwhile
    for (const one of files) one.chip.remove();
    if (!question.value) sessionStorage.removeItem(kept);
  } catch (error) {
    question.value = question.value ? `${sent}\n${question.value}` : sent; // nothing that was written is lost
    grow();
    tell(error.message);
  }
  sending = false;
}

/** Files go to the server with the question, so that one that is taken back is nowhere. */
async function put(one) {
  if (one.stored) return;
  one.chip.dataset.state = "sending";
  find("button", one.chip).replaceWith(make("progress", { "aria-label": words.sending }));
  try {
    const told = await ask("PUT", `${here.path}/files/${encodeURIComponent(one.name)}`, one.file, true);
    one.name = told?.name ?? one.name;
    one.stored = true;
    find("progress", one.chip).remove();
  } catch (error) {
    uploads = uploads.filter((other) => other !== one);
    one.chip.remove();
    throw new Error(`${one.name}: ${error.message}`);
  }
}

export function upload(files) {
  for (const file of files) {
    const pasted = /^image\.\w+$/.test(file.name);
    const name = pasted ? file.name.replace("image", `image-${Date.now() % 1e8}`) : file.name;
    const remove = make("button", { type: "button", class: "quiet", "aria-label": `${words.remove} ${name}` });
    remove.append(icon("close"));
    const chip = make("li", { class: "file" }, icon("file"), make("span", {}, name), remove);
    const one = { file, name, chip, stored: false };
    remove.onclick = () => {
      uploads = uploads.filter((other) => other !== one);
      chip.remove();
      question.focus();
    };
    uploads.push(one);
    chips.append(chip);
  }
}

/** The question of a turn as a form in its place. */
export function edit(article) {
  if (busy() || find(".edit", article)) return;
  const said = find(".said", article);
  const area = make("textarea", { "aria-label": words.edit, dir: "auto" });
  area.value = said.textContent;
  const cancel = make("button", { type: "button" }, words.cancel);
  const editor = make("form", { class: "edit" }, area, make("div", { class: "row" }, cancel, make("button", { class: "primary" }, words.send)));
  const back = () => {
    editor.replaceWith(said);
    find(".actions", article).hidden = false;
    question.focus();
  };
  cancel.onclick = back;
  editor.onsubmit = (event) => {
    event.preventDefault();
    const text = area.value.trim();
    if (text && text !== said.textContent) again(article, text);
    else back();
  };
  editor.onkeydown = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      back();
    } else if (event.target === area && sends(event)) {
      event.preventDefault();
      editor.requestSubmit();
    }
  };
  said.replaceWith(editor);
  find(".actions", article).hidden = true;
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

/** Sends a text as if it had been written. */
export function tryOut(text) {
  question.value = text;
  send();
}

export function startComposer() {
  question.value ||= sessionStorage.getItem(draft()) ?? "";
  grow();
  form.onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  form.onclick = (event) => event.target === form && question.focus();
  question.oninput = () => {
    grow();
    sessionStorage.setItem(draft(), question.value);
  };
  question.onkeydown = (event) => {
    if (sends(event)) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && !question.value && !event.isComposing) {
      const last = all("#log .user").at(-1);
      if (last) {
        event.preventDefault();
        edit(last);
      }
    }
  };
  question.onpaste = (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    upload(event.clipboardData.files);
  };
  const picker = find("#picker");
  picker.onchange = () => {
    upload([...picker.files]);
    picker.value = "";
    question.focus();
  };
  const main = find("main");
  main.ondragover = (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    form.classList.add("over");
  };
  main.ondragleave = (event) => main.contains(event.relatedTarget) || form.classList.remove("over");
  main.ondrop = (event) => {
    form.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    attempt(async () => upload(event.dataTransfer.files));
  };
  if (matchMedia("(hover: hover)").matches && !location.hash) question.focus({ preventScroll: true });
}
