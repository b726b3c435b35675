// What the page is made of, and what keys and buttons do.

import { Refused, choose } from "./api.js";
import { card } from "./card.js";
import { announce, by, element, tell } from "./dom.js";
import * as form from "./form.js";
import * as start from "./image.js";
import { Job, running } from "./jobs.js";
import { askForKey } from "./key.js";
import * as mask from "./mask.js";
import { look, watch } from "./state.js";

/** One column: then the settings are folded, and the form is out of sight when pictures are looked at. */
const narrow = matchMedia("(max-width: 820px)");

/** Puts an input back into the form, and the form before the eyes. */
async function put(input) {
  await form.fill(input);
  if (narrow.matches) window.scrollTo({ top: 0 });
  by("draw").focus();
  announce("The inputs are in the form.");
}

/** Begins from a picture that was drawn. */
async function begin(blob, input) {
  const reader = new FileReader();
  const unread = () => tell(by("fault-init_image"), "The picture cannot be read.");
  reader.onload = () => put({ ...input, init_image: reader.result, mask: undefined, num_outputs: 1, prompt_strength: input.prompt_strength ?? 0.6 }).catch(unread);
  reader.readAsDataURL(blob);
}

async function draw() {
  const { input, faults } = form.read();
  form.show(faults);
  tell(by("said"), "");
  if (Object.keys(faults).length) return;
  const job = new Job(input, form.wire());
  try {
    await job.submit();
  } catch (cause) {
    if (!(cause instanceof Refused)) throw cause;
    refused(cause);
    return;
  }
  const gone = () => { by("empty").hidden = by("cards").childElementCount > 0; };
  const shown = card(job, { put, begin, gone });
  by("cards").prepend(shown);
  gone();
  if (narrow.matches) shown.scrollIntoView({ block: "start" });
  look();
  await job.follow();
  announce(`${input.prompt}: ${job.state.toLowerCase()}`);
  // The form may say something else by now; what is wrong with this input is beside its fields only if it is the last.
  if (job.state === "FAILED" && by("cards").firstElementChild === shown) form.show(form.sorted(job.errors).faults);
  look();
}

/** Says why a job was not taken: beside the fields that are at fault, and what is about none of them beside the button. */
function refused({ status, errors, hints, message }) {
  const { faults, rest } = status === 400 ? form.sorted(errors, hints) : { faults: {}, rest: message };
  form.show(faults);
  tell(by("said"), rest);
}

function listen() {
  by("form").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  by("key").onclick = async () => { if (await askForKey()) look(); };
  window.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); draw(); }
    if (event.key === "Escape") running.at(-1)?.cancel();
  });
  const fold = () => { by("settings").open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
  start.listen((shape) => { if (shape) form.shape(...shape); form.changed(); });
  mask.listen(form.changed);
  if (navigator.platform.startsWith("Mac")) by("form").querySelector("kbd").textContent = "⌘";
}

async function open() {
  const reply = await fetch(new URL("page/settings.json", document.baseURI));
  const { endpoints } = await reply.json();
  const turn = (endpoint) => { choose(endpoint.id); form.offer(endpoint.models); };
  by("endpoint").append(...endpoints.map(({ id }) => element("option", {}, id)));
  by("endpoint").parentElement.hidden = endpoints.length < 2;
  by("endpoint").onchange = ({ target }) => { turn(endpoints[target.selectedIndex]); look(); };
  turn(endpoints[0]);
  form.prepare();
  listen();
  watch();
}

open().catch((cause) => tell(by("said"), `The page could not be set up: ${cause.message}. Load it again.`));
