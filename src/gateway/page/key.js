// The key of this gateway, kept until the tab is closed.

import { by, tell } from "./dom.js";

const PLACE = "latentd-key";
let asking;

/** The key; none if nobody gave one. */
export const bearer = () => sessionStorage.getItem(PLACE) ?? undefined;

/** Asks a person for a key; `wrong` is one that was refused. Whoever asks meanwhile gets the same answer: whether there is one. */
export function askForKey(wrong) {
  asking ??= new Promise((answer) => {
    const [dialog, text] = [by("key-dialog"), by("key-text")];
    tell(by("key-fault"), wrong && "The gateway refused that key.");
    text.value = "";
    text.setAttribute("aria-invalid", Boolean(wrong));
    dialog.returnValue = "";
    dialog.onclose = () => {
      asking = undefined;
      const given = dialog.returnValue === "use" && text.value.trim();
      text.value = "";
      if (given) sessionStorage.setItem(PLACE, given);
      answer(Boolean(given));
    };
    dialog.showModal();
    text.focus();
  });
  return asking;
}
