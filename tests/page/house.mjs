// What each test of the page stands on: a browser, a gateway, a worker, and steps that a person takes.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

import { Gateway } from "./gateway.mjs";
import { picture } from "./pictures.mjs";
import { Worker } from "./worker.mjs";

const { LATENTD, CHROMIUM, PAGE_MODULES, PAGE_SHOTS } = process.env;
const { chromium } = createRequire(join(PAGE_MODULES, "package.json"))("playwright-core");

/** Milliseconds that anything may take. */
const PATIENCE = 60_000;

export class House {
  static async open(environment, configuration) {
    const house = new House();
    await mkdir(PAGE_SHOTS, { recursive: true });
    house.browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP rebound.example 127.0.0.1"] });
    house.gateway = await Gateway.start(LATENTD, environment, configuration);
    return house;
  }

  async close() {
    await this.worker?.stop();
    await this.browser?.close();
    await this.gateway?.stop();
  }

  hire(key) {
    this.worker = new Worker(this.gateway.api, key);
    return this.worker;
  }

  /** A page in a browser of its own; what goes wrong in it fails the test that calls `calm`. */
  async visit(options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 860 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.wrong = [];
    page.on("pageerror", (error) => page.wrong.push(error.stack));
    page.on("console", (message) => {
      // Statuses that are no success are shown by the page itself.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) page.wrong.push(message.text());
    });
    page.calm = async () => {
      assert.deepEqual(page.wrong, []);
      await context.close();
    };
    page.shot = (name, more = {}) => page.screenshot({ path: join(PAGE_SHOTS, `${name}.png`), animations: "disabled", ...more });
    await page.goto(this.gateway.url);
    await page.locator("#scheduler option").nth(13).waitFor({ state: "attached" });
    return page;
  }
}

/** Fills fields in by name and draws. */
export async function draw(page, fields = {}) {
  for (const [name, value] of Object.entries(fields)) {
    const field = page.locator(`#form [name=${name}]`);
    const kind = await field.evaluate((element) => element.tagName);
    await (kind === "SELECT" ? field.selectOption(String(value)) : field.fill(String(value)));
  }
  await page.getByRole("button", { name: "Draw", exact: true }).click();
}

/** The card of this number, the newest first, once it is in this state. */
export async function card(page, state, number = 0) {
  const found = page.locator("article.card").nth(number);
  await page.locator(`article.card >> nth=${number}`).and(page.locator(`[data-state=${state}]`)).waitFor();
  return found;
}

/** Drops or pastes a picture as a file. */
export async function give(page, manner, { seed = "5", width = 640, height = 480, name = "hills.png" } = {}) {
  const base64 = picture(seed, width, height).toString("base64");
  await page.evaluate(({ manner, base64, name }) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const load = new DataTransfer();
    load.items.add(new File([bytes], name, { type: "image/png" }));
    const common = { bubbles: true, cancelable: true };
    if (manner === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", { ...common, clipboardData: load }));
    else for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, { ...common, dataTransfer: load }));
  }, { manner, base64, name });
  await page.locator("#begun").waitFor();
  return `data:image/png;base64,${base64}`;
}

/** How bright a picture is at places given as parts of its sides. */
export const bright = (page, source, places) => page.evaluate(async ({ source, places }) => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return places.map(([x, y]) => context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data[0]);
}, { source, places });
