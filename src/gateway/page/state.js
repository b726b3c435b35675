// The queue and its workers, in words.

import { ask } from "./api.js";
import { by } from "./dom.js";
import { running } from "./jobs.js";

const PACE = 4000;
const count = (number, one, many) => (number === 1 ? `1 ${one}` : `${number} ${many}`);

/** What the counts of `/health` mean, and whether anybody draws. */
export function words({ jobs, workers }) {
  const here = workers.idle + workers.running;
  const parts = [];
  if (jobs.inProgress) parts.push(`${jobs.inProgress} being drawn`);
  if (jobs.inQueue) parts.push(`${jobs.inQueue} waiting`);
  if (here) parts.push(`${count(here, "worker", "workers")}${workers.running ? "" : ", idle"}`);
  if (workers.initializing) parts.push(`${count(workers.initializing, "worker starts", "workers start")}`);
  if (workers.unhealthy) parts.push(`${count(workers.unhealthy, "worker is", "workers are")} not fit`);
  if (!here && !workers.initializing) parts.push(jobs.inQueue ? "no worker is here yet" : "no worker is here: jobs wait for one");
  return { text: parts.join(" · "), mood: here ? (workers.running ? "busy" : "ready") : "none" };
}

async function look() {
  const place = by("state");
  try {
    const { text, mood } = words(await ask("health"));
    place.lastElementChild.textContent = text;
    place.dataset.mood = mood;
  } catch (cause) {
    place.lastElementChild.textContent = cause.message;
    place.dataset.mood = "lost";
  }
}

/** Keeps looking while somebody looks at the page; at once when something has changed. */
export function watch() {
  const turn = async () => {
    if (!document.hidden || running.length) await look();
    setTimeout(turn, PACE);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  return turn();
}

export { look };
