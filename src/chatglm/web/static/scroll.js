// The log follows its end as long as the reader is there.

import { find } from "./dom.js";

const scroller = find("#scroller");
const latest = find(".latest");
let following = false;

const distance = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;

function show() {
  latest.hidden = following || distance() < 200;
}

export function toEnd() {
  following = find("#log").childElementCount > 0;
  if (following) scroller.scrollTop = scroller.scrollHeight;
  show();
}

/** Shows a turn, wherever it is. */
export function toTurn(element) {
  following = false;
  element.scrollIntoView({ block: "center" });
  show();
}

scroller.addEventListener("scroll", () => {
  following = distance() < 40;
  show();
});
new ResizeObserver(() => {
  if (following) scroller.scrollTop = scroller.scrollHeight;
  show();
}).observe(find("#log"));
new ResizeObserver(() => following && toEnd()).observe(scroller);
