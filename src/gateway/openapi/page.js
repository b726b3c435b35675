// Shows openapi.json, which lies beside it wherever a proxy has put both. Text reaches the page as text, never as HTML.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** A schema, in as many words as a line has. */
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(words).join(" | ");
  if (schema.const) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `array of ${words(schema.items)}`;
  return [schema.type ?? "anything"].flat().join(" or ");
}

function table(rows) {
  const body = element("tbody");
  for (const row of rows) {
    const [name, ...rest] = row;
    body.append(element("tr", "", element("th", name), ...rest.map((text) => element("td", text))));
  }
  return element("table", "", body);
}

function schemaTable(schema) {
  const required = new Set(schema.required ?? []);
  return table(Object.entries(schema.properties ?? {}).map(([name, of]) => {
    const asked = required.has(name) ? "required" : of.default === undefined ? "" : `default ${JSON.stringify(of.default)}`;
    return [name, words(of), [of.description, asked].filter(Boolean).join("; ")];
  }));
}

function operation(method, path, of) {
  const title = element("summary", "", element("b", method.toUpperCase()), element("code", path), element("span", of.summary));
  const details = element("details", "", title);
  const query = of.parameters.filter((parameter) => parameter.in === "query");
  if (query.length) details.append(element("h3", "Query"), table(query.map((one) => [one.name, one.description])));
  const link = (content) => content?.["application/json"].schema;
  for (const [name, content] of [["Body", of.requestBody?.content], ["Reply", of.responses["200"].content]]) {
    if (link(content)) details.append(element("h3", `${name}: ${words(link(content))}`));
  }
  return details;
}

const main = document.getElementById("routes");
try {
  const api = await (await fetch(new URL("openapi.json", document.baseURI))).json();
  main.append(element("p", api.info.description));
  for (const tag of ["clients", "workers"]) {
    main.append(element("h2", tag === "clients" ? "For clients" : "For workers"));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, of] of Object.entries(methods)) {
        if (of.tags.includes(tag)) main.append(operation(method, path, of));
      }
    }
  }
  main.append(element("h2", "Bodies and replies"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const details = element("details", "", element("summary", "", element("code", name), element("span", schema.description ?? "")));
    details.append(schema.properties ? schemaTable(schema) : element("p", words(schema)));
    main.append(details);
  }
} catch (error) {
  main.append(element("p", `The document cannot be shown: ${error.message}`));
}
main.removeAttribute("aria-busy");
