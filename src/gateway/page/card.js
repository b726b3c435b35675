// What is seen of a job: a card with its progress and then its pictures.

import { curlBox } from "./curl.js";
import { button, element, tell } from "./dom.js";
import { facts, newSeed } from "./form.js";
import { view } from "./viewer.js";

/** Each state in words, for a person. */
const WORDS = {
  SENDING: () => "Sending …",
  IN_QUEUE: () => "Waiting for a worker",
  IN_PROGRESS: ({ progress }) => (progress ? `Drawing, ${progress.evaluation} of ${progress.total}` : "Drawing"),
  COMPLETED: ({ took }) => `Done in ${seconds(took)}`,
  FAILED: () => "Failed",
  CANCELLED: () => "Cancelled",
  TIMED_OUT: () => "Out of time",
  GONE: () => "Lost",
};

const seconds = (time) => (time < 10_000 ? `${(time / 1000).toFixed(1)} s` : `${Math.round(time / 1000)} s`);

/** A file's name: the prompt as far as a file can be called so, and the seed. */
const fileName = (prompt, seed) => {
  const slug = prompt.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").slice(0, 60).replace(/^-|-$/g, "");
  return `${slug || "picture"}-${seed}.png`;
};

/** The card of a job. `put` takes an input back into the form; `begin` takes a picture to begin from. */
export function card(job, { put, begin, gone }) {
  const { input } = job;
  const state = element("p", { class: "stands" });
  const bar = element("progress", { max: 1, "aria-label": "Progress" });
  const stage = element("div", { class: "stage" });
  const fault = element("p", { class: "fault", hidden: true });
  const note = element("p", { class: "note", hidden: true });
  const cancel = button("Cancel", () => job.cancel(), { class: "quiet" });
  const again = button("Again", () => put(input), { class: "quiet", title: "All of its inputs, back into the form" });
  const more = element("div");
  const curl = button("curl", () => {
    const open = more.childElementCount === 0;
    more.replaceChildren(...(open ? [curlBox(job)] : []));
    curl.setAttribute("aria-expanded", open);
  }, { class: "quiet", "aria-expanded": "false", title: "The same request for a terminal" });
  const remove = button("✕", () => { release(stage); root.remove(); gone(); }, { class: "quiet", "aria-label": "Remove this card", title: "Remove" });
  const root = element("article", { class: "card", "aria-label": input.prompt || "no prompt" },
    element("header", {}, element("h3", {}, input.prompt || "(no prompt)"), element("div", { class: "tools" }, cancel, again, curl, remove)),
    element("p", { class: "facts" }, facts(input).join(" · ")),
    element("div", { class: "line" }, state, bar), fault, note, stage, more);
  if (input.negative_prompt) root.querySelector(".facts").append(` · not: ${input.negative_prompt}`);
  stage.append(...places(input));

  const refresh = () => {
    root.dataset.state = job.state;
    state.textContent = (WORDS[job.state] ?? (() => job.state))(job);
    bar.hidden = job.ended;
    if (job.progress) bar.value = job.progress.evaluation / job.progress.total;
    else bar.removeAttribute("value");
    cancel.hidden = job.ended || !job.id;
    remove.hidden = !job.ended;
    tell(fault, job.trouble || job.errors.join("\n"));
    tell(note, job.warnings.join("\n"));
    if (!job.ended) return look(stage, job.progress?.preview);
    release(stage);
    stage.replaceChildren(...job.pictures.map((picture) => figure(job, picture, { put, begin })));
  };
  job.news = refresh;
  refresh();
  return root;
}

/** Empty places for the pictures, in their shape. */
function places({ width, height, num_outputs: count = 1 }) {
  return Array.from({ length: count }, () => {
    const place = element("div", { class: "place" });
    if (width) place.style.aspectRatio = `${width} / ${height}`;
    return place;
  });
}

/** The picture as it is so far, in the first place. */
function look(stage, preview) {
  if (typeof preview !== "string" || !preview.startsWith("data:image/")) return;
  const place = stage.firstElementChild;
  const image = place.firstElementChild ?? place.appendChild(element("img", { class: "preview", alt: "The picture so far" }));
  if (image.src !== preview) image.src = preview;
}

/** The file in a text; none if it holds none. */
function blobOf(base64) {
  try {
    const text = atob(base64.replace(/^data:[^,]*,/, ""));
    return new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type: "image/png" });
  } catch {
    return undefined;
  }
}

/** Frees what the pictures of a stage hold. */
function release(stage) {
  for (const image of stage.querySelectorAll("img[src^='blob:']")) URL.revokeObjectURL(image.src);
}

/** A picture with its seed and what can be done with it. */
function figure({ input }, { image, seed: told }, { put, begin }) {
  const seed = /^\d+$/.test(told) ? String(told) : "";
  // Alone: image i of a job is made from the job's seed + i, and draws the same by itself.
  const own = { ...input, seed, num_outputs: 1 };
  const words = element("p", { class: "seed" }, "Seed ", element("output", {}, seed || "unknown"));
  const tools = element("div", { class: "tools" },
    button("Again", () => put(own), { class: "quiet", title: "All of its inputs, back into the form" }),
    button("Vary", () => put({ ...own, seed: newSeed() }), { class: "quiet", title: "The same with a new seed" }));
  const root = element("figure", { class: "picture" });
  if (/^https?:/.test(image)) {
    root.append(element("a", { href: image, target: "_blank", rel: "noreferrer noopener" }, "The picture is in the job’s bucket: open it"));
  } else if (!blobOf(image)) {
    root.append(element("p", { class: "fault" }, "The picture cannot be read."));
  } else {
    const [blob, name] = [blobOf(image), fileName(input.prompt, seed)];
    const shown = element("img", { src: URL.createObjectURL(blob), alt: `${input.prompt || "Picture"}, seed ${seed}` });
    if (input.width) shown.style.aspectRatio = `${input.width} / ${input.height}`;
    root.append(button(shown, () => view(shown), { class: "frame", "aria-label": `Look at the picture of seed ${seed}` }));
    tools.append(
      button("Edit", () => begin(blob, input), { class: "quiet", title: "Begin from this picture" }),
      element("a", { class: "button quiet", href: shown.src, download: name, title: name }, "Download"));
  }
  root.append(element("figcaption", {}, words, tools));
  return root;
}
