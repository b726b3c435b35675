// Jobs of this page: submitted, followed to their end, cancelled.

import { Refused, ask, chosen, complaints } from "./api.js";
import { write } from "./json.js";
import { spelled } from "./names.js";

/** Milliseconds between looks at a job: while it waits, while it is drawn, while nobody looks at the page. */
const PACE = { IN_QUEUE: 1000, IN_PROGRESS: 500, hidden: 3000 };
/** Between tries while the gateway cannot be reached, at most. */
const SLOWEST = 10_000;

const ENDS = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];
/** What any worker may have said in place of a list of texts. */
const texts = (said) => [said ?? []].flat().map((one) => (typeof one === "string" ? one : JSON.stringify(one)));
/** What of an output is a picture: a worker that is not ours may bring anything. */
function pictures(output) {
  const { images, seed, seeds = [seed] } = output ?? {};
  const all = Array.isArray(images) ? images.map((image, index) => (image?.image ? image : { image, seed: seeds[index] })) : [output].flat();
  return all.filter((one) => one?.image && typeof one.image === "string");
}

const pause = (time) => new Promise((done) => setTimeout(done, time));

/** Jobs that have not ended, the newest last. */
export const running = [];

/** A job: its input, the request that submitted it, by the names `wire` of its contract, and how it stands (`state`, as the API words it; `SENDING` before). */
export class Job {
  constructor(input, wire) {
    Object.assign(this, { input, body: write({ input: spelled(input, wire) }), of: chosen(), state: "SENDING", progress: undefined, pictures: [], warnings: [], timings: undefined });
    Object.assign(this, { errors: [], trouble: "", began: performance.now(), took: 0, news: () => {} });
  }

  get ended() {
    return ENDS.includes(this.state) || this.state === "GONE";
  }

  /** Submits it. Refusals are the caller's to tell. */
  async submit() {
    const { id, status } = await ask("run", { method: "POST", body: this.body, of: this.of });
    Object.assign(this, { id, state: status });
    running.push(this);
    this.news();
  }

  /** Looks at it until it has ended. */
  async follow() {
    let failures = 0;
    while (!this.ended) {
      await pause(this.#wait(failures));
      try {
        this.#take(await ask(`status/${encodeURIComponent(this.id)}`, { of: this.of }));
        failures = 0;
        this.trouble = "";
      } catch (cause) {
        if (!(cause instanceof Refused)) throw cause;
        failures += 1;
        this.#excuse(cause);
        if (cause.after) await pause(cause.after * 1000);
      }
      this.news();
    }
    running.splice(running.indexOf(this), 1);
  }

  /** A status has the whole input in it: large ones are asked for less often. */
  #wait(failures) {
    const pace = document.hidden ? PACE.hidden : Math.max(PACE[this.state] ?? PACE.IN_QUEUE, this.body.length / 1000);
    return Math.min(SLOWEST, pace * 2 ** failures);
  }

  #take({ status, output, error, errors, warnings, timings, executionTime }) {
    this.state = status;
    if (status === "IN_PROGRESS" && output?.total > 0 && output.evaluation >= 0) this.progress = { ...this.progress, ...output };
    if (!this.ended) return;
    Object.assign(this, { warnings: texts(warnings), timings, took: executionTime ?? performance.now() - this.began });
    if (status === "COMPLETED") {
      this.pictures = pictures(output);
      if (!this.pictures.length) this.warnings.push("There is no picture in the result.");
    } else this.errors = complaints({ error, errors });
  }

  #excuse(cause) {
    if (cause.status === 401) this.trouble = `${cause.message} The job goes on.`;
    else if (cause.passes) this.trouble = `${cause.message} Asking again; the job goes on.`;
    else {
      this.state = "GONE";
      this.errors = [cause.status === 404 ? "The gateway no longer knows this job: it keeps results for a limited time." : cause.message];
    }
  }

  /** Asks for it not to be drawn any more. */
  async cancel() {
    try {
      const { status } = await ask(`cancel/${encodeURIComponent(this.id)}`, { method: "POST", of: this.of });
      this.state = status;
    } catch (cause) {
      this.trouble = `It could not be cancelled: ${cause.message}`;
    }
    this.news();
  }
}
