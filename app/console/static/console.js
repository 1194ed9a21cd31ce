// Links rows and shapes, hides shapes by label and type, zooms, and steps through frames. Every page works without it.
"use strict";

const stack = document.querySelector("[data-stack]");
const toggles = document.querySelector("[data-toggles]");
const shapesOf = (position) => document.querySelectorAll(`[data-annotation="${CSS.escape(position)}"]`);
const rowOf = (position) => document.querySelector(`[data-row="${CSS.escape(position)}"]`)?.closest("tr");

function mark(position, on) {
  shapesOf(position).forEach((shape) => shape.classList.toggle("marked", on));
  rowOf(position)?.classList.toggle("marked", on);
}

function link(target, position) {
  target.addEventListener("mouseenter", () => mark(position, true));
  target.addEventListener("mouseleave", () => mark(position, false));
  target.addEventListener("focusin", () => mark(position, true));
  target.addEventListener("focusout", () => mark(position, false));
}

function linkShapes() {
  document.querySelectorAll("[data-annotation]").forEach((shape) => link(shape, shape.dataset.annotation));
}

function hideUnchecked() {
  const off = { label: new Set(), type: new Set() };
  document.querySelectorAll("input[data-hides]:not(:checked)").forEach((box) => off[box.dataset.hides].add(box.value));
  document.querySelectorAll("svg [data-annotation]").forEach((shape) => {
    shape.toggleAttribute("hidden", off.label.has(shape.dataset.label) || off.type.has(shape.dataset.type));
  });
}

async function loadAllShapes(svg) {
  const answer = await fetch(svg.dataset.more);
  if (!answer.ok) return;
  const loaded = new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
  svg.replaceChildren(...loaded.childNodes);
  linkShapes();
  hideUnchecked();
}

document.querySelectorAll("[data-row]").forEach((button) => link(button.closest("tr"), button.dataset.row));
linkShapes();

if (toggles) {
  toggles.hidden = false;
  toggles.addEventListener("change", hideUnchecked);
  let zoom = 1;
  toggles.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    zoom = Math.min(20, Math.max(1, zoom * Number(button.dataset.zoom)));
    stack.style.width = `${zoom * 100}%`;
  }));
}

document.querySelectorAll("svg[data-more]").forEach(loadAllShapes);

document.querySelectorAll("form[data-frames]").forEach((form) => {
  form.querySelector("input[type=range]").addEventListener("change", () => form.requestSubmit());
});
