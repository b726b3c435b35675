// A worker that does what the test says: it takes jobs as any worker does, and holds each until it is told how that goes on.

import { picture } from "./pictures.mjs";

/** What a worker shows of an unfinished picture. */
export const PREVIEW = "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAoHBwgHBgoICAgLCgoLDhgQDg0NDh0VFhEYIx8lJCIfIiEmKzcvJik0KSEiMEExNDk7Pj4+JS5ESUM8SDc9Pjv/2wBDAQoLCw4NDhwQEBw7KCIoOzs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozv/wAARCABAAEADASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwDDEfPzDkU7BKbccVIwcck9etOSPHJ6V6HMVylZoxgYXvU0QUA/3qdgbyecUBQDkd6OYOUaQrHpyKjfe2OxqyECHnBNMVMksTijmCxEYGYZJ3YoDfIFI71MpySq9D1p5QRccEmjmDlJWRDzjNBXAAXkU8QnycDvQqYGCcYrm5jblGyKWICgUwQbj9KnVGDgdQaRomD5HSjmDlK4A3nIziggEEKKn27SRjrSqoC5Ix70cwcpU3cBVGD3qXaCRkVKkaNlicH1o27D1BPajmDlLWOw4AqFQzSEleDV4BQhLEY9aoTahDCSmd30rnTb2NXZbk+3sKYUY9iRUEOp27thuCa0FA8vcpyDQ21uJWexVUAqflORSlGOAenpVkRjGRVCbUoLaTYTuPtQm3sDstyfYhzximtGoAxyKii1a3lfB+XPrV75MblxgihtrcFZ7FDVb5YkMS53H9K58zHnI59adcXD3LtIzfhUOcpXRThyo5pz5mSjDcjqK19I1HJ+zyHPoaxAB5ZcN+FLHJ5LpIGIINOceZWCEuV3Oh1a+EMXlh8EjtXPEk5dmzmnXdw9y+8nimKqsn1pU4cqCc+ZjVUnktW/pN+CqwMck9CawxGFOByO9OG6B9wJHoac48ysEJcruf/Z";

/** Seeds have 64 bits: here they are texts of digits. */
const read = (text) => JSON.parse(text.replace(/("seed"\s*:\s*)(-?\d+)(?=\s*[,}\]])/g, '$1"$2"'));

export class Worker {
  #over = new AbortController();
  #taken = [];
  #waiting = [];
  /** Decides about a job without being asked; returns whether it did. */
  rule = () => false;

  constructor(base, key = "") {
    Object.assign(this, { base, headers: key ? { Authorization: key } : {} });
    this.done = this.#work();
  }

  async #work() {
    while (!this.#over.signal.aborted) {
      try {
        const reply = await fetch(`${this.base}/job-take/scripted?job_in_progress=0`, { headers: this.headers, signal: this.#over.signal });
        if (reply.status === 200) this.#take(new Job(this, await reply.text()));
        else if (reply.status !== 204) throw new Error(`job-take: ${reply.status}`);
      } catch {
        // The gateway is away, or the test is over.
        await new Promise((done) => setTimeout(done, 200));
      }
    }
  }

  #take(job) {
    if (this.rule(job)) return;
    const waiting = this.#waiting.shift();
    if (waiting) waiting(job);
    else this.#taken.push(job);
  }

  /** The next job that was taken. */
  next() {
    const job = this.#taken.shift();
    return job ? Promise.resolve(job) : new Promise((done) => this.#waiting.push(done));
  }

  async stop() {
    this.#over.abort();
    await this.done;
  }
}

class Job {
  constructor(worker, text) {
    const { id, input } = read(text);
    Object.assign(this, { worker, text, id, input });
  }

  async #post(body) {
    const bare = (list) => list.replace(/"(\d+)"/g, "$1");
    const text = JSON.stringify(body).replace(/"seed":"\d+"|"seeds":\[[^\]]*\]/g, bare);
    const url = `${this.worker.base}/job-done/scripted/${this.id}?isStream=false`;
    const ask = () => fetch(url, { method: "POST", body: text, headers: this.worker.headers });
    // A connection that was kept may have been closed meanwhile; the gateway takes the same word twice.
    const reply = await ask().catch(ask);
    if (!reply.ok) throw new Error(`job-done: ${reply.status} ${await reply.text()}`);
  }

  progress(evaluation, total, preview) {
    return this.#post({ status: "IN_PROGRESS", output: { evaluation, total, preview } });
  }

  /** Its pictures, each of its own seed. */
  finish(more = {}) {
    const { seed, width, height, num_outputs: count = 1 } = this.input;
    const output = Array.from({ length: count }, (_, index) => {
      const own = BigInt.asUintN(64, BigInt(seed) + BigInt(index));
      return { image: picture(own, width, height).toString("base64"), seed: String(own) };
    });
    return this.#post({ output, timings: { total: 1234 }, ...more });
  }

  fail(error) {
    return this.#post({ error });
  }
}
