// The page: what its buttons and keys do.

import { all, ask, attempt, composing, copy, find, here, keep, nodes, words } from "./dom.js";
import { edit, startComposer, stored, tryOut } from "./composer.js";
import { again, begin, busy, changed, choose, refreshList, showEarlier, showTitle } from "./log.js";
import { toEnd } from "./scroll.js";
import { settingsOpen, startSettings, toggleSettings } from "./settings.js";

const body = document.body;
const question = find("#question");

function toggleMenu(open = !body.hasAttribute("data-menu")) {
  body.toggleAttribute("data-menu", open);
  find(".shade").hidden = !open;
  find(".bar [data-do=menu]").setAttribute("aria-expanded", open);
  if (open) find("#sidebar .drawer").focus();
  else find(".bar [data-do=menu]").focus();
}

async function stop() {
  if (busy()) await attempt(() => ask("POST", `${here.path}/stop`));
}

function textOf(article) {
  if (article.matches(".user")) return find(".said", article).textContent;
  return all(".part", article)
    .map((part) => find(".raw", part).textContent || find(".text", part).innerText)
    .filter(Boolean)
    .join("\n\n");
}

const acts = {
  menu: () => toggleMenu(),
  search: openSearch,
  keys: () => find("#keys").showModal(),
  settings: () => toggleSettings(),
  "close-settings": () => toggleSettings(false),
  "close-dialog": (button) => button.closest("dialog").close(),
  latest: toEnd,
  stop,
  attach: () => find("#picker").click(),
  import: () => find("#importer").click(),
  try: (button) => tryOut(button.textContent),
  choose: (button) => button.dataset.turn && !busy() && choose(button.dataset.turn),
  edit: (button) => edit(button.closest("article")),
  again: (button) => again(button.closest("article") ?? all("#log .user").at(-1)),
  copy: (button) => copy(textOf(button.closest("article")), button),
  "copy-code": (button) => copy(find("pre", button.parentElement).textContent, button),

  async about() {
    const dialog = find("#about");
    dialog.showModal();
    const html = await attempt(() => ask("GET", "/about"));
    if (html) find(".content", dialog).innerHTML = html;
  },

  async source(link) {
    const dialog = find("#source");
    const html = await attempt(() => ask("GET", `${link.getAttribute("href").slice(body.dataset.base.length)}&bare`));
    find(".content", dialog).innerHTML = html ?? "";
    if (html !== undefined) dialog.showModal();
    find("mark", dialog)?.scrollIntoView({ block: "center" });
  },

  theme() {
    const now = getComputedStyle(document.documentElement).colorScheme;
    const dark = now === "dark" || (now !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    keep({ theme: document.documentElement.dataset.theme });
  },

  async language(button) {
    await keep({ language: button.dataset.language });
    location.reload();
  },

  async rate(button) {
    const article = button.closest("article");
    const value = button.getAttribute("aria-pressed") === "true" ? 0 : Number(button.dataset.rating);
    await attempt(async () => {
      await ask("POST", `${here.path}/rate`, { turn: Number(all(".part", article).at(-1).dataset.turn), rating: value });
      article.dataset.rating = value;
      for (const one of all("[data-do=rate]", article)) one.setAttribute("aria-pressed", Number(one.dataset.rating) === value);
    });
  },

  async permit(button) {
    const buttons = all("button", button.parentElement);
    for (const one of buttons) one.disabled = true;
    const { yes, always } = button.dataset;
    const data = { call: button.closest("[data-call]").dataset.call, yes: Boolean(yes), always: Boolean(always) };
    const told = await attempt(() => ask("POST", `${here.path}/permit`, data));
    if (told === undefined) for (const one of buttons) one.disabled = false;
  },

  async play(button) {
    await attempt(async () => {
      await stored({ character: button.dataset.character });
      location.assign(`${body.dataset.base}${here.path}`);
    });
  },

  async earlier(button) {
    const html = await attempt(() => ask("GET", `${here.path}/turns?before=${button.dataset.before}`));
    if (html !== undefined) showEarlier(button, html);
  },

  async more(button) {
    const html = await attempt(() => ask("GET", `/conversations?before=${encodeURIComponent(button.dataset.before)}`));
    if (html !== undefined) button.replaceWith(nodes(html));
  },

  async delete(button) {
    if (!(await sure(button.getAttribute("aria-label")))) return;
    const { id } = button.dataset;
    await attempt(async () => {
      await ask("DELETE", `/conversations/${id}`);
      if (id === here.id) location.assign(`${body.dataset.base}/new`);
      else await refreshList();
      changed();
    });
  },
};

function sure(text) {
  const dialog = find("#sure");
  find("#sure-text").textContent = text + words.sure;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => (dialog.onclose = () => done(dialog.returnValue === "yes")));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  for (const menu of all("details.menu[open]")) if (!menu.contains(event.target) || event.target.matches("a")) menu.open = false;
  if (event.target.matches("dialog")) event.target.close(); // its backdrop
  if (button?.href && (event.ctrlKey || event.metaKey || event.shiftKey)) return; // in another tab
  if (button?.href) event.preventDefault();
  if (button && !button.matches("form")) acts[button.dataset.do]?.(button);
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-do=observe]");
  if (!form) return;
  event.preventDefault();
  const data = { call: form.closest("[data-call]").dataset.call, text: form.elements.text.value };
  await attempt(() => ask("POST", `${here.path}/observe`, data));
});

document.addEventListener("keydown", (event) => {
  if (composing(event)) return;
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  const dialog = find("dialog[open]");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    if (!dialog) openSearch();
  } else if (dialog || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  } else if (event.key === "Escape") {
    if (body.hasAttribute("data-menu")) toggleMenu(false);
    else if (busy()) stop();
    else if (settingsOpen()) toggleSettings(false);
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    question.focus();
  } else if (event.key === "?" && !typing) {
    acts.keys();
  }
});

// Search

const search = find("#search");
let waiting = 0;

function openSearch() {
  if (body.hasAttribute("data-menu")) toggleMenu(false);
  search.showModal();
  find("input", search).select();
}

async function look() {
  const asked = find("input", search).value.trim();
  const results = find(".results", search);
  if (!asked) {
    results.replaceChildren();
    return;
  }
  const html = await attempt(() => ask("GET", `/conversations?search=${encodeURIComponent(asked)}`));
  if (html !== undefined && asked === find("input", search).value.trim()) results.innerHTML = html;
}

search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(look, 120);
});
search.addEventListener("keydown", (event) => {
  const links = all(".results a", search);
  const place = links.indexOf(document.activeElement);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const next = place + (event.key === "ArrowDown" ? 1 : -1);
    (links[next] ?? find("input", search)).focus();
  } else if (event.key === "Escape" && !composing(event)) {
    event.preventDefault(); // else a first one would only empty the field
    search.close();
  } else if (event.key === "Enter" && event.target.matches("input")) {
    event.preventDefault();
    if (!composing(event)) links[0]?.click();
  }
});
search.addEventListener("click", (event) => {
  const link = event.target.closest(".results a");
  if (link && new URL(link.href).pathname === location.pathname) {
    event.preventDefault(); // only the turn differs, which may be on another branch
    search.close();
    location.assign(link.href);
    location.reload();
  }
});

// The title

const title = find("#title");

function rename() {
  if (!here.id || title.isContentEditable) return;
  const before = title.textContent;
  title.contentEditable = "plaintext-only";
  title.focus();
  getSelection().selectAllChildren(title);
  const end = async (keepIt) => {
    title.onblur = title.onkeydown = null;
    title.removeAttribute("contenteditable");
    const now = title.textContent.replace(/\s+/g, " ").trim();
    title.textContent = before;
    if (!keepIt || !now || now === before) return;
    await attempt(async () => {
      await ask("PATCH", `/conversations/${here.id}`, { title: now });
      showTitle(now);
      await refreshList();
      changed();
    });
  };
  title.onblur = () => end(true);
  title.onkeydown = (event) => {
    if (composing(event)) return;
    if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      end(event.key === "Enter");
      title.focus();
    }
  };
}
title.addEventListener("click", rename);
title.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !title.isContentEditable && !composing(event)) {
    event.preventDefault();
    rename();
  }
});

// Import

const importer = find("#importer");
importer.onchange = () =>
  attempt(async () => {
    const [file] = importer.files;
    if (!file) return;
    importer.value = "";
    const { id } = await ask("POST", `/import?name=${encodeURIComponent(file.name)}`, file, true);
    location.assign(`${body.dataset.base}/c/${id}`);
  });

startSettings();
startComposer();
begin();
body.dataset.ready = "";
