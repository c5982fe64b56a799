// Turns on the page, and the answer that is being made: events of the server become elements of the log.

import { all, announce, ask, attempt, base, find, here, icon, make, nodes, tell, words } from "./dom.js";
import { toEnd, toTurn } from "./scroll.js";
import { showSummary } from "./settings.js";

const log = find("#log");
const tabs = new BroadcastChannel("chatglm");
const PATIENCE = 15_000; // milliseconds without a connection
let source = null;
let open = null; // the block that is being written: {turn, raw, shown, element, text}
let frame = 0;
const written = new Map(); // what was written of each turn, for copying

export const busy = () => source !== null;

function setBusy(value) {
  find("#stop").hidden = !value;
  find("#send").hidden = value;
  document.body.toggleAttribute("data-busy", value);
}

/** A copy button on each piece of code that came as Markdown. */
function dress(root) {
  for (const code of all(".text .code", root)) {
    if (find(":scope > button", code)) continue;
    const button = make("button", { type: "button", class: "quiet", "data-do": "copy-code", "aria-label": words.copy });
    button.append(icon("copy"));
    code.append(button);
  }
}

const partOf = (turn) => find(`.part[data-turn="${turn}"]`, log);
const current = () => all(".answer[data-open]", log).at(-1);

// The open block: text is appended once a frame.

function draw() {
  cancelAnimationFrame(frame);
  frame = 0;
  if (!open) return;
  // Ends of lines and fences are held back until something follows, so that nothing is shown that goes away again.
  let shown = open.raw.replace(/^\n+/, "").replace(/[\n`~]+$/, "");
  const fence = /^ {0,3}(```|~~~)[^\n]*\n?/.exec(shown);
  open.element.classList.toggle("code-block", fence !== null);
  if (fence) shown = shown.slice(fence[0].length);
  if (shown.startsWith(open.text.data)) open.text.appendData(shown.slice(open.text.data.length));
  else open.text.data = shown;
}

function write(turn, text) {
  if (open?.turn !== turn) {
    close();
    const part = partOf(turn);
    if (!part) return;
    open = { turn, raw: "", text: new Text(), element: make("div", { class: "open", "aria-live": "off", dir: "auto" }) };
    open.element.append(open.text);
    find(".text", part).append(open.element);
  }
  open.raw += text;
  frame ||= requestAnimationFrame(draw);
}

function close() {
  cancelAnimationFrame(frame);
  frame = 0;
  open?.element.remove();
  open = null;
}

// Calls

function put(turn, call, html) {
  const made = nodes(html);
  const element = made.firstElementChild;
  const old = find(`[data-call="${CSS.escape(call)}"]`, log);
  if (old) {
    const [was, is] = [find("details", old), find("details", element)];
    if (was && is) is.open ||= was.open;
    const focused = old.contains(document.activeElement);
    old.replaceWith(element);
    if (focused) find("summary", element)?.focus();
  } else {
    const part = partOf(turn) ?? all(".part", log).at(-1);
    const writing = part && find(".calls > [data-index]", part);
    if (writing) writing.replaceWith(element);
    else if (part) find(".calls", part).append(element);
  }
}

/** Takes the empty state away; the bases that are ticked in it stand in the settings from now on. */
const begun = () => find("#knowledge").append(...all(".empty .bases li > *")) ?? find(".empty")?.remove();

const heard = {
  began(data) {
    draw();
    written.delete(data.turn);
    if (!data.html) return;
    const element = nodes(data.html).firstElementChild;
    begun();
    close();
    if (data.role === "user") {
      const old = find(`.user[data-turn="${data.turn}"]`, log);
      if (old) old.replaceWith(element);
      else log.append(element);
      return;
    }
    const old = partOf(data.turn);
    if (element.matches(".answer")) {
      if (old) old.closest(".answer").replaceWith(element);
      else log.append(element);
    } else if (old) old.replaceWith(element);
    else find(".parts", all(".answer", log).at(-1)).append(element);
  },

  text(data) {
    written.set(data.turn, (written.get(data.turn) ?? "") + data.text);
    write(data.turn, data.text);
  },

  block(data) {
    const part = partOf(data.turn);
    if (!part) return;
    close();
    const made = nodes(data.html);
    dress(made);
    find(".text", part).append(made);
    dress(part);
    if (data.rest?.trim()) {
      write(data.turn, data.rest);
      draw();
    }
  },

  turn(data) {
    if (open?.turn === data.turn) close();
    const text = partOf(data.turn) && find(".text", partOf(data.turn));
    if (!text) return;
    const made = make("div");
    made.innerHTML = data.html;
    const undressed = text.cloneNode(true);
    for (const button of all(".code > button", undressed)) button.remove();
    if (undressed.innerHTML.trim() !== made.innerHTML.trim()) text.replaceChildren(...made.childNodes);
    dress(text.parentElement);
    find(".raw", text.parentElement).textContent = written.get(data.turn) ?? "";
  },

  calling(data) {
    const part = partOf(data.turn);
    if (!part) return;
    if (open?.turn === data.turn) draw();
    const calls = find(".calls", part);
    let element = find(`[data-index="${data.index}"]`, calls);
    if (!element) {
      element = find("#writing").content.firstElementChild.cloneNode(true);
      element.dataset.index = data.index;
      calls.append(element);
    }
    if (data.name) {
      const code = data.name === "interpreter" || data.name === "python";
      element.classList.toggle("cell", code);
      find("details", element).open = code;
      find(".name", element).textContent = code ? "Python" : data.name;
    }
    find("code", element).append(data.arguments);
  },

  called: (data) => data.html && put(data.turn, data.call, data.html),

  asked(data) {
    if (data.html) put(data.turn, data.call, data.html);
    announce(words.asks);
  },

  output(data) {
    const pre = find(`[data-call="${CSS.escape(data.call)}"] .output`, log);
    if (!pre) return;
    pre.parentElement.hidden = false;
    pre.append(data.text);
    if (pre.childNodes.length > 200) pre.textContent = pre.textContent.slice(-65536);
    pre.scrollTop = pre.scrollHeight;
  },

  async answered(data) {
    if (!data.html) return;
    const loading = all("img", nodes(data.html)).map((image) => {
      const picture = new Image();
      picture.src = image.getAttribute("src");
      return picture.decode().catch(() => {});
    });
    // Pictures are there before their place is made, so that nothing moves when they come.
    if (loading.length) await Promise.race([Promise.all(loading), new Promise((done) => setTimeout(done, 1500))]);
    put(data.turn, data.call, data.html);
  },

  note(data) {
    if (data.html) (current() ? find(".parts", current()) : log).append(nodes(data.html));
    if (data.code === "summary") page().then(showSummary, () => {});
  },

  sources(data) {
    const part = partOf(data.turn);
    if (!part || !data.html) return;
    find(".sources", part)?.remove();
    part.prepend(nodes(data.html));
  },

  cited: (data) => partOf(data.turn)?.append(nodes(data.html)),

  title(data) {
    showTitle(data.title);
    refreshList();
  },

  done(data) {
    const article = current();
    if (article) {
      const why = { stopped: words.stopped, length: words.length }[data.finish];
      if (why && !find(".parts > .note[data-code=finish]", article))
        find(".parts", article).append(make("p", { class: "note", "data-code": "finish" }, why));
      const facts = data.seconds < 0.05 ? [] : [`${data.seconds.toFixed(1)} s`];
      if (data.completion_tokens) facts.push(`${data.completion_tokens} ${words.tokens}`);
      find(".meta", article).textContent = facts.join(" · ");
    }
    ended();
    announce(words.done);
  },

  failed(data) {
    close();
    const article = current();
    if (data.html) (article ? find(".parts", article) : log).append(nodes(data.html));
    else tell(data.message);
    ended();
  },
};

function ended() {
  draw();
  source?.close();
  source = null;
  setBusy(false);
  for (const element of all("[data-open]", log)) element.removeAttribute("data-open");
  for (const call of all(".call:is([data-state=running], [data-state=permission], [data-state=observation])", log)) {
    call.dataset.state = "stopped";
    find(".state", call).textContent = words.stopped;
    find(".consent", call)?.remove();
  }
  for (const caret of all(".open", log)) if (!caret.textContent) caret.remove();
  open = null;
  refreshList();
  changed();
}

/** Listens to the answer that is being made. After a lost connection the browser asks again from the last event on. */
export function follow(after) {
  source?.close();
  source = new EventSource(`${base}${here.path}/events?after=${after}`);
  setBusy(true);
  for (const [kind, act] of Object.entries(heard)) source.addEventListener(kind, (event) => act(JSON.parse(event.data)));
  const mine = source;
  let lost = false;
  let patience = 0;
  source.onopen = () => {
    clearTimeout(patience);
    if (lost) tell();
    lost = false;
  };
  source.onerror = () => {
    if (source !== mine) return;
    if (mine.readyState === EventSource.CLOSED) return again();
    lost = true;
    tell(words.offline);
    // The browser tries again by itself, but a connection that is accepted and never answered holds it for ever.
    clearTimeout(patience);
    patience = setTimeout(again, PATIENCE);
  };
  // The server knows no such answer (it ended while nobody listened, or the server was started again), or is silent.
  async function again() {
    clearTimeout(patience);
    if (source !== mine || mine.readyState === EventSource.OPEN) return;
    mine.close();
    source = null;
    while (!(await refresh())) {
      lost = true;
      tell(words.offline);
      await new Promise((done) => setTimeout(done, 2000));
    }
    if (busy()) return tell();
    setBusy(false);
    tell(lost ? words.restarted : "");
  }
}

/** Shows the conversation as the server has it now; false if the server cannot be reached. */
export async function refresh() {
  try {
    const now = await page();
    close();
    log.replaceChildren(...find("#log", now).childNodes);
    if (log.childElementCount) begun();
    dress(log);
    showTitle(find("#title", now).textContent);
    showSummary(now);
    if (now.body.dataset.running !== undefined && !busy()) follow(now.body.dataset.running);
    return true;
  } catch (error) {
    return error.final === true;
  }
}

/** This conversation's page as the server has it now. */
async function page() {
  const options = { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(4 * PATIENCE) };
  const response = await fetch(`${base}${here.path}`, options);
  if (!response.ok) throw Object.assign(new Error(words.failed), { final: response.status < 500 });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** Turns before the first one that is shown; what is in view stays where it is. */
export function showEarlier(button, html) {
  const [next, scroller] = [button.nextElementSibling, find("#scroller")];
  const below = next.getBoundingClientRect().top;
  const made = nodes(html);
  dress(made);
  button.replaceWith(made);
  scroller.scrollTop += next.getBoundingClientRect().top - below;
  next.querySelector("button")?.focus({ preventScroll: true });
}

/** Begins an answer: `send` a question, or `again` with a turn. */
export async function answer(path, data) {
  const { after } = await ask("POST", `${here.path}/${path}`, data);
  tell();
  follow(after);
  toEnd();
  changed();
}

/** A new answer to the question of a turn; with a text, to another question in its place. */
export async function again(article, text) {
  if (busy()) return;
  const question = article.matches(".user") ? article : find(`.user[data-turn="${article.dataset.question}"]`, log);
  const turn = Number(question ? question.dataset.turn : all(".part", article)[0].dataset.turn);
  await attempt(async () => {
    await answer("again", text === undefined ? { turn } : { turn, text });
    const first = text === undefined && question ? question.nextElementSibling : question ?? article;
    for (let next = first; next; ) {
      const gone = next;
      next = next.nextElementSibling;
      gone.remove();
    }
  });
}

export async function choose(turn) {
  await attempt(async () => {
    await ask("POST", `${here.path}/choose`, { turn: Number(turn) });
    await refresh();
    const element = partOf(turn)?.closest("article") ?? find(`.user[data-turn="${turn}"]`, log);
    if (element) {
      toTurn(element);
      find(".branch button:enabled", element)?.focus();
    }
    changed();
  });
}

// The list of conversations, the title, other tabs

export function showTitle(title) {
  const heading = find("#title");
  if (!title || heading.isContentEditable) return;
  heading.textContent = title;
  document.title = `${title} · chatglm`;
  const shown = find(`#conversations a[data-id="${here.id}"] .title`);
  if (shown) shown.textContent = title;
}

export async function refreshList() {
  try {
    find("#conversations").innerHTML = await ask("GET", "/conversations");
  } catch {
    return; // the list is as old as it was
  }
  const link = here.id && find(`#conversations a[data-id="${here.id}"]`);
  if (!link) return;
  link.setAttribute("aria-current", "page");
  link.parentElement.classList.add("current");
}

/** Tells other tabs that this conversation has changed. */
export function changed() {
  tabs.postMessage(here.id);
}

tabs.onmessage = (event) => {
  refreshList();
  if (event.data && event.data === here.id && !busy()) refresh();
};

/** At the start: the end of the log, or the turn that the address names, on whatever branch. */
export function begin() {
  dress(log);
  const turn = /^#t(\d+)$/.exec(location.hash)?.[1];
  const running = document.body.dataset.running;
  if (running !== undefined) follow(running);
  if (!turn) toEnd();
  else if (find(location.hash)) toTurn(find(location.hash));
  else choose(turn);
}
