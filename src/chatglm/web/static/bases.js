// Files for a base: dropped or chosen, sent one after the other; and what becomes of them.

import { ask, attempt, base, find, make, nodes, words } from "./dom.js";

const [drop, list, sending] = ["#drop", "#files", "#sending"].map((one) => find(one));
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
  };
}

async function add(files) {
  const idle = !queue.length;
  queue.push(...files.filter(([name]) => !/(^|\/)\./.test(name)));
  for (; idle && queue.length; queue.shift()) {
    const [[name, file], all] = [queue[0], (sent += 1) + queue.length - 1];
    sending.hidden = false;
    find(".name", sending).textContent = name;
    find(".place", sending).textContent = `${sent} / ${all}`;
    find("progress", sending).value = (sent - 0.5) / all;
    try {
      await ask("PUT", `${location.pathname.slice(base.length)}/files?name=${encodeURIComponent(name)}`, file, true);
    } catch (error) {
      const line = make("li", { class: "failed" }, make("p", {}, `${name}: ${error.message}`), make("button", {}, words.again));
      line.lastChild.onclick = () => line.remove() ?? add([[name, file]]);
      find("#refused").append(line);
    }
    follow();
  }
  if (idle) [sending.hidden, sent] = [true, 0];
}

/** The files in what was dropped, folders and all. */
async function walk(entry, folder = "") {
  if (entry?.isFile) entry.file((file) => add([[folder + entry.name, file]]));
  const reader = entry?.isDirectory && entry.createReader();
  for (let some; reader && (some = await new Promise((...ends) => reader.readEntries(...ends))).length; )
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
    for (const item of event.dataTransfer.items) attempt(() => walk(item.webkitGetAsEntry()));
  };
  addEventListener("beforeunload", (event) => queue.length && event.preventDefault());
}
if (list.dataset.busy !== undefined) follow();
document.body.dataset.ready = "";
