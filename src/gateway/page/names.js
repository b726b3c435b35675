// What contracts call a field. The page has one name for it, and others have their own on the wire.

const OTHERS = { num_outputs: "num_images", init_image: "image_url", prompt_strength: "strength" };

/** The page’s name of a field of an input. */
export const ownName = (name) => Object.keys(OTHERS).find((own) => OTHERS[own] === name) ?? name;

const renamed = (fields, rename) => Object.fromEntries(Object.entries(fields).map(([name, value]) => [rename(name), value]));

/** What the page is told of a model, by the page’s names, which are told from those of the wire by `wire`. */
export function own({ input, parts, unused, ...rest }) {
  const { properties } = input;
  const beside = (fields) => renamed(Object.fromEntries(Object.entries(fields).map(([name, other]) => [name, ownName(other)])), ownName);
  return { ...rest, properties: renamed(properties, ownName), parts: beside(parts), unused: beside(unused), wire: Object.keys(properties) };
}

/** An input as it is sent: `wire` lists the names of its contract. */
export const spelled = (input, wire) => renamed(input, (name) => (wire.includes(name) ? name : OTHERS[name] ?? name));
