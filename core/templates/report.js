"use strict";
// A link into a collapsed trajectory opens it; without scripts, the reader opens it by hand.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

const box = document.getElementById("filter");
box.hidden = false;
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/);
  for (const item of document.querySelectorAll("details.trajectory")) {
    const text = item.querySelector("summary").textContent.toLowerCase();
    item.hidden = !words.every((word) => text.includes(word));
  }
});
