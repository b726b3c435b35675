// JSON with seeds of 64 bits. JavaScript's numbers have 53, so a seed is a text of digits here, and a number on the wire.
// A quote inside of a JSON string is escaped, so what these patterns find is always a key.

/** Reads a reply. */
export const read = (text) => JSON.parse(text
  .replace(/("seed"\s*:\s*)(-?\d+)(?=\s*[,}\]])/g, '$1"$2"')
  .replace(/"seeds"\s*:\s*\[[\d\s,]*\]/g, (list) => list.replace(/\d+/g, '"$&"')));

/** Writes a request. */
export const write = (value) => JSON.stringify(value).replace(/("seed":)"(-?\d+)"/g, "$1$2");
