// The log follows its end as long as the reader is there.

import { find } from "./dom.js";

const log = find("#log");
const scroller = find("#scroller");
const latest = find(".latest");
let following = true;

const distance = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;

function show() {
  latest.hidden = following || distance() < 200;
}

function keepUp() {
  if (following && log.childElementCount) scroller.scrollTop = scroller.scrollHeight;
  show();
}

export function toEnd() {
  following = true;
  keepUp();
}

/** Shows a turn, wherever it is. */
export function toTurn(element) {
  following = false;
  element.scrollIntoView({ block: "center" });
  show();
}

// Text that has come since the last frame is no sign that the reader has left the end; going up is.
let top = 0;
scroller.addEventListener("scroll", () => {
  if (distance() < 40) following = true;
  else if (scroller.scrollTop < top) following = false;
  top = scroller.scrollTop;
  show();
});
const sizes = new ResizeObserver(keepUp);
sizes.observe(log);
sizes.observe(scroller);
