// One picture, as large as it can be; the arrow keys go through all of them.

import { by } from "./dom.js";

const dialog = by("viewer");
let shown;

/** Shows a picture of the page. */
export function view(image) {
  shown = image;
  by("viewer-image").src = image.src;
  by("viewer-image").alt = image.alt;
  by("viewer-words").textContent = image.alt;
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const all = [...document.querySelectorAll(".frame img")];
  view(all[(all.indexOf(shown) + by + all.length) % all.length]);
}

by("viewer-back").onclick = () => step(-1);
by("viewer-next").onclick = () => step(1);
by("viewer-close").onclick = () => dialog.close();
dialog.onkeydown = ({ key }) => {
  if (key === "ArrowLeft") step(-1);
  if (key === "ArrowRight") step(1);
};
// Beside the picture is out of it.
dialog.onclick = ({ target }) => { if (target === dialog) dialog.close(); };
