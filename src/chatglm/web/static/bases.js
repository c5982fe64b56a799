// Files for a base: dropped or chosen, sent one after the other; and what becomes of them.

import { ask, attempt, base, find, make, nodes, words } from "./dom.js";

const [drop, list, sending] = ["#drop", "#files", "#sending"].map((one) => find(one));
const path = location.pathname.slice(base.length);
const queue = []; // [name, file]
let [events, sent] = [null, 0];

function follow() {
  if (events && events.readyState !== EventSource.CLOSED) return;
  events = new EventSource(`${location.pathname}/events${location.search}`);
  events.onmessage = ({ data }) => {
    const { files, summary } = JSON.parse(data);
    find("#summary").innerHTML = summary;
    for (const [id, html] of Object.entries(files)) {
      const old = document.getElementById(id);
      if (!old) list.append(nodes(html));
      else if (!find(".menu[open]", old)) old.replaceWith(nodes(html)); // else somebody is about to press something
    }
    if (list.childElementCount) find("#none")?.remove();
  };
}

function add(files) {
  const idle = !queue.length;
  queue.push(...files.filter(([name]) => !/(^|\/)\./.test(name)));
  if (idle) work();
}

async function work() {
  for (; queue.length; queue.shift()) {
    const [name, file] = queue[0];
    sent += 1;
    sending.hidden = false;
    find(".name", sending).textContent = name;
    find(".place", sending).textContent = `${sent} / ${sent + queue.length - 1}`;
    find("progress", sending).value = (sent - 0.5) / (sent + queue.length - 1);
    try {
      await ask("PUT", `${path}/files?name=${encodeURIComponent(name)}`, file, true);
    } catch (error) {
      const again = make("button", { type: "button", class: "small" }, words.again);
      const line = make("li", { class: "failed" }, make("p", {}, `${name}: ${error.message}`), again);
      again.onclick = () => line.remove() ?? add([[name, file]]);
      find("#refused").append(line);
    }
    follow();
  }
  sending.hidden = true;
  sent = 0;
}

/** The files in what was dropped, folders and all. */
async function walk(entry, folder = "") {
  if (entry.isFile) return add([[folder + entry.name, await new Promise((...ends) => entry.file(...ends))]]);
  const reader = entry.createReader();
  for (let some; (some = await new Promise((...ends) => reader.readEntries(...ends))).length; )
    for (const one of some) await walk(one, `${folder}${entry.name}/`);
}

if (drop) {
  drop.onchange = ({ target }) => {
    add([...target.files].map((file) => [file.webkitRelativePath || file.name, file]));
    target.value = "";
  };
  document.ondragover = (event) => event.preventDefault() ?? drop.classList.add("over");
  document.ondragleave = (event) => event.relatedTarget ?? drop.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    for (const entry of entries) if (entry) attempt(() => walk(entry));
  };
  addEventListener("beforeunload", (event) => queue.length && event.preventDefault());
}
if (list.dataset.busy !== undefined) follow();
document.body.dataset.ready = "";
