// Links rows and shapes, hides shapes by label and type, zooms, and steps through frames. Every page works without it.
"use strict";

const every = (selector, root = document) => [...root.querySelectorAll(selector)];

// Rows and shapes mark each other: by the pointer and by the keyboard.

const positionOf = (target) => {
  const found = target.closest?.("[data-annotation], tr[data-row]");
  return found ? (found.dataset.row ?? found.dataset.annotation) : null;
};

function mark(position, on) {
  const name = CSS.escape(position);
  every(`[data-annotation="${name}"], tr[data-row="${name}"]`).forEach((one) => one.classList.toggle("marked", on));
}

for (const [begin, end] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(begin, (event) => { const at = positionOf(event.target); if (at !== null) mark(at, true); });
  document.addEventListener(end, (event) => { const at = positionOf(event.target); if (at !== null) mark(at, false); });
}

// Checkboxes hide and show shapes. What is hidden stays hidden in the next frame.

const hidden = { label: new Set(), type: new Set() };

function hideUnchecked() {
  every("svg [data-annotation], mark[data-annotation]").forEach((shape) => {
    const off = hidden.label.has(shape.dataset.label) || hidden.type.has(shape.dataset.type);
    if (shape.localName === "mark") shape.classList.toggle("off", off);
    else shape.toggleAttribute("hidden", off);
  });
}

document.addEventListener("change", ({ target }) => {
  if (!target.dataset?.hides) return;
  hidden[target.dataset.hides][target.checked ? "delete" : "add"](target.value);
  hideUnchecked();
});

// Without zoom, the whole picture is seen: a high one is not as wide as its place.

let zoom = 1;
const MAX_HEIGHT = 0.8; // of the window, as in the style sheet

function applyZoom() {
  every("[data-stack]").forEach((stack) => {
    const { width, height } = stack.querySelector("svg").viewBox.baseVal;
    const fitting = Math.min(1, MAX_HEIGHT * innerHeight * width / height / stack.parentElement.clientWidth);
    stack.style.width = `${zoom * fitting * 100}%`;
  });
}

window.addEventListener("resize", applyZoom);

document.addEventListener("click", ({ target }) => {
  const factor = Number(target.closest?.("[data-zoom]")?.dataset.zoom);
  if (!factor) return;
  zoom = Math.min(20, Math.max(1, zoom * factor));
  applyZoom();
});

// The picture is dragged where it is larger than its place.

document.addEventListener("pointerdown", (start) => {
  const picture = start.target.closest?.(".picture");
  if (!picture || zoom === 1 || start.button !== 0) return;
  const { scrollLeft, scrollTop } = picture;
  const drag = (move) => {
    picture.scrollLeft = scrollLeft - (move.clientX - start.clientX);
    picture.scrollTop = scrollTop - (move.clientY - start.clientY);
  };
  document.addEventListener("pointermove", drag);
  document.addEventListener("pointerup", () => document.removeEventListener("pointermove", drag), { once: true });
});

// What a page of bounded size leaves out: first the shapes, then the rows.

async function loadShapes(svg) {
  const answer = await fetch(svg.dataset.more);
  if (!answer.ok) return;
  const loaded = new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
  svg.replaceChildren(...loaded.childNodes);
  hideUnchecked();
}

async function loadRows(body) {
  const answer = await fetch(body.dataset.moreRows);
  if (answer.ok) body.innerHTML = await answer.text();
}

function explain(image) {
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.textContent = "The attachment cannot be shown: it cannot be fetched any more. If its address was presigned, it may have expired.";
  image.closest(".picture").before(notice);
  image.remove();
}

function seek(video) {
  const at = () => { if (video.dataset.time) video.currentTime = Number(video.dataset.time); };
  const measure = () => {
    video.nextElementSibling.setAttribute("viewBox", `0 0 ${video.videoWidth} ${video.videoHeight}`);
    applyZoom();
    at();
  };
  if (video.readyState) measure(); else video.addEventListener("loadedmetadata", measure, { once: true });
}

async function prepare(root) {
  every("[data-toggles]", root).forEach((toggles) => { toggles.hidden = false; });
  every("input[data-hides]", root).forEach((box) => { box.checked = !hidden[box.dataset.hides].has(box.value); });
  every(".stack img", root).forEach((image) => {
    if (image.complete && !image.naturalWidth) explain(image);
    else image.addEventListener("error", () => explain(image), { once: true });
  });
  every(".stack video", root).forEach(seek);
  applyZoom();
  hideUnchecked();
  await Promise.all(every("svg[data-more]", root).map(loadShapes));
  await Promise.all(every("tbody[data-more-rows]", root).map(loadRows));
}

// Frames and pages: the slider exchanges what belongs to one of them, and keeps the focus.

let wanted = 0;

async function show(address) {
  const turn = ++wanted;
  const answer = await fetch(address);
  if (!answer.ok || turn !== wanted) return;
  const loaded = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-place]");
  const present = document.querySelector("[data-place]");
  if (turn !== wanted || !loaded) return;
  const had = document.activeElement?.id;
  present.replaceWith(loaded);
  if (had) document.getElementById(had)?.focus();
  history.replaceState(null, "", address);
  prepare(loaded);
  loaded.dispatchEvent(new CustomEvent("console:place", { bubbles: true }));
}

document.addEventListener("input", ({ target }) => {
  const form = target.closest?.("form[data-places]");
  if (form) show(`${location.pathname}?${new URLSearchParams(new FormData(form))}`);
});

// A hidden tab asks for nothing.
document.addEventListener("htmx:before:request", (event) => { if (document.hidden) event.preventDefault(); });

prepare(document);
