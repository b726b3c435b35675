// The picture to begin from: dropped, pasted or chosen.

import { by, element, tell } from "./dom.js";
import * as mask from "./mask.js";

/** Bytes of a file that is sent as it is. Larger ones are made smaller here: a request has 10 MiB at most. */
const AS_IS = 1_500_000;
/** The longer side of what is made smaller: a third more than that of the largest picture that is drawn. */
let longest;
const KINDS = ["image/png", "image/jpeg", "image/webp"];

let chosen;
/** Whether the model can begin from one. */
let offered = true;

/** Says how long the longest side is of what is drawn. */
export function limit(side) {
  longest = Math.round((side * 4) / 3);
  mask.limit(side);
}

/** Whether a picture can be begun from. One that was chosen stays, for a model that can. */
export function offer(may) {
  offered = may;
  by("start").hidden = !may;
}

/** Its data URI; none if there is none. */
export const uri = () => (offered ? chosen : undefined);

/** Whether there is one. */
export const has = () => uri() !== undefined;

/** A data URI as an image that has been decoded. */
export async function decoded(source) {
  const image = element("img", { src: source });
  await image.decode();
  return image;
}

const dataUri = (blob) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(blob);
});

/** The file as it is sent, and what is to be said of it. */
async function prepared(file) {
  if (!KINDS.includes(file.type)) throw new Error(`${file.name || "This"} is no PNG, JPEG or WebP.`);
  const source = await dataUri(file);
  const image = await decoded(source).catch(() => { throw new Error(`${file.name || "The picture"} cannot be read.`); });
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  if (file.size <= AS_IS) return { source, note: `${width} × ${height}` };
  const scale = Math.min(1, longest / Math.max(width, height));
  const canvas = element("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  const context = canvas.getContext("2d");
  // White below what is transparent, as the worker would lay it.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return { source: canvas.toDataURL("image/jpeg", 0.95), note: `${width} × ${height}, sent as ${canvas.width} × ${canvas.height}` };
}

/** Takes a picture by its URI, without a mask; none takes the present one away. Returns its width and height. */
export async function load(source, note) {
  chosen = undefined;
  mask.close();
  tell(by("init_note"), "");
  by("drop").hidden = Boolean(source);
  by("begun").hidden = !source;
  tell(by("fault-init_image"), "");
  if (!source) return undefined;
  const image = await decoded(source);
  chosen = source;
  by("init_image").src = source;
  tell(by("init_note"), note ?? `${image.naturalWidth} × ${image.naturalHeight}`);
  mask.open(image.naturalWidth, image.naturalHeight);
  return [image.naturalWidth, image.naturalHeight];
}

/** Takes files to begin from wherever they are dropped or pasted; `taken` hears of the picture's shape, or that it is gone. */
export function listen(taken) {
  const take = async (file) => {
    if (!file || !offered) return;
    try {
      const { source, note } = await prepared(file);
      taken(await load(source, note));
    } catch (cause) {
      tell(by("fault-init_image"), cause.message);
    }
    by("settings").open = true;
  };
  by("file").onchange = ({ target }) => { take(target.files[0]); target.value = ""; };
  by("unstart").onclick = async () => taken(await load());
  window.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); take(file); }
  });
  const hover = (on) => document.body.classList.toggle("dropping", on);
  window.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    hover(true);
  });
  window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) hover(false); });
  window.addEventListener("drop", (event) => {
    hover(false);
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}
