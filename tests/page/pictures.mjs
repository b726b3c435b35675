// Made-up pictures: hills under a sun, another for each seed, as PNG files.

import { deflateSync } from "node:zlib";

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});
const crc32 = (bytes) => (bytes.reduce((sum, byte) => TABLE[(sum ^ byte) & 255] ^ (sum >>> 8), -1) ^ -1) >>> 0;

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

/** Numbers from 0 to 1 that a seed (text or number) decides: xorshift. */
function dice(seed) {
  let state = Number(BigInt(seed) & 0xffffffffn) * 2654435761 + 1 | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const mix = (a, b, part) => a.map((value, index) => value + (b[index] - value) * part);
const colour = (hue, light) => [0, 8, 4].map((k) => 255 * (light - 0.45 * Math.min(light, 1 - light) * Math.max(-1, Math.min((k + hue * 12) % 12 - 3, 9 - (k + hue * 12) % 12, 1))));

/** A PNG file of these sides. */
export function picture(seed, width, height) {
  const roll = dice(seed);
  for (let warm = 0; warm < 8; warm++) roll();
  const hue = roll();
  const [top, low, sun] = [colour(hue, 0.35), colour((hue + 0.12) % 1, 0.78), [255, 244, 214]];
  const [sunX, sunY, sunR] = [0.2 + 0.6 * roll(), 0.2 + 0.25 * roll(), 0.05 + 0.06 * roll()];
  const hills = [0, 1, 2, 3].map((index) => ({
    at: 0.5 + index * 0.12, waves: [0, 1, 2].map((n) => [2 + 4 * n * roll() + 2 * roll(), roll() * 7, 0.06 / (n + 1)]),
    paint: mix(colour((hue + 0.55) % 1, 0.5 - index * 0.11), low, 0.45 - index * 0.14),
  }));
  const rows = Buffer.alloc(height * (1 + width * 3));
  for (let x = 0; x < width; x++) {
    const edges = hills.map(({ at, waves }) => at + waves.reduce((sum, [often, from, tall]) => sum + tall * Math.sin((x / width) * often + from), 0));
    for (let y = 0; y < height; y++) {
      const [u, v] = [x / width, y / height];
      let pixel = mix(top, low, Math.min(1, v * 1.5));
      const far = Math.hypot((u - sunX) * (width / height), v - sunY);
      pixel = mix(pixel, sun, far < sunR ? 1 : Math.max(0, 0.5 - (far - sunR) * 2.2));
      edges.forEach((edge, index) => { if (v > edge) pixel = mix(hills[index].paint, low, Math.max(0, 0.25 - (v - edge))); });
      rows.set(pixel.map(Math.round), y * (1 + width * 3) + 1 + x * 3);
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}
