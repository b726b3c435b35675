// The real gateway, on a free port and a store of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export class Gateway {
  /** With a configuration file of this text, if there is one. */
  static async start(binary, environment = {}, configuration = "") {
    const folder = await mkdtemp(join(tmpdir(), "latentd-page-"));
    await writeFile(join(folder, "latentd.toml"), configuration);
    const gateway = Object.assign(new Gateway(), { binary, environment, folder, listen: "127.0.0.1:0" });
    await gateway.begin();
    return gateway;
  }

  /** Starts the process; again where it was. */
  async begin() {
    const environment = { LATENTD_LISTEN: this.listen, LATENTD_STORE: `sqlite:${join(this.folder, "queue.db")}`, ...this.environment };
    this.process = spawn(this.binary, ["gateway"], { cwd: this.folder, env: environment, stdio: ["ignore", "pipe", "inherit"] });
    // Whatever ends the test, it ends.
    process.once("exit", () => this.process.kill("SIGKILL"));
    this.ended = once(this.process, "exit");
    const [line] = await Promise.race([once(createInterface(this.process.stdout), "line"), this.ended.then(([code]) => [`it ended with ${code}`])]);
    if (!line.startsWith("listening on http://")) throw new Error(`the gateway does not listen: ${line}`);
    this.url = line.slice("listening on ".length);
    this.listen = new URL(this.url).host;
    this.api = `${this.url}/v2/stable-diffusion-v1`;
  }

  async kill() {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async stop() {
    await this.kill();
    await rm(this.folder, { recursive: true });
  }
}
