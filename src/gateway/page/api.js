// The gateway's public API, as any client uses it.

import { read } from "./json.js";
import { askForKey, bearer } from "./key.js";

/** A request that did not succeed: why, in words; each complaint about the input; what may be sent instead; seconds to wait, if it says. */
export class Refused extends Error {
  constructor(status, said, { errors = [], hints = [], after } = {}) {
    super(said);
    Object.assign(this, { status, errors, hints, after });
  }
  /** Whether the same may succeed a little later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

let endpoint = "";

/** Chooses the endpoint that is asked. */
export const choose = (name) => { endpoint = name; };

/** The endpoint that is asked. */
export const chosen = () => endpoint;

/** The URL of an operation of an endpoint. */
export const address = (operation, of = endpoint) => new URL(`v2/${encodeURIComponent(of)}/${operation}`, document.baseURI).href;

/** Asks, with the key if there is one; asks for a key where one is wanted. Returns the reply's JSON. */
export async function ask(operation, { method = "GET", body, of } = {}) {
  const url = address(operation, of);
  for (;;) {
    const key = bearer();
    const reply = await send(url, method, body, key);
    if (reply.status !== 401) return understood(reply);
    if (bearer() === key && !(await askForKey(key))) throw new Refused(401, "The gateway wants a key: press “Key” to give one.");
  }
}

async function send(url, method, body, key) {
  // A page of another origin could not say so: see browsers.rs.
  const headers = { "X-Latentd-Page": "1", ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  try {
    return await fetch(url, { method, body, headers, cache: "no-store" });
  } catch {
    throw new Refused(0, "The gateway cannot be reached.");
  }
}

async function understood(reply) {
  let said;
  try {
    said = read(await reply.text());
    if (typeof said !== "object" || said === null) throw new TypeError("no object");
  } catch {
    throw new Refused(reply.ok ? 0 : reply.status, `The gateway’s answer (${reply.status}) cannot be read.`);
  }
  if (reply.ok) return said;
  const errors = complaints(said);
  const text = reply.status === 429 ? tooMany(reply) : errors.join(" ") || `The gateway answered ${reply.status}.`;
  const hints = Array.isArray(said.hints) ? said.hints.map(String) : [];
  throw new Refused(reply.status, text, { errors, hints, after: Number(reply.headers.get("Retry-After")) || undefined });
}

function tooMany(reply) {
  const after = Number(reply.headers.get("Retry-After"));
  return `Too many requests at once. Try again ${after ? `in ${after} s` : "in a moment"}.`;
}

/** Every complaint of a reply or of a failed job: its `errors`, or its `error`, which may be a list as text. */
export function complaints({ errors, error }) {
  if (Array.isArray(errors) && errors.length) return errors.map(String);
  if (Array.isArray(error)) return error.map(String);
  if (typeof error !== "string") return error ? [JSON.stringify(error)] : [];
  try {
    const list = JSON.parse(error);
    if (Array.isArray(list)) return list.map(String);
    return typeof list?.error_message === "string" ? [list.error_message] : [error];
  } catch {
    return [error];
  }
}
