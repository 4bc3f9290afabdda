/** The keyboard: one table, which the help is made of too. */

import { byId, element } from "./dom";

export interface Shortcut {
  /** As `KeyboardEvent.key`, letters in lower case, with `Ctrl+` or `Shift+` before it. */
  keys: string[];
  text: string;
  act: () => void;
  /** Keys as they are shown, where they are not the same. */
  shown?: string;
}

/**
 * Answer keys, unless they are typed into a field or a dialog is open.
 *
 * @param groups shortcuts by heading, for the help.
 * @param unlisted further ones that the help leaves out.
 * @param singleKeys whether keys without Ctrl are on.
 */
export function listen(groups: Record<string, Shortcut[]>, unlisted: Shortcut[], singleKeys: () => boolean): void {
  const all = [...Object.values(groups).flat(), ...unlisted];
  const actions = new Map(all.flatMap(({ keys, act }) => keys.map((key) => [key, act] as const)));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target as HTMLElement;
    const typing = target.matches("input[type=text], input[type=search], input[type=number], input[type=password], select, textarea");
    const control = event.ctrlKey || event.metaKey;
    const named = event.key.length > 1;
    if (typing && !control) return;
    if (!control && !named && !singleKeys()) return;
    // Buttons, links and sliders use some keys themselves.
    const own = target.matches("button, a, summary, input") && ["Enter", " "].includes(event.key);
    if (own || (target.matches("input[type=range], input[type=radio]") && event.key.startsWith("Arrow"))) return;
    // What Shift makes of a digit differs between keyboards; a key of that sign itself comes first.
    const digit = event.shiftKey && !control ? `Shift+${event.code.replace("Digit", "")}` : "";
    const act = actions.get(nameOf(event, control)) ?? actions.get(digit);
    if (!act) return;
    event.preventDefault();
    act();
  });
  showHelp(groups);
}

function nameOf(event: KeyboardEvent, control: boolean): string {
  const letter = /^[a-z]$/i.test(event.key);
  const shift = event.shiftKey && (letter || event.key.length > 1) ? "Shift+" : "";
  return `${control ? "Ctrl+" : ""}${shift}${letter ? event.key.toLowerCase() : event.key}`;
}

function showHelp(groups: Record<string, Shortcut[]>): void {
  const sections = Object.entries(groups).map(([title, shortcuts]) => {
    const section = element("section");
    const list = element("dl");
    for (const { keys, text, shown } of shortcuts) {
      const term = element("dt");
      for (const key of (shown ?? keys[0]!.toUpperCase()).split(" ")) term.append(element("kbd", "", key));
      list.append(term, element("dd", "", text));
    }
    section.append(element("h3", "", title), list);
    return section;
  });
  byId("help-keys").replaceChildren(...sections);
}
