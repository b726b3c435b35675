// Elements, from values. Text stays text: children that are strings become text nodes.

/** The element with this id, which the page has. */
export const by = (id) => document.getElementById(id);

/** An element with properties (`class`, `data-…` and `aria-…` as attributes) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class" || key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

/** A button that does something. */
export const button = (text, click, properties = {}) =>
  element("button", { type: "button", onclick: click, ...properties }, text);

/** Shows a text in an element that is hidden while it has none. */
export function tell(place, text) {
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** Says something to screen readers. */
export const announce = (text) => { by("news").textContent = text; };
