/** Small helpers for the page. */

/** The element with an id, which is in the page. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found as T;
}

/** A new element with a class and text. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** One of the page's icons. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** When something was, as people of the browser's language write it. */
export function whenText(time: string | number): string {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** A question that is answered by yes or no. */
export async function ask(question: string, yes: string): Promise<boolean> {
  return (await choose(question, { yes })) === "yes";
}

/** A question with answers, by their names, the last of which is the main one; null for none of them. */
export async function choose(question: string, answers: Record<string, string>): Promise<string | null> {
  const dialog = byId<HTMLDialogElement>("ask");
  byId("ask-text").textContent = question;
  const texts = Object.entries({ "": "Cancel", ...answers });
  byId("ask-answers").replaceChildren(
    ...texts.map(([name, text], index) => {
      const button = element("button", `button${index === texts.length - 1 ? " primary" : ""}`, text);
      button.value = name;
      return button;
    }),
  );
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue || null;
}

/** Say something to screen readers. */
export function announce(text: string): void {
  byId("announce").textContent = text;
}

export interface Message {
  close(): void;
}

/** Show a message; errors stay until they are closed. */
export function say(text: string, kind: "info" | "error" = "info", action?: { text: string; act: () => void }): Message {
  const box = element("div", `message ${kind}`);
  box.setAttribute("role", kind === "error" ? "alert" : "status");
  box.append(element("span", "", text));
  const close = () => box.remove();
  if (action) {
    const button = element("button", "button small", action.text);
    button.type = "button";
    button.addEventListener("click", () => {
      close();
      action.act();
    });
    box.append(button);
  }
  const dismiss = element("button", "icon-button small");
  dismiss.type = "button";
  dismiss.setAttribute("aria-label", "Dismiss");
  dismiss.append(icon("close"));
  dismiss.addEventListener("click", close);
  box.append(dismiss);
  const messages = byId("messages");
  for (const same of [...messages.children]) if (same.firstChild?.textContent === text) same.remove();
  messages.append(box);
  while (messages.children.length > 3) messages.firstElementChild?.remove();
  if (kind === "info") setTimeout(close, action ? 15000 : 5000);
  return { close };
}

/** Show what went wrong. */
export function sayError(error: unknown): void {
  say(error instanceof Error ? error.message : String(error), "error");
}
