// A mask, painted over the picture to begin from. What is painted is redrawn, whatever colour it is sent in.

import { by, element } from "./dom.js";

/** The longer side of a mask: that of the largest picture. Workers scale it to the size of what is drawn. */
let longest;
/** How many strokes can be undone. */
const KEPT = 20;

const canvas = by("paint");
const context = canvas.getContext("2d", { willReadFrequently: true });
const ring = by("ring");
let before = [];
let last;
let listener = () => {};

const erasing = () => by("erase").getAttribute("aria-pressed") === "true";
const painting = () => by("painting").getAttribute("aria-pressed") === "true";
const pixels = () => context.getImageData(0, 0, canvas.width, canvas.height);

/** Whether anything is painted. Half of full counts, as it does when black is told from white. */
const any = () => pixels().data.some((value, index) => index % 4 === 3 && value >= 128);

/** Whether there may be one. */
export const offer = (may) => { by("painting").hidden = !may; };

/** Says how long the longest side is of what is drawn. */
export const limit = (side) => { longest = side; };

/** A clean mask for a picture of this size. */
export function open(width, height) {
  const scale = Math.min(1, longest / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  before = [];
}

/** Puts the brush away, and the mask. */
export function close() {
  toggle(false);
  open(1, 1);
}

/**
 * The mask as a PNG of `shade` (`black` or `white`) where it is painted, the other elsewhere; none if nothing is. It has no greys, so that
 * it is the same after it was loaded again.
 */
export function uri(shade) {
  if (!any()) return undefined;
  const [painted, ground] = shade === "black" ? [0, 255] : [255, 0];
  const sheet = pixels();
  for (let at = 0; at < sheet.data.length; at += 4) {
    const value = sheet.data[at + 3] >= 128 ? painted : ground;
    sheet.data.set([value, value, value, 255], at);
  }
  const paper = element("canvas", { width: canvas.width, height: canvas.height });
  paper.getContext("2d").putImageData(sheet, 0, 0);
  return paper.toDataURL("image/png");
}

/** A copy of what is painted, filled in one colour: inside of it (`source-in`) or outside (`source-out`). */
function filled(operation, colour) {
  const copy = element("canvas", { width: canvas.width, height: canvas.height });
  const brush = copy.getContext("2d");
  brush.drawImage(canvas, 0, 0);
  brush.globalCompositeOperation = operation;
  brush.fillStyle = colour;
  brush.fillRect(0, 0, copy.width, copy.height);
  return copy;
}

/** Takes a mask by its URI, painted where it has `shade`. A pixel is white from half of full brightness on. */
export async function load(source, shade) {
  const image = element("img", { src: source });
  await image.decode();
  remember();
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const sheet = pixels();
  for (let at = 0; at < sheet.data.length; at += 4) {
    const [red, green, blue] = sheet.data.subarray(at, at + 3);
    const white = 0.299 * red + 0.587 * green + 0.114 * blue >= 128;
    sheet.data.set(white === (shade === "white") ? [...COLOUR, 255] : [0, 0, 0, 0], at);
  }
  context.putImageData(sheet, 0, 0);
  toggle(true);
}

/** What painted looks like. Half transparent by the style sheet, so that strokes that cross do not add up. */
const COLOUR = [224, 64, 96];

function remember() {
  before.push(pixels());
  if (before.length > KEPT) before.shift();
}

function replace(copy) {
  remember();
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (copy) context.drawImage(copy, 0, 0);
  listener();
}

function toggle(on) {
  by("painting").setAttribute("aria-pressed", on);
  by("brushes").hidden = !on;
  canvas.classList.toggle("on", on);
  ring.hidden = true;
}

/** Where on the mask a pointer is, and how wide the brush is there. */
function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale, wide: Number(by("brush").value) * scale };
}

function stroke(event) {
  const { x, y, wide } = place(event);
  context.globalCompositeOperation = erasing() ? "destination-out" : "source-over";
  context.strokeStyle = `rgb(${COLOUR.join(" ")})`;
  context.lineWidth = wide;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(last?.x ?? x, last?.y ?? y);
  // A line of no length would leave nothing.
  context.lineTo(x + 0.01, y);
  context.stroke();
  context.globalCompositeOperation = "source-over";
  last = { x, y };
}

function follow(event) {
  const box = canvas.getBoundingClientRect();
  const wide = Number(by("brush").value);
  ring.hidden = !painting() || event.pointerType === "touch";
  Object.assign(ring.style, {
    width: `${wide}px`, height: `${wide}px`,
    left: `${event.clientX - box.left - wide / 2}px`, top: `${event.clientY - box.top - wide / 2}px`,
  });
}

/** Lets a person paint; `changed` hears of it. */
export function listen(changed) {
  listener = changed;
  canvas.onpointerdown = (event) => {
    if (!painting() || event.button > 0) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = undefined;
    stroke(event);
  };
  canvas.onpointermove = (event) => {
    follow(event);
    if (last) for (const part of event.getCoalescedEvents?.() ?? [event]) stroke(part);
  };
  canvas.onpointerup = canvas.onpointercancel = () => { if (last) { last = undefined; changed(); } };
  canvas.onpointerleave = () => { ring.hidden = true; };
  by("painting").onclick = () => toggle(!painting());
  by("erase").onclick = () => by("erase").setAttribute("aria-pressed", !erasing());
  by("undo").onclick = () => { const sheet = before.pop(); if (sheet) { context.putImageData(sheet, 0, 0); changed(); } };
  by("clear").onclick = () => replace();
  by("invert").onclick = () => replace(filled("source-out", `rgb(${COLOUR.join(" ")})`));
  by("mask_file").onchange = async ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (!file) return;
    const place = URL.createObjectURL(file);
    await load(place, by("mask_repaint").value).catch(() => {
      by("fault-mask").textContent = `${file.name} cannot be read.`;
      by("fault-mask").hidden = false;
    });
    URL.revokeObjectURL(place);
    changed();
  };
}
