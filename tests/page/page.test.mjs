// The page at `/` of the real gateway, in a real browser, as a person uses it. scripts/page-test sets up what this needs.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { House, bright, card, draw, give } from "./house.mjs";
import { picture } from "./pictures.mjs";
import { PREVIEW, Worker } from "./worker.mjs";

const BIGGEST = "18446744073709551615";

/** What a line prints that is pasted into a shell. */
const shell = async (line, environment = {}) => {
  const running = promisify(execFile)("bash", { env: { ...process.env, ...environment }, maxBuffer: 1 << 28 });
  running.child.stdin.end(`${line}\n`);
  return JSON.parse((await running).stdout);
};

let house;
let worker;
before(async () => {
  house = await House.open();
  worker = house.hire();
});
after(() => house?.close());

test("a prompt becomes pictures: waiting, progress with a preview, done", async () => {
  const page = await house.visit();
  await page.getByText("1 worker, idle").waitFor();
  await page.shot("desktop-empty");
  await draw(page, { prompt: "hills at dusk", num_outputs: 4, num_inference_steps: 20, scheduler: "DDIM", width: 512, height: 384, negative_prompt: "people" });
  const job = await worker.next();
  const { seed, ...input } = job.input;
  assert.deepEqual(input, {
    prompt: "hills at dusk", negative_prompt: "people", width: 512, height: 384, num_outputs: 4, num_inference_steps: 20, guidance_scale: 7.5,
    scheduler: "DDIM", sigmas: "default", eta: 0, prompt_syntax: "plain", clip_skip: 0, preview: true,
  });
  const shown = await card(page, "IN_PROGRESS");
  await job.progress(7, 20, PREVIEW);
  await shown.getByText("Drawing, 7 of 20").waitFor();
  assert.equal(await shown.locator("progress").evaluate((bar) => bar.value), 0.35);
  assert.equal(await shown.locator(".preview").getAttribute("src"), PREVIEW);
  await page.getByText("1 being drawn").waitFor();
  await page.shot("desktop-drawing");
  await job.finish({ warnings: ["the prompt was cut at 77 tokens"] });
  await card(page, "COMPLETED");
  await shown.getByText("cut at 77 tokens").waitFor();
  const seeds = await shown.locator(".seed output").allTextContents();
  assert.deepEqual(seeds, [0n, 1n, 2n, 3n].map((more) => String(BigInt(seed) + more)));
  assert.equal(await shown.locator(".frame img").evaluateAll((all) => all.filter((image) => image.naturalWidth === 512 && image.naturalHeight === 384).length), 4);
  const download = page.waitForEvent("download");
  await shown.getByRole("link", { name: "Download" }).nth(2).click();
  const file = await download;
  assert.equal(file.suggestedFilename(), `hills-at-dusk-${seeds[2]}.png`);
  assert.equal((await readFile(await file.path())).subarray(1, 4).toString(), "PNG");
  await page.shot("desktop-pictures");
  await shown.getByRole("button", { name: `Look at the picture of seed ${seeds[1]}` }).click();
  await page.keyboard.press("ArrowRight");
  await page.locator("#viewer-words").getByText(seeds[2]).waitFor();
  await page.shot("desktop-viewer");
  await page.keyboard.press("Escape");
  await page.locator("#viewer").waitFor({ state: "hidden" });
  await page.calm();
});

test("again puts all inputs back, vary does so with a new seed, a seed has 64 bits", async () => {
  const page = await house.visit();
  await draw(page, { prompt: "one", seed: BIGGEST, guidance_scale: 3.25, num_inference_steps: 120, scheduler: "HEUN", width: 256, height: 768, negative_prompt: "n" });
  const first = await worker.next();
  assert.ok(first.text.includes(`"seed":${BIGGEST}`), "as a number");
  await first.finish();
  const shown = await card(page, "COMPLETED");
  assert.equal(await shown.locator(".seed output").textContent(), BIGGEST);
  assert.equal(await shown.getByRole("link", { name: "Download" }).getAttribute("download"), `one-${BIGGEST}.png`);
  const change = { prompt: "two", seed: "", guidance_scale: 9, num_inference_steps: 5, scheduler: "DDIM", width: 512, height: 512, negative_prompt: "" };
  await draw(page, change);
  const second = await worker.next();
  assert.notEqual(second.input.seed, first.input.seed);
  assert.equal(second.input.negative_prompt, undefined);
  await second.finish();
  await card(page, "COMPLETED");
  const old = page.locator("article.card").nth(1).locator("figcaption");
  await old.getByRole("button", { name: "Again" }).click();
  assert.ok(await page.locator("#draw").evaluate((button) => button === document.activeElement), "Enter draws it again");
  await page.keyboard.press("Enter");
  const again = await worker.next();
  assert.deepEqual({ ...again.input, num_outputs: 1 }, first.input);
  await again.finish();
  await card(page, "COMPLETED");
  await page.locator("article.card").nth(2).locator("figcaption").getByRole("button", { name: "Vary" }).click();
  await page.keyboard.press("Control+Enter");
  const varied = await worker.next();
  assert.deepEqual({ ...varied.input, seed: first.input.seed }, first.input);
  assert.notEqual(varied.input.seed, first.input.seed);
  await varied.finish();
  await card(page, "COMPLETED");
  await page.calm();
});

test("several are drawn at once, and Escape cancels the newest", async () => {
  const page = await house.visit();
  const jobs = [];
  for (const prompt of ["a", "b", "c"]) {
    await draw(page, { prompt });
    jobs.push(await worker.next());
  }
  await jobs[1].progress(3, 9, PREVIEW);
  await jobs[0].finish();
  await card(page, "COMPLETED", 2);
  await card(page, "IN_PROGRESS", 1);
  await page.locator("#prompt").press("Escape");
  const cancelled = await card(page, "CANCELLED", 0);
  assert.equal(await cancelled.locator("progress").isVisible(), false);
  assert.equal((await (await fetch(`${house.gateway.api}/status/${jobs[2].id}`)).json()).status, "CANCELLED");
  await page.locator("article.card").nth(1).getByRole("button", { name: "Cancel" }).click();
  await card(page, "CANCELLED", 1);
  await page.shot("desktop-several");
  await cancelled.getByRole("button", { name: "Remove this card" }).click();
  assert.equal(await page.locator("article.card").count(), 2);
  await page.calm();
});

test("what is wrong is said beside what it is about", async () => {
  const page = await house.visit();
  await draw(page, { prompt: "x", num_inference_steps: 501, seed: "12x", guidance_scale: "" });
  await page.locator("#fault-num_inference_steps").getByText("a whole number from 1 to 500").waitFor();
  assert.match(await page.locator("#fault-seed").textContent(), /whole number/);
  assert.match(await page.locator("#fault-guidance_scale").textContent(), /from 0 to 20/);
  assert.equal(await page.locator("#seed").getAttribute("aria-invalid"), "true");
  assert.equal(await page.locator("article.card").count(), 0, "nothing was sent");
  await page.shot("desktop-faults");
  // A worker refuses it, or the gateway before it is queued.
  worker.rule = (job) => job.input.lora === "wool" && Boolean(job.fail(['lora "wool" is not offered, none is.', 'model "m" is not offered, only miniature is.']));
  await draw(page, { num_inference_steps: 10, seed: "", guidance_scale: 7, lora: "wool", model: "m" });
  await page.locator("#fault-lora").getByText("not offered").waitFor();
  await page.locator("#fault-model").getByText("not offered").waitFor();
  worker.rule = () => false;
  await draw(page, { lora: "", model: "" });
  assert.equal(await page.locator("#fault-lora").isVisible(), false);
  await (await worker.next()).fail("out of memory; the device is lost");
  await (await card(page, "FAILED")).getByText("out of memory; the device is lost").waitFor();
  const answer = (status, body, headers = {}) => page.route("**/run", (route) => route.fulfill({ status, headers, json: body }), { times: 1 });
  const errors = ["width does not meet the constraints.", "Unexpected input. bogus is not a valid input option."];
  await answer(400, { error: errors.join("; "), errors, hints: ["bogus: did you mean mask?", "width: use 128 or 256"] });
  await draw(page);
  await page.locator("#fault-width").getByText("does not meet").waitFor();
  assert.equal(await page.locator("#fault-width").textContent(), `${errors[0]} (use 128 or 256)`);
  assert.equal(await page.locator("#said").textContent(), `${errors[1]} (did you mean mask?)`);
  await answer(400, { error: "seed does not meet the constraints.; prompt should be <class 'str'> type, not <class 'int'>." });
  await draw(page);
  await page.locator("#fault-prompt").getByText("should be").waitFor();
  assert.equal(await page.locator("#fault-seed").textContent(), "seed does not meet the constraints.");
  await answer(429, { error: "slow down" }, { "Retry-After": "7" });
  await draw(page);
  await page.locator("#said").getByText("Try again in 7 s").waitFor();
  await page.calm();
});

test("texts are never taken for HTML", async () => {
  const page = await house.visit();
  const prompt = '<img src=x onerror="document.title=1"><b>bold</b>';
  await draw(page, { prompt, negative_prompt: prompt });
  const job = await worker.next();
  await job.progress(1, 2, `" onerror="document.title=1`);
  await page.getByText("Drawing, 1 of 2").waitFor();
  await job.finish({ warnings: [prompt] });
  const shown = await card(page, "COMPLETED");
  assert.equal(await shown.locator("h3").textContent(), prompt);
  assert.equal(await shown.locator("b, [onerror], .preview").count(), 0);
  assert.equal(await page.title(), "latentd");
  await page.calm();
});

test("a result may hold anything", async () => {
  const page = await house.visit();
  const results = [
    { output: null, warnings: "as a text" },
    { output: [null, 5, "x", { image: 7 }, { image: {} }, { image: "" }], warnings: { a: 1 } },
    { output: [{ image: "%no base64%", seed: {} }], warnings: [null, ["n"], { b: 2 }] },
    { output: { image: "bm8gcGljdHVyZQ==" }, timings: "t" },
  ];
  const said = [["as a text", "There is no picture in the result."], ['{"a":1}', "There is no picture in the result."], ["The picture cannot be read.", '{"b":2}', "unknown"], ["unknown"]];
  for (const [number, result] of results.entries()) {
    await draw(page, { prompt: `number ${number}` });
    const job = await worker.next();
    await job.progress("x", 2, 5);
    await job.progress(1, 2, PREVIEW);
    await page.getByText("Drawing, 1 of 2").waitFor();
    await job.finish(result);
    const shown = await card(page, "COMPLETED");
    for (const text of said[number]) await shown.getByText(text).waitFor();
  }
  await page.getByRole("button", { name: "Edit" }).click();
  await page.locator("#fault-init_image").getByText("The picture cannot be read.").waitFor();
  await page.calm();
});

test("the routes are shown below a path, too", async () => {
  const proxy = createServer(async (asked, reply) => {
    if (!asked.url.startsWith("/sub/")) return reply.writeHead(404).end();
    const answer = await fetch(`${house.gateway.url}${asked.url.slice(4)}`);
    reply.writeHead(answer.status, { "Content-Type": answer.headers.get("Content-Type") }).end(Buffer.from(await answer.arrayBuffer()));
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  try {
    const page = await house.visit();
    const base = `http://127.0.0.1:${proxy.address().port}/sub/`;
    await page.goto(`${base}docs`);
    await page.getByText("Queues a job and answers at once").waitFor();
    assert.equal(await page.evaluate(() => document.styleSheets[0].cssRules.length > 0), true);
    const api = await (await fetch(`${base}openapi.json`)).json();
    assert.equal(new URL(api.servers[0].url, `${base}openapi.json`).href, base);
    await page.calm();
  } finally {
    proxy.close();
  }
});

test("a picture to begin from is dropped, pasted or chosen, and a mask painted over it", async () => {
  const page = await house.visit();
  const uri = await give(page, "drop");
  assert.deepEqual(await page.locator("#width, #height").evaluateAll((all) => all.map(({ value }) => value)), ["512", "384"], "its shape");
  await draw(page, { prompt: "on the hills", prompt_strength: 0.6 });
  const plain = await worker.next();
  assert.deepEqual([plain.input.init_image === uri, plain.input.prompt_strength, plain.input.mask], [true, 0.6, undefined]);
  await plain.finish();
  await card(page, "COMPLETED");

  await page.getByRole("button", { name: "Paint a mask" }).click();
  const paint = page.locator("#paint");
  const move = async ([x, y], steps = 1) => {
    const box = await paint.boundingBox();
    await page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps });
  };
  const stroke = async (from, to) => {
    await paint.evaluate((canvas) => canvas.scrollIntoView({ block: "center" }));
    await move(from);
    await page.mouse.down();
    await move(to, 8);
    await page.mouse.up();
  };
  await stroke([0.2, 0.5], [0.6, 0.5]);
  const places = [[0.4, 0.5], [0.4, 0.05], [0.8, 0.9]];
  const sent = async () => {
    await page.locator("#draw").click();
    const job = await worker.next();
    await job.finish();
    await card(page, "COMPLETED");
    return { shade: job.input.mask_repaint, paste: job.input.mask_paste, input: job.input, seen: job.input.mask && await bright(page, job.input.mask, places) };
  };
  const first = await sent();
  assert.deepEqual([first.shade, first.paste, first.seen], ["black", undefined, [0, 255, 255]], "black is redrawn");
  await stroke([0.4, 0.05], [0.4, 0.05]);
  await move([0.7, 0.4]);
  await page.shot("desktop-mask");
  assert.deepEqual((await sent()).seen, [0, 0, 255]);
  await page.getByRole("button", { name: "Undo" }).click();
  assert.deepEqual((await sent()).seen, [0, 255, 255]);
  await page.getByRole("button", { name: "Erase" }).click();
  await stroke([0.4, 0.5], [0.4, 0.5]);
  assert.deepEqual((await sent()).seen, [255, 255, 255]);
  await page.getByRole("button", { name: "Undo" }).click();
  await page.getByRole("button", { name: "Invert" }).click();
  assert.deepEqual((await sent()).seen, [255, 0, 0]);
  await page.locator("#mask_repaint").selectOption("white");
  await page.locator("#mask_paste").check();
  const white = await sent();
  assert.deepEqual([white.shade, white.paste, white.seen], ["white", true, [0, 255, 255]], "white is redrawn");
  await page.getByRole("button", { name: "Clear" }).click();
  const clear = await sent();
  assert.deepEqual([clear.seen, clear.shade, clear.paste], [undefined, undefined, undefined], "nothing is painted: no mask");

  // The mask comes back as it was.
  await page.locator("article.card").nth(1).locator("figcaption").getByRole("button", { name: "Again" }).click();
  const again = await sent();
  assert.deepEqual(again.input, white.input);
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  assert.equal((await sent()).input.init_image, undefined);
  await give(page, "paste", { seed: "6", width: 300, height: 300 });
  assert.equal(await page.locator("#width").inputValue(), await page.locator("#height").inputValue());
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await page.locator("#file").setInputFiles({ name: "no.txt", mimeType: "text/plain", buffer: Buffer.from("x") });
  await page.locator("#fault-init_image").getByText("no.txt is no PNG").waitFor();
  await page.locator("article.card").first().getByRole("button", { name: "Edit" }).click();
  await page.locator("#begun").waitFor();
  await page.calm();
});

test("an endpoint of SDXL Turbo begins from no picture, and says what it drew beside the images", async () => {
  const own = await House.open({}, '[[endpoints]]\nid = "turbo"\ncontract = "sdxl_turbo"\n');
  const drawer = new Worker(`${own.gateway.url}/v2/turbo`);
  try {
    const page = await own.visit();
    await page.locator("#settings").evaluate((settings) => { settings.open = true; });
    assert.equal(await page.locator("#scheduler").isVisible(), true);
    assert.equal(await page.locator("#start").isVisible(), false);
    await page.locator("#file").setInputFiles({ name: "hills.png", mimeType: "image/png", buffer: picture("1", 64, 64) });
    await draw(page, { prompt: "hills", width: 136, height: 72, num_outputs: 2, sigmas: "sgm_uniform", seed: BIGGEST });
    const job = await drawer.next();
    assert.deepEqual(job.input, {
      prompt: "hills", width: 136, height: 72, num_images: 2, num_inference_steps: 1, guidance_scale: 0, scheduler: "EULER-A", sigmas: "sgm_uniform", eta: 0, prompt_syntax: "plain", clip_skip: 0, preview: true, seed: BIGGEST,
    });
    const images = [BIGGEST, "0"].map((seed) => ({ image: picture(seed, 136, 72).toString("base64"), seed }));
    await job.finish({ output: { generation_time: 0.4, images, parameters: { prompt: "hills", seed: BIGGEST } } });
    const shown = await card(page, "COMPLETED");
    assert.deepEqual(await shown.locator(".seed output").allTextContents(), [BIGGEST, "0"]);
    assert.equal(await shown.locator(".frame img").evaluateAll((all) => all.filter((image) => image.naturalWidth === 136).length), 2);
    await page.calm();
  } finally {
    await drawer.stop();
    await own.close();
  }
});

test("an endpoint of SDXL has its own fields, sides and results", async () => {
  const endpoints = '[[endpoints]]\nid = "stable-diffusion-v1"\n[[endpoints]]\nid = "sdxl"\ncontract = "sdxl"\n';
  const own = await House.open({}, endpoints);
  const drawer = new Worker(`${own.gateway.url}/v2/sdxl`);
  try {
    const page = await own.visit();
    const side = () => page.locator("#width").evaluate(({ localName, min, max, step, value }) => [localName, min, max, step, value]);
    assert.equal((await side())[0], "select");
    const ofRefiner = async (visible) => {
      for (const name of ["#high_noise_frac", "#refine", "#refiner_inference_steps"]) assert.equal(await page.locator(name).isVisible(), visible, name);
    };
    await ofRefiner(false);
    await page.locator("#num_inference_steps").fill("33");
    await page.locator("#endpoint").selectOption("sdxl");
    assert.deepEqual(await side(), ["input", "64", "2048", "8", "1024"]);
    await ofRefiner(true); // its workers may have one
    assert.equal(await page.locator("#num_inference_steps").inputValue(), "33", "what a person changed stays");

    await draw(page, { prompt: "hills", width: 1001 });
    await page.getByText("This should be a multiple of 8 from 64 to 2048.").waitFor();
    await draw(page, { width: 136, height: 72, high_noise_frac: 1 });
    await page.getByText("This should be a number above 0 and below 1, or nothing.").waitFor();
    await draw(page, { high_noise_frac: 0.8, num_outputs: 2, num_inference_steps: 25, seed: BIGGEST });
    const job = await drawer.next();
    assert.deepEqual(job.input, {
      prompt: "hills", width: 136, height: 72, num_images: 2, num_inference_steps: 25, guidance_scale: 7.5, scheduler: "DDIM", sigmas: "default", eta: 0, prompt_syntax: "plain", clip_skip: 0, high_noise_frac: 0.8,
      refine: "strength", strength: 0.3, refiner_inference_steps: 50, preview: true, seed: BIGGEST,
    });
    const image = (seed) => `data:image/png;base64,${picture(seed, 136, 72).toString("base64")}`;
    const images = [image("1"), image("2")];
    await job.finish({ output: { images, image_url: images[0], seed: BIGGEST, seeds: [BIGGEST, "0"] } });
    const shown = await card(page, "COMPLETED");
    assert.deepEqual(await shown.locator(".seed output").allTextContents(), [BIGGEST, "0"]);
    assert.equal(await shown.locator(".frame img").evaluateAll((all) => all.filter((image) => image.naturalWidth === 136).length), 2);
    await shown.getByText("136 × 72 · DDIM · 25 steps · guidance 7.5 · ends after 0.8").waitFor();
    await shown.locator("figcaption").nth(1).getByRole("button", { name: "Again" }).click();
    await page.locator("#draw").click();
    const alone = await drawer.next();
    assert.deepEqual([alone.input.num_images, alone.input.seed], [1, "0"]);
    await alone.finish({ output: { images: [images[1]], image_url: images[1], seed: "0", seeds: ["0"] } });
    await card(page, "COMPLETED");
    await page.shot("desktop-sdxl");

    // An image decides about the size: what has no effect beside it is not sent.
    const uri = await give(page, "drop");
    assert.equal(await page.getByRole("button", { name: "Paint a mask" }).isVisible(), true);
    assert.equal(await page.locator("#prompt_strength").inputValue(), "0.3");
    await draw(page, { prompt: "on the hills", refiner_inference_steps: 20, seed: "7" });
    const begun = await drawer.next();
    assert.deepEqual(begun.input, {
      prompt: "on the hills", guidance_scale: 7.5, scheduler: "DDIM", sigmas: "default", eta: 0, prompt_syntax: "plain", clip_skip: 0, image_url: uri, strength: 0.3, refiner_inference_steps: 20, preview: true, seed: "7",
    });
    await begun.fail(["image_url does not meet the constraints.", "strength does not meet the constraints."]);
    await card(page, "FAILED");
    await page.locator("#fault-init_image").getByText("image_url does not meet").waitFor();
    await page.locator("#fault-prompt_strength").getByText("strength does not meet").waitFor();
    await page.locator("#endpoint").selectOption("stable-diffusion-v1");
    assert.deepEqual([(await side())[0], await page.locator("#prompt_strength").inputValue()], ["select", "0.8"]);
    await page.calm();
  } finally {
    await drawer.stop();
    await own.close();
  }
});

test("the curl line of a request draws the same", async () => {
  const page = await house.visit();
  const line = async (shown) => {
    await shown.getByRole("button", { name: "curl" }).click();
    await shown.getByText("Copied.").waitFor();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  await draw(page, { prompt: "it's “quoted” $HOME `x` \\ \"y\"", num_outputs: 2, width: 128, height: 128 });
  const first = await worker.next();
  await first.finish();
  const shown = await card(page, "COMPLETED");
  const text = await line(shown);
  await page.shot("desktop-curl");
  const asked = shell(text);
  const second = await worker.next();
  await second.finish();
  const reply = await asked;
  assert.deepEqual(second.input, first.input);
  assert.deepEqual([reply.status, reply.output.length], ["COMPLETED", 2]);
  const seen = await shown.locator(".frame img").evaluateAll((all) => Promise.all(all.map(async ({ src }) => {
    const image = new Image();
    image.src = src;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    canvas.getContext("2d").drawImage(image, 0, 0);
    return [...canvas.getContext("2d").getImageData(64, 64, 1, 1).data];
  })));
  const theirs = await page.evaluate((all) => Promise.all(all.map(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    canvas.getContext("2d").drawImage(image, 0, 0);
    return [...canvas.getContext("2d").getImageData(64, 64, 1, 1).data];
  })), reply.output.map(({ image }) => image));
  assert.deepEqual(theirs, seen);
  // Larger than what a shell takes as an argument.
  await give(page, "drop", { seed: "9", width: 1400, height: 1100 });
  await draw(page);
  const large = await worker.next();
  assert.ok(large.text.length > 131_072, `${large.text.length} bytes`);
  await large.finish();
  const whole = await line(await card(page, "COMPLETED"));
  assert.ok((await page.locator(".curl pre").first().textContent()).length < 2000, "shown in short");
  const piped = shell(whole);
  const same = await worker.next();
  await same.finish();
  assert.equal((await piped).status, "COMPLETED");
  assert.deepEqual(same.input, large.input);
  await page.calm();
});

test("a gateway that goes away is said so, and its jobs go on when it is back", async () => {
  const page = await house.visit();
  await draw(page, { prompt: "patience" });
  const job = await worker.next();
  await card(page, "IN_PROGRESS");
  await house.gateway.kill();
  await page.locator("article.card").getByText("cannot be reached").waitFor();
  await page.locator("#state").getByText("cannot be reached").waitFor();
  await draw(page);
  await page.locator("#said").getByText("cannot be reached").waitFor();
  await page.shot("desktop-gone");
  await house.gateway.begin();
  await job.finish();
  const shown = await card(page, "COMPLETED");
  assert.equal(await shown.getByText("cannot be reached").count(), 0);
  await page.calm();
});

test("the keyboard is enough, and everything has a name", async () => {
  const page = await house.visit();
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt", "one can write at once");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "draw");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "one sees where one is");
  await page.keyboard.press("Control+Enter");
  await (await worker.next()).finish();
  await card(page, "COMPLETED");
  const nameless = await page.evaluate(() => [...document.querySelectorAll("input, select, textarea, button, a, img, canvas")]
    .filter((one) => !one.closest("[hidden], [aria-hidden=true]") && one.getAttribute("aria-hidden") !== "true" && one.getClientRects().length)
    .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.hasAttribute("alt")))
    .map((one) => one.outerHTML));
  assert.deepEqual(nameless, []);
  await page.calm();
});

test("dark, and small enough for a phone", async () => {
  const dark = await house.visit({ colorScheme: "dark" });
  await draw(dark, { prompt: "a valley under two moons, gouache", num_outputs: 2, width: 512, height: 384, seed: 40 });
  await (await worker.next()).finish();
  await card(dark, "COMPLETED");
  await draw(dark, { seed: 77, num_outputs: 1 });
  const job = await worker.next();
  await job.progress(22, 50, PREVIEW);
  await dark.getByText("Drawing, 22 of 50").waitFor();
  await dark.shot("desktop-dark");
  await job.finish();
  const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).reduce((sum, part) => sum + Number(part), 0) / 3);
  assert.ok(await ground(dark) < 60);
  await dark.calm();

  for (const colorScheme of ["light", "dark"]) {
    const page = await house.visit({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme });
    const fits = async () => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 390, "nothing hangs out at the side");
    await page.shot(`phone-${colorScheme}-empty`);
    await fits();
    await draw(page, { prompt: "a valley under two moons, gouache" });
    const drawn = await worker.next();
    await drawn.progress(22, 50, PREVIEW);
    await page.getByText("Drawing, 22 of 50").waitFor();
    await page.shot(`phone-${colorScheme}-drawing`);
    await drawn.finish();
    await card(page, "COMPLETED");
    await fits();
    await page.shot(`phone-${colorScheme}-picture`);
    await page.locator("summary").tap();
    await give(page, "drop");
    await page.getByRole("button", { name: "Paint a mask" }).tap();
    await page.locator("#paint").tap();
    await fits();
    await page.shot(`phone-${colorScheme}-settings`, { fullPage: true });
    await page.locator("#draw").tap();
    const masked = await worker.next();
    assert.deepEqual(await bright(page, masked.input.mask, [[0.5, 0.5], [0.05, 0.05]]), [0, 255], "a finger paints");
    await masked.finish();
    await card(page, "COMPLETED");
    await page.calm();
  }
});

test("where keys are wanted, one is asked for and kept to itself", async () => {
  const locked = await House.open({ LATENTD_API_KEYS: "open sesame", LATENTD_WORKER_KEYS: "work" });
  try {
    const page = await locked.visit();
    await page.locator("#key-dialog").waitFor();
    await page.shot("desktop-key");
    await page.locator("#key-text").fill("wrong");
    await page.keyboard.press("Enter");
    await page.locator("#key-fault").getByText("refused").waitFor();
    await page.getByRole("button", { name: "Not now" }).click();
    await page.locator("#state").getByText("wants a key").waitFor();
    await draw(page, { prompt: "behind a door" });
    await page.locator("#key-dialog").waitFor();
    await page.locator("#key-text").fill("open sesame");
    await page.keyboard.press("Enter");
    const hand = locked.hire("work");
    await (await hand.next()).finish();
    const shown = await card(page, "COMPLETED");
    await shown.getByRole("button", { name: "curl" }).click();
    await shown.getByText("Copied.").waitFor();
    const line = await page.evaluate(() => navigator.clipboard.readText());
    assert.ok(!line.includes("sesame") && line.includes("$API_KEY"), line);
    const asked = shell(line, { API_KEY: "open sesame" });
    await (await hand.next()).finish();
    assert.equal((await asked).status, "COMPLETED");
    assert.deepEqual(await page.evaluate(() => [Object.values(sessionStorage), localStorage.length, document.cookie]), [["open sesame"], 0, ""]);
    await page.calm();
  } finally {
    await locked.close();
  }
});

test("pages of others queue nothing and read nothing, but for those that are listed", async () => {
  const foreign = createServer((_, reply) => reply.setHeader("Content-Type", "text/html").end("<title>foreign</title><body></body>")).listen(0, "127.0.0.1");
  await once(foreign, "listening");
  const { port } = foreign.address();
  const open = await House.open({ LATENTD_HANDLER: "external", LATENTD_GATEWAY__CORS: `http://localhost:${port}` });
  try {
    const { api, url } = open.gateway;
    const waits = async () => (await (await fetch(`${api}/health`)).json()).jobs.inQueue;
    const page = await (await open.browser.newContext()).newPage();
    await page.goto(`http://127.0.0.1:${port}/`);
    const read = await page.evaluate(async (api) => {
      await fetch(`${api}/run`, { method: "POST", mode: "no-cors", body: '{"input":{}}' });
      return fetch(`${api}/health`).then((reply) => reply.status, String);
    }, api);
    assert.match(String(read), /TypeError/);
    const [sent] = await Promise.all([
      page.waitForResponse(`${api}/run`),
      page.waitForURL(`${api}/run`),
      page.evaluate((api) => {
        const form = Object.assign(document.createElement("form"), { method: "post", enctype: "text/plain", action: `${api}/run` });
        form.append(Object.assign(document.createElement("input"), { name: '{"input":"', value: '"}' }));
        document.body.append(form);
        form.submit();
      }, api),
    ]);
    assert.equal(sent.status(), 403);
    assert.equal(await waits(), 0);
    const rebound = await page.goto(url.replace("127.0.0.1", "rebound.example"));
    assert.equal(rebound.status(), 403);
    assert.match(await rebound.text(), /gateway\.hosts/);
    await page.goto(`http://localhost:${port}/`);
    const listed = await page.evaluate(async (api) => {
      const reply = await fetch(`${api}/run`, { method: "POST", headers: { "Content-Type": "application/json", "Idempotency-Key": "k" }, body: '{"input":{}}' });
      return (await reply.json()).status;
    }, api);
    assert.deepEqual([listed, await waits()], ["IN_QUEUE", 1]);
  } finally {
    foreign.close();
    await open.close();
  }
});
