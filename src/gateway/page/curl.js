// The same request for a terminal.

import { address } from "./api.js";
import { element, button } from "./dom.js";
import { bearer } from "./key.js";

/** What a shell takes as one argument, less a little: Linux refuses more than 128 KiB. */
const ARGUMENT = 100_000;

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/**
 * The line that sends a job’s request and waits for its end. Its pictures are those of the page, because the page always names a seed.
 * A key is left to the variable API_KEY. What is too long for an argument goes through standard input.
 */
export function curl({ body, of }) {
  const key = bearer() ? ' -H "Authorization: Bearer $API_KEY"' : "";
  const line = `curl -sS ${quoted(address("runsync?wait=300000", of))}${key} -H 'Content-Type: application/json'`;
  return body.length < ARGUMENT ? `${line} -d ${quoted(body)}` : `${line} --data-binary @- <<'END'\n${body}\nEND`;
}

/** What is shown of it: pictures are long, and say nothing. */
const shortened = (line) => line.replace(/[A-Za-z0-9+/]{200,}={0,2}/g, (data) => `${data.slice(0, 24)}…(${data.length} characters)`);

/** Shows the line and copies it; the note says whether that worked. */
export function curlBox(job) {
  const line = curl(job);
  const note = element("span", { class: "hint", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(line);
      note.textContent = "Copied.";
    } catch {
      note.textContent = "This browser does not let the page copy: select the line.";
    }
  };
  const key = bearer() ? element("p", { class: "hint" }, "API_KEY is the variable that your key is expected in.") : "";
  const box = element("div", { class: "curl" }, element("pre", { tabIndex: 0 }, shortened(line)), key, button("Copy", copy, { class: "quiet" }), note);
  box.dataset.line = line;
  copy();
  return box;
}
