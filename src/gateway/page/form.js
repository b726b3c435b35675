// The form: an input of the API, read from what a person typed and put back again; faults beside the fields they are about.

import { by, element, tell } from "./dom.js";
import * as start from "./image.js";
import * as mask from "./mask.js";
import { own, ownName } from "./names.js";

const form = by("form");
/** A seed has 64 bits, which are more than a number of JavaScript's has. */
const MOST_SEED = 2n ** 64n - 1n;
/** What the prompt's field shows where the model says nothing. */
const PLACEHOLDER = by("prompt").placeholder;

let fields = [...form.querySelectorAll("[name]")];
const field = (name) => form.elements.namedItem(name);

/** A seed that nobody chose. The generator sees the low 32 bits of a seed, so more would say nothing. */
export const newSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

/** The models of the endpoint that is asked, by the page’s names of fields, and the one whose bounds and defaults the form has. */
let models = [];
let model;

/** What a side of a picture may be. */
const sides = ({ enum: listed, minimum, maximum, multipleOf: step }) =>
  listed ?? Array.from({ length: Math.floor((maximum - minimum) / step) + 1 }, (_, index) => minimum + index * step);

/** Takes the models that an endpoint offers, the first of which draws where none is named. */
export function offer(offered) {
  models = offered.map(own);
  by("models").replaceChildren(...models.filter(({ name }) => name).map(({ name }) => element("option", { value: name })));
  adopt();
}

/** Gives the form the bounds, choices and defaults of the model that it names. What a person has changed stays. */
function adopt() {
  const named = field("model").value.trim();
  const next = models.find(({ name }) => name === named) ?? models[0];
  if (next === model) return;
  const before = model?.properties ?? {};
  model = next;
  const { properties } = model;
  fields = fields.map((control) => bound(control, properties[control.name], before[control.name]));
  for (const slider of form.querySelectorAll("[data-of]")) {
    const { minimum, maximum } = properties[slider.dataset.of] ?? {};
    Object.assign(slider, { min: minimum, max: Math.min(maximum, slider.dataset.most ?? maximum) });
  }
  start.limit(Math.max(...sides(properties.width), ...sides(properties.height)));
  start.offer("init_image" in properties);
  mask.offer("mask" in properties);
  field("prompt").placeholder = model.placeholder ?? PLACEHOLDER;
  changed();
}

/** Gives a control the bounds, the choices and the default of a property of the model; it had those of `before`. Returns the control that has
 * them, which is another where a choice takes the place of a number. Without a property it is out of sight. */
function bound(was, property, before) {
  (was.closest(".field") ?? was.parentElement).hidden = property === undefined;
  // The page shows pictures while they are drawn, unless a person does not want it.
  if (property === undefined || was.type === "checkbox") return was;
  const { minimum, maximum, multipleOf, maxLength, enum: choices, default: usual } = property;
  const text = String(usual ?? "");
  const kept = before !== undefined && was.value !== String(before.default ?? "") && (choices?.map(String).includes(was.value) ?? true);
  const value = kept ? was.value : text;
  const control = suited(was, choices);
  if (choices) control.replaceChildren(...choices.map((choice) => element("option", { value: choice, defaultSelected: String(choice) === text }, String(choice))));
  else control.defaultValue = text;
  control.value = value;
  if (control.type === "number") Object.assign(control, { min: minimum ?? "", max: maximum ?? "" });
  if (multipleOf !== undefined) control.step = multipleOf;
  if (maxLength !== undefined) control.maxLength = maxLength;
  return control;
}

/** A side is chosen where there are few, and typed where there are many: the control itself, or one in its place. */
function suited(control, choices) {
  const kind = choices ? "select" : "input";
  if (control.dataset.kind !== "int" || control.localName === kind) return control;
  const made = element(kind, { id: control.id, name: control.name, "data-kind": "int", ...(choices ? {} : { type: "number", inputMode: "numeric" }) });
  if (control.hasAttribute("aria-describedby")) made.setAttribute("aria-describedby", control.getAttribute("aria-describedby"));
  control.replaceWith(made);
  return made;
}

/** Keeps sliders and numbers together, and faults beside their fields. */
export function prepare() {
  field("model").addEventListener("change", adopt);
  for (const slider of form.querySelectorAll("[data-of]")) {
    const number = field(slider.dataset.of);
    slider.addEventListener("input", () => { number.value = slider.value; changed(); });
    number.addEventListener("input", () => { slider.value = number.value; });
  }
  for (const control of fields) describe(control);
  form.addEventListener("input", ({ target }) => { if (target.name) clear(target.name); changed(); });
  by("swap").onclick = () => {
    [field("width").value, field("height").value] = [field("height").value, field("width").value];
    changed();
  };
  by("dice").onclick = () => { field("seed").value = newSeed(); changed(); };
  by("unseed").onclick = () => { field("seed").value = ""; changed(); };
  changed();
}

/** A place for the field's fault, which screen readers find. */
function describe(control) {
  const id = `fault-${control.name}`;
  if (!by(id)) (control.closest(".field") ?? control.parentElement).append(element("p", { class: "fault", id, hidden: true }));
  control.setAttribute("aria-describedby", id);
}

/** What sliders and the folded settings show. */
function changed() {
  for (const slider of form.querySelectorAll("[data-of]")) slider.value = field(slider.dataset.of).value;
  const { input } = read({ init_image: start.has() && "there" });
  by("facts").textContent = facts({ ...input, seed: field("seed").value }).join(" · ");
  by("start").classList.toggle("on", start.has());
  // A refiner redraws what was drawn from words, too.
  by("redraw").hidden = !start.has() && "prompt_strength" in model.parts;
}

/** An input in a few words. */
export function facts(input) {
  const size = input.width ? [`${input.width} × ${input.height}`] : [];
  const steps = input.num_inference_steps ?? input.refiner_inference_steps;
  const spread = input.sigmas && input.sigmas !== "default" ? [input.sigmas] : [];
  const weighted = input.prompt_syntax === "weighted" ? ["weighted prompt"] : [];
  const words = [...size, ...weighted, input.scheduler, ...spread, `${steps} steps`, `guidance ${input.guidance_scale}`];
  if (input.eta) words.push(`eta ${input.eta}`);
  if (input.clip_skip) words.push(`skips ${input.clip_skip}`);
  if (input.high_noise_frac) words.push(`ends after ${input.high_noise_frac}`);
  if (input.init_image) words.push(`${input.mask ? "masked picture" : "picture"}, ${Math.round(input.prompt_strength * 100)} % redrawn`);
  if (input.model) words.push(input.model);
  if (input.lora) words.push(`LoRA ${input.lora} × ${input.lora_scale}`);
  if (input.seed) words.push(`seed ${input.seed}`);
  return words;
}

/** The names that the model’s contract has for fields. */
export const wire = () => model.wire;

/** The input, by the page’s names, and what is wrong with it by field. A seed that was left open is chosen here, so that the same can be asked for again. */
export function read(given = images()) {
  const [input, faults] = [{}, {}];
  for (const control of fields.filter(({ name }) => name in model.properties)) {
    const { value, fault } = valueOf(control);
    if (fault) faults[control.name] = fault;
    else if (value !== "" || control.name === "prompt") input[control.name] = value;
  }
  for (const [name, uri] of Object.entries(given)) if (uri) input[name] = uri;
  for (const [name, need] of Object.entries(model.parts)) {
    if (!(need in input)) { delete input[name]; delete faults[name]; }
  }
  for (const [name, other] of Object.entries(model.unused)) {
    if (other in input) { delete input[name]; delete faults[name]; }
  }
  for (const name of ["mask_paste", "preview"]) if (input[name] === false) delete input[name];
  const { seed = newSeed(), ...rest } = input;
  return { input: { ...rest, seed }, faults };
}

function images() {
  const init_image = start.uri();
  const masked = init_image && "mask" in model.properties;
  return { init_image, mask: masked && mask.uri(field("mask_repaint").value) };
}

function valueOf(control) {
  const { kind } = control.dataset;
  if (control.type === "checkbox") return { value: control.checked };
  if (kind === "seed") return seedOf(control.value.trim());
  if (kind === undefined) return { value: control.name === "prompt" ? control.value : control.value.trim() };
  const value = Number(control.value);
  if (kind === "share") {
    if (control.value === "") return { value: "" };
    return value > 0 && value < 1 ? { value } : { fault: "This should be a number above 0 and below 1, or nothing." };
  }
  const { multipleOf: step = 1 } = kind === "int" ? model.properties[control.name] : {};
  const fits = control.value !== "" && Number.isFinite(value) && (kind !== "int" || value % step === 0);
  const { min, max } = control;
  if (!fits || (min && value < Number(min)) || (max && value > Number(max))) {
    const what = step > 1 ? `multiple of ${step}` : kind === "int" ? "whole number" : "number";
    return { fault: `This should be a ${what} from ${min} to ${max}.` };
  }
  return { value };
}

function seedOf(text) {
  if (text === "") return { value: "" };
  const fits = /^-?\d+$/.test(text) && BigInt(text) <= MOST_SEED;
  return fits ? { value: String(BigInt(text)) } : { fault: `A seed is a whole number of at most ${MOST_SEED}; empty means a new one.` };
}

/** Puts an input into the form. What it does not say is as it is at first. */
export async function fill(input) {
  field("model").value = input.model ?? "";
  adopt();
  form.reset();
  for (const control of fields) {
    if (!(control.name in input)) {
      if (control.name === "preview") control.checked = false;
      continue;
    }
    if (control.type === "checkbox") control.checked = input[control.name];
    else control.value = input[control.name];
  }
  await start.load(input.init_image);
  if (input.mask) await mask.load(input.mask, input.mask_repaint ?? "black");
  show({});
  changed();
}

/** A picture was chosen: its shape becomes that of what is drawn, unless it does so by itself. */
export function shape(width, height) {
  if (model.unused.width === "init_image") return;
  const { properties } = model;
  const wanted = Math.log(width / height);
  const area = Number(field("width").value) * Number(field("height").value);
  let best;
  for (const w of sides(properties.width)) {
    for (const h of sides(properties.height)) {
      // As the picture is, first of all; then as large as was asked for.
      const cost = Math.abs(Math.log(w / h) - wanted) * 8 + Math.abs(Math.log((w * h) / area));
      if (!best || cost < best.cost) best = { w, h, cost };
    }
  }
  field("width").value = best.w;
  field("height").value = best.h;
}

export { changed };

const clear = (name) => {
  if (by(`fault-${name}`)) tell(by(`fault-${name}`), "");
  field(name)?.setAttribute?.("aria-invalid", "false");
};

/** Shows faults, by field; goes to the first. */
export function show(faults) {
  for (const name of [...fields.map((control) => control.name), "init_image", "mask"]) clear(name);
  const names = Object.keys(faults);
  for (const name of names) {
    tell(by(`fault-${name}`), faults[name]);
    field(name)?.setAttribute?.("aria-invalid", "true");
  }
  if (names.some((name) => by(`fault-${name}`).closest("details"))) by("settings").open = true;
  (names.length ? field(names[0]) : undefined)?.focus?.();
}

/** Complaints of the API by the field that each is about, with its hint if there is one; the others as one text. */
export function sorted(texts, hints = []) {
  const [faults, rest] = [{}, []];
  for (const text of texts.flatMap(pieces)) {
    const name = named(text);
    if (name && !faults[name]) faults[name] = hinted(text, hints);
    else rest.push(hinted(text, hints));
  }
  return { faults, rest: rest.join(" ") };
}

/** Complaints that were joined come apart again, if each is about a field. */
function pieces(text) {
  const parts = text.split("; ");
  return parts.every(named) ? parts : [text];
}

/** A complaint, and what may be sent instead if one of the hints, `field: hint`, says it. */
function hinted(text, hints) {
  const start = `${first(text)}: `;
  const hint = hints.find((hint) => hint.startsWith(start));
  return hint ? `${text} (${hint.slice(start.length)})` : text;
}

/** The page’s name of the field that a complaint is about. */
function named(text) {
  const name = ownName(first(text));
  return name && by(`fault-${name}`) ? name : undefined;
}

/** The word that a complaint begins with: the name of a field on the wire. */
const first = (text) => /^(?:Unexpected input\. )?(\w+)/.exec(text)?.[1];
