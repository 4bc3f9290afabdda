/** Puts the page together. */

import { Annotation } from "./annotation";
import { Api } from "./api";
import { announce, byId, element, say, sayError, whenText } from "./dom";
import { Drafts } from "./drafts";
import { listen, type Shortcut } from "./keys";
import { Learning } from "./learning";
import { ImageList, stateOf } from "./list";
import { keepPreferences, loadPreferences } from "./preferences";
import { Stage } from "./stage";
import { type Tool, Tools, TOOLS } from "./tools";

const REFRESH = 20000;
const NARROW = matchMedia("(max-width: 1200px)");

const preferences = loadPreferences();
keepPreferences(preferences);
const root = new URL("..", location.href).pathname.replace(/\/$/, "");
const api = new Api(root, preferences.clientId, signIn);
const drafts = new Drafts();
const stage = new Stage(byId("viewer"));
const learning = new Learning(api, preferences, {
  modelChanged: showModel,
  versionChanged: (adapter, version) => {
    const again = { text: "Automatic mask with it", act: () => void annotation.automatic() };
    if (adapter !== learning.model?.automatic) return;
    say(`Version ${version} of ${adapter} is in use.`, "info", annotation.editor ? again : undefined);
  },
  imagesChanged: () => void list.refresh().catch(() => undefined),
});
const annotation = new Annotation(api, drafts, stage, preferences, {
  model: () => learning.model,
  label: () => Number(byId<HTMLSelectElement>("class").value) || 1,
  changed: show,
  submitted: (image) => void afterSubmit(image),
});
const list = new ImageList(api, (entry) => {
  if (NARROW.matches) panel("images-panel", false);
  void openImage(entry.image);
});
const tools = new Tools(stage, {
  target: () => {
    const { editor } = annotation;
    if (!editor || annotation.readOnly) return null;
    return { editor, label: Number(byId<HTMLSelectElement>("class").value) || 1, canClick: Boolean(learning.model?.clicks) };
  },
  click: (at, positive) => annotation.click(at, positive),
  box: (box) => void annotation.box(box),
  place: (at) => {
    byId("place").textContent = at ? `${Math.floor(at.x)}, ${Math.floor(at.y)}` : "";
  },
  toolChanged: (tool) => {
    byId("size-field").hidden = tool !== "brush" && tool !== "eraser";
  },
});

async function openImage(image: string): Promise<void> {
  const entry = list.find(image);
  if (!entry) return;
  stage.viewer.canvas.focus({ preventScroll: true }); // keys are for the image from now on
  if (annotation.entry?.image !== image || !annotation.editor) await annotation.open(entry);
  list.select(annotation.entry?.image ?? image);
  await showHistory();
}

async function openNext(): Promise<void> {
  try {
    const next = await api.next(learning.strategy);
    await list.refresh();
    const inOrder = { text: "Next in the list", act: () => step(1) };
    if (!next.id) {
      say("Every image has a submitted label.");
    } else if (next.id === annotation.entry?.image) {
      say("This image is still the one to annotate next; submit its label first.", "info", inOrder);
    } else {
      await openImage(next.id);
      if (learning.needsScores && (next.score === null || next.score === undefined)) {
        say("The images have no scores yet: “Score the images” lets the most uncertain come first.");
      }
    }
  } catch (error) {
    sayError(error);
  }
}

function step(direction: 1 | -1): void {
  const entry = list.neighbour(direction);
  if (entry) void openImage(entry.image);
}

async function submit(thenNext = false): Promise<void> {
  if ((await annotation.submit()) && thenNext) await openNext();
}

async function afterSubmit(image: string): Promise<void> {
  try {
    await list.refresh();
    if (annotation.entry?.image === image) annotation.entry = list.find(image) ?? annotation.entry;
    show();
    await showHistory();
  } catch (error) {
    sayError(error);
  }
}

function undo(): void {
  const name = annotation.editor?.undo();
  if (name) announce(`Undone: ${name}`);
}

function redo(): void {
  const name = annotation.editor?.redo();
  if (name) announce(`Done again: ${name}`);
}

/** Bring the page up to date with the open image. */
function show(): void {
  const { editor, entry, busy, readOnly } = annotation;
  const dirty = annotation.dirty;
  byId("image-name").textContent = entry?.image ?? "No image open";
  const state = entry ? stateOf(entry, dirty) : null;
  byId("image-state").textContent = readOnly ? "View only" : (state?.text ?? "");
  byId("image-state").className = `chip ${state?.kind ?? ""}`;
  byId("image-state").title = editor?.origin ? `Began as ${editor.origin}` : "";
  byId("empty").hidden = Boolean(entry);
  byId("busy").hidden = !busy;
  button("undo").disabled = !editor?.undoable;
  button("redo").disabled = !editor?.redoable;
  button("undo").title = `Undo${editor?.undoable ? `: ${editor.undoable}` : ""} (Z)`;
  button("redo").title = `Redo${editor?.redoable ? `: ${editor.redoable}` : ""} (Y)`;
  button("submit").disabled = !editor || busy || Boolean(readOnly);
  button("automatic").disabled = !editor || busy || Boolean(readOnly) || !learning.model;
  const gaps = editor?.marks.breaks.length ?? 0;
  byId("gap").hidden = !gaps;
  byId("gap-text").textContent = gaps === 1 ? "1 possible break" : `${gaps} possible breaks`;
  document.title = `${dirty ? "• " : ""}${entry ? `${entry.image} – ` : ""}topolora label`;
  if (editor && entry) {
    const { width, height } = editor.mask;
    stage.describe(`Image ${entry.image}, ${width} by ${height} pixels. ${state?.text}. ${gaps} possible breaks. Arrow keys move it, Enter uses the tool at the cross in the middle.`);
    const known = new Set(list.drafts);
    if (dirty) known.add(entry.image);
    else known.delete(entry.image);
    if (known.size !== list.drafts.size) {
      list.drafts = known;
      list.show();
    }
  }
}

async function showHistory(): Promise<void> {
  const image = annotation.entry?.image;
  const place = byId("history");
  if (!image || !("final" in (annotation.entry?.labels ?? {}))) {
    place.replaceChildren(element("li", "quiet", "None yet."));
    return;
  }
  const versions = await api.labels(image, "final").catch(() => []);
  if (annotation.entry?.image !== image) return;
  place.replaceChildren(
    ...versions.reverse().map((told) => {
      const item = element("li");
      item.append(element("strong", "", `Version ${told.version}`));
      item.append(element("span", "quiet", `${whenText(told.time)} · ${told.user ?? told.client_id ?? "nobody named"}`));
      if (told.file) {
        const load = element("button", "button small", "Load");
        load.type = "button";
        load.setAttribute("aria-label", `Load version ${told.version}`);
        load.addEventListener("click", () => void annotation.loadVersion(told.version));
        item.append(load);
      }
      return item;
    }),
  );
}

function showModel(): void {
  const classes = learning.classes;
  const select = byId<HTMLSelectElement>("class");
  const chosen = select.value;
  select.replaceChildren(
    ...classes.map(([name, number]) => {
      const option = element("option", "", name);
      option.value = String(number);
      return option;
    }),
  );
  if (classes.some(([, number]) => String(number) === chosen)) select.value = chosen;
  byId("class-field").hidden = classes.length < 2;
  tools.allow(Boolean(learning.model?.clicks));
  show();
}

function panel(id: string, open?: boolean): void {
  const side = document.body.classList;
  const name = NARROW.matches ? `show-${id}` : `hide-${id}`;
  const wanted = open ?? !(NARROW.matches ? side.contains(name) : !side.contains(name));
  if (NARROW.matches && wanted) side.remove("show-images-panel", "show-model-panel");
  side.toggle(name, NARROW.matches ? wanted : !wanted);
  showPanels();
}

function showPanels(): void {
  for (const [id, toggle] of [["images-panel", "toggle-images"], ["model-panel", "toggle-model"]] as const) {
    const side = document.body.classList;
    const open = NARROW.matches ? side.contains(`show-${id}`) : !side.contains(`hide-${id}`);
    byId(toggle).setAttribute("aria-expanded", String(open));
    byId(id).inert = !open;
  }
}

function setSize(size: number): void {
  preferences.size = tools.size = Math.min(60, Math.max(1, size));
  byId<HTMLInputElement>("size").value = String(tools.size);
  byId("size-value").textContent = `${tools.size} px`;
  if (stage.cursor?.diameter) stage.cursor.diameter = tools.size;
  stage.redraw();
  keepPreferences(preferences);
}

function setOpacity(percent: number): void {
  preferences.opacity = Math.min(100, Math.max(0, percent));
  stage.opacity = preferences.opacity / 100;
  byId<HTMLInputElement>("opacity").value = String(preferences.opacity);
  byId("opacity-value").textContent = `${preferences.opacity} %`;
  stage.redraw();
  keepPreferences(preferences);
}

function toggleMask(): void {
  stage.hidden = !stage.hidden;
  byId("hide").setAttribute("aria-pressed", String(stage.hidden));
  announce(stage.hidden ? "Mask hidden" : "Mask shown");
  stage.redraw();
}

function nextGap(): void {
  const index = stage.nextBreak();
  if (index !== null) announce(`Possible break ${index + 1} of ${stage.marks.breaks.length}`);
  setTimeout(() => tools.showCross(), 350);
}

function setTheme(theme: typeof preferences.theme): void {
  preferences.theme = theme;
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset["theme"] = theme;
  byId("theme").title = `Colour scheme: ${theme} (D)`;
  keepPreferences(preferences);
}

function nextTheme(): void {
  const themes = ["auto", "light", "dark"] as const;
  setTheme(themes[(themes.indexOf(preferences.theme) + 1) % 3]!);
  announce(`Colour scheme ${preferences.theme}`);
}

function move(right: number, down: number): void {
  if (!stage.isOpen) return;
  stage.pan(right, down);
  setTimeout(() => tools.showCross(), 350);
}

function zoom(factor: number): void {
  if (stage.isOpen) stage.zoom(factor);
}

function openHelp(): void {
  byId<HTMLDialogElement>("help-dialog").showModal();
}

async function signIn(): Promise<void> {
  const dialog = byId<HTMLDialogElement>("sign-in");
  const form = byId<HTMLFormElement>("sign-in-form");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  await new Promise<void>((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      const password = byId<HTMLInputElement>("sign-in-password");
      try {
        await api.authenticate(byId<HTMLInputElement>("sign-in-name").value, password.value);
        password.value = byId("sign-in-error").textContent = "";
        resolve();
      } catch (error) {
        byId("sign-in-error").textContent = error instanceof Error ? error.message : String(error);
      }
    };
  });
  dialog.close();
}

function button(id: string): HTMLButtonElement {
  return byId<HTMLButtonElement>(id);
}

function shortcuts(): Record<string, Shortcut[]> {
  const tool = (name: Tool, digit: number): Shortcut => {
    const { text, key } = TOOLS.find((entry) => entry.tool === name)!;
    return { keys: [key.toLowerCase(), String(digit)], text, shown: `${key} ${digit}`, act: () => tools.choose(name) };
  };
  return {
    Tools: [
      ...TOOLS.map((entry, index) => tool(entry.tool, index + 1)),
      { keys: ["["], text: "Smaller brush", act: () => setSize(tools.size - (tools.size > 10 ? 3 : 1)) },
      { keys: ["]"], text: "Larger brush", act: () => setSize(tools.size + (tools.size >= 10 ? 3 : 1)) },
      { keys: ["Enter"], text: "Use the tool at the cross", shown: "Enter", act: () => tools.useAtCentre(false) },
      { keys: ["Shift+Enter"], text: "The opposite at the cross", shown: "Shift Enter", act: () => tools.useAtCentre(true) },
      { keys: ["Escape"], text: "Give up what is being drawn", shown: "Esc", act: () => tools.cancel() },
    ],
    Label: [
      { keys: ["a"], text: "Automatic mask", act: () => void annotation.automatic() },
      { keys: ["z", "Ctrl+z"], text: "Undo", act: undo },
      { keys: ["y", "Ctrl+y", "Ctrl+Shift+z"], text: "Redo", act: redo },
      { keys: ["g"], text: "Next possible break", act: nextGap },
      { keys: ["s", "Ctrl+s"], text: "Submit", act: () => void submit() },
      { keys: ["Ctrl+Enter"], text: "Submit, then the next image", shown: "Ctrl Enter", act: () => void submit(true) },
    ],
    Images: [
      { keys: ["x"], text: "Next to annotate, by active learning", act: () => void openNext() },
      { keys: ["j", "PageDown"], text: "Next in the list", shown: "J", act: () => step(1) },
      { keys: ["k", "PageUp"], text: "Previous in the list", shown: "K", act: () => step(-1) },
    ],
    View: [
      { keys: ["ArrowLeft"], text: "Move", shown: "← → ↑ ↓", act: () => move(-0.1, 0) },
      { keys: ["+", "="], text: "Zoom in", act: () => zoom(1.4) },
      { keys: ["-"], text: "Zoom out", act: () => zoom(1 / 1.4) },
      { keys: ["0"], text: "Whole image", act: () => stage.isOpen && stage.fit() },
      { keys: ["h"], text: "Hide or show the mask", act: toggleMask },
      { keys: [","], text: "Fainter mask", act: () => setOpacity(preferences.opacity - 10) },
      { keys: ["."], text: "Stronger mask", act: () => setOpacity(preferences.opacity + 10) },
      { keys: ["i"], text: "List of images", act: () => panel("images-panel") },
      { keys: ["o"], text: "Model and training", act: () => panel("model-panel") },
      { keys: ["d"], text: "Colour scheme", act: nextTheme },
      { keys: ["?"], text: "This help", act: openHelp },
    ],
  };
}

function wire(): void {
  const groups = shortcuts();
  const moves: [string, number, number][] = [["ArrowRight", 0.1, 0], ["ArrowUp", 0, -0.1], ["ArrowDown", 0, 0.1]];
  const unlisted = moves.map(([key, right, down]) => ({ keys: [key], text: "", act: () => move(right, down) }));
  listen(groups, unlisted, () => preferences.singleKeys);
  const clicks: Record<string, () => void> = {
    undo, redo, submit: () => void submit(), next: () => void openNext(), theme: nextTheme, help: openHelp,
    "toggle-images": () => panel("images-panel"), "toggle-model": () => panel("model-panel"),
    automatic: () => void annotation.automatic(), hide: toggleMask, gap: nextGap, fit: () => stage.isOpen && stage.fit(),
  };
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
  for (const close of document.querySelectorAll<HTMLElement>("[data-close]")) {
    close.addEventListener("click", () => panel(close.dataset["close"]!, false));
  }
  for (const dismiss of document.querySelectorAll("[data-dismiss]")) {
    dismiss.addEventListener("click", () => dismiss.closest("dialog")!.close());
  }
  const input = (id: string) => byId<HTMLInputElement>(id);
  input("size").addEventListener("input", () => setSize(input("size").valueAsNumber));
  input("opacity").addEventListener("input", () => setOpacity(input("opacity").valueAsNumber));
  remember("automatic-always", "automatic");
  remember("single-keys", "singleKeys");
  input("user").value = preferences.user;
  input("user").addEventListener("input", () => {
    preferences.user = input("user").value;
    keepPreferences(preferences);
  });
  NARROW.addEventListener("change", showPanels);
  addEventListener("beforeunload", (event) => {
    if (!annotation.dirty) return;
    void annotation.keepNow();
    event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) void annotation.keepNow();
    else void list.refresh().catch(() => undefined);
  });
  setInterval(() => !document.hidden && void list.refresh().catch(() => undefined), REFRESH);
}

function remember(id: string, name: "automatic" | "singleKeys"): void {
  const box = byId<HTMLInputElement>(id);
  box.checked = preferences[name];
  box.addEventListener("change", () => {
    preferences[name] = box.checked;
    keepPreferences(preferences);
  });
}

async function start(): Promise<void> {
  wire();
  setTheme(preferences.theme);
  setSize(preferences.size);
  setOpacity(preferences.opacity);
  showPanels();
  byId<HTMLInputElement>("epochs").value = "8";
  list.drafts = await drafts.images().catch(() => new Set<string>());
  if (await api.needsToken()) {
    const user = await api.user();
    const name = byId<HTMLInputElement>("user");
    name.value = user;
    name.disabled = true;
  }
  await learning.start();
  await list.refresh();
  const first = list.entries.find((entry) => !("final" in entry.labels)) ?? list.entries[0];
  if (first) await openImage(first.image);
  else byId("empty").textContent = "The folder of images is empty.";
}

start().catch(sayError);
