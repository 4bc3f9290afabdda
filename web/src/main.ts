/** Puts the page together. */

import { addressedImage, addressImage, watchAddress } from "./address";
import { Annotation } from "./annotation";
import { Api, type LabelVersion } from "./api";
import { Classes } from "./classes";
import { palette } from "./colours";
import { Display } from "./display";
import { announce, byId, element, say, sayError, whenText } from "./dom";
import { Drafts } from "./drafts";
import { listen, type Shortcut } from "./keys";
import { Learning, strategyText } from "./learning";
import { ImageList, stateOf } from "./list";
import { People } from "./people";
import { keepPreferences, loadPreferences } from "./preferences";
import { Refine } from "./refine";
import { Review } from "./review";
import { Stage } from "./stage";
import { Tab } from "./tab";
import { type Tool, Tools, TOOLS } from "./tools";

const REFRESH = 20000;
const NARROW = matchMedia("(max-width: 1200px)");

const preferences = loadPreferences();
keepPreferences(preferences);
const root = new URL("..", location.href).pathname.replace(/\/$/, "");
const api = new Api(root, preferences.clientId, () => people.signIn());
const people = new People(api, preferences, leave);
const drafts = new Drafts(new Tab());
const stage = new Stage(byId("viewer"));
const classes = new Classes(palette(preferences.palette));
const learning = new Learning(api, preferences, {
  modelChanged: showModel,
  versionChanged: (adapter, version) => {
    const again = { text: "Automatic mask with it", act: () => void annotation.automatic() };
    if (adapter !== learning.model?.automatic) return;
    say(`Version ${version} of ${adapter} is in use.`, "info", annotation.editor ? again : undefined);
  },
  images: async () => {
    await list.refresh();
    return list.entries;
  },
});
const annotation = new Annotation(api, drafts, stage, preferences, {
  model: () => learning.model,
  label: () => classes.chosen,
  changed: show,
  submitted: (image) => void afterSubmit(image),
});
const display = new Display(stage, preferences, {
  windowChanged: (window) => void annotation.setWindow(window),
  paletteChanged: (chosen) => classes.paint(chosen),
});
const refine = new Refine(annotation, () => classes.chosen);
const review = new Review(api, annotation, people, async () => {
  await list.refresh();
  renewEntry();
});
const list = new ImageList(api, (entry) => {
  if (NARROW.matches) panel("images-panel", false);
  void openImage(entry.image);
});
const tools = new Tools(stage, {
  target: () => {
    const { editor } = annotation;
    if (!editor || annotation.readOnly) return null;
    return { editor, label: classes.chosen, canClick: Boolean(learning.model?.clicks) };
  },
  click: (at, positive) => annotation.click(at, positive),
  box: (box) => void annotation.box(box),
  bridge: (at) => annotation.bridge(at),
  trace: (part, signal) => annotation.trace(part, signal),
  place: (at) => {
    byId("place").textContent = at ? `${Math.floor(at.x)}, ${Math.floor(at.y)}` : "";
    stage.moveGlass(at);
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
  addressImage(annotation.entry?.image ?? image);
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
  if (people.may("submit") && (await annotation.submit()) && thenNext) await openNext();
}

async function afterSubmit(image: string): Promise<void> {
  try {
    await list.refresh();
    if (annotation.entry?.image === image) renewEntry();
    await showHistory();
  } catch (error) {
    sayError(error);
  }
}

/** Take in what the list says of the open image. */
function renewEntry(): void {
  if (annotation.entry) annotation.entry = list.find(annotation.entry.image) ?? annotation.entry;
  show();
}

function undo(): void {
  const name = annotation.editor?.undo();
  if (!name) return;
  tools.undone(name);
  announce(`Undone: ${name}`);
}

function redo(): void {
  const name = annotation.editor?.redo();
  if (name) announce(`Done again: ${name}`);
}

/** Bring the page up to date with the open image. */
function show(): void {
  const { editor, entry, busy, readOnly } = annotation;
  const dirty = annotation.dirty;
  byId("image-name").textContent = byId("image-name").title = entry?.image ?? "No image open";
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
  button("submit").disabled = !editor || busy || Boolean(readOnly) || !people.may("submit");
  button("automatic").disabled = !editor || busy || Boolean(readOnly) || !learning.model;
  const gaps = editor?.marks.breaks.length ?? 0;
  byId("gap").hidden = !preferences.breaks || !(gaps || annotation.seeking);
  button("gap").disabled = !gaps;
  byId("gap-text").textContent = annotation.seeking ? "Looking for breaks …" : gaps === 1 ? "1 possible break" : `${gaps} possible breaks`;
  refine.show();
  review.show();
  showScores();
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
        const shown = annotation.compared === told.version;
        const row = element("div", "row");
        row.append(
          versionButton("Load", `Load version ${told.version}`, () => void annotation.loadVersion(told.version)),
          versionButton(shown ? "Hide borders" : "Compare", `Borders of version ${told.version}`, () => void compare(told)),
        );
        item.append(row);
      }
      return item;
    }),
  );
}

/** What made the open image come next. */
function showScores(): void {
  const scores = Object.entries(annotation.entry?.scores ?? {}).map(
    ([kind, { score, version }]) => `${strategyText(kind)} ${score.toPrecision(3)} (version ${version})`,
  );
  byId("image-scores").textContent = scores.length ? `This image: ${scores.join("; ")}.` : "";
}

function versionButton(text: string, name: string, act: () => void): HTMLButtonElement {
  const made = element("button", "button small", text);
  made.type = "button";
  made.setAttribute("aria-label", name);
  made.addEventListener("click", act);
  return made;
}

async function compare(version: LabelVersion): Promise<void> {
  if (annotation.compared === version.version) annotation.compare(null);
  else await annotation.showVersion(version);
  await showHistory();
}

function showModel(): void {
  classes.offer(learning.classes);
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

function nextGap(by: 1 | -1 = 1): void {
  const index = stage.nextBreak(by);
  if (index === null) return;
  const probability = Math.round(100 * stage.marks.breaks[index]!.probability);
  announce(`Possible break ${index + 1} of ${stage.marks.breaks.length}, ${probability} % probable`);
  byId("gap-text").textContent = `Break ${index + 1} of ${stage.marks.breaks.length}: ${probability} %`;
  setTimeout(() => tools.showCross(), 350);
}

function showBreaks(on: boolean): void {
  stage.showBreaks = on;
  stage.redraw();
}

/** Open one of the menus above the options, or close it. */
function menu(id: string): void {
  for (const [other, toggle] of [["view-menu", "view"], ["mask-menu", "refine"]] as const) {
    byId(other).hidden = other === id ? !byId(other).hidden : true;
    byId(toggle).setAttribute("aria-expanded", String(!byId(other).hidden));
  }
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

function search(): void {
  panel("images-panel", true);
  byId<HTMLInputElement>("images-search").select();
}

function openHelp(): void {
  byId<HTMLDialogElement>("help-dialog").showModal();
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
      { keys: ["Enter"], text: "Use the tool at the cross, or end a live-wire", shown: "Enter", act: () => tools.useAtCentre(false) },
      { keys: ["Shift+Enter"], text: "The opposite at the cross", shown: "Shift Enter", act: () => tools.useAtCentre(true) },
      { keys: ["Escape"], text: "Give up what is being drawn", shown: "Esc", act: () => tools.cancel() },
    ],
    Label: [
      { keys: ["a"], text: "Automatic mask", act: () => void annotation.automatic() },
      { keys: ["z", "Ctrl+z"], text: "Undo", act: undo },
      { keys: ["y", "Ctrl+y", "Ctrl+Shift+z"], text: "Redo", act: redo },
      { keys: ["g"], text: "Next possible break", act: () => nextGap() },
      { keys: ["Shift+g"], text: "The break before", shown: "Shift G", act: () => nextGap(-1) },
      { keys: ["q"], text: "Bridge this break", act: () => tools.bridge() },
      { keys: ["f"], text: "Fill small holes", act: () => refine.fillHoles() },
      { keys: ["Shift+f"], text: "Remove small islands", shown: "Shift F", act: () => refine.removeIslands() },
      { keys: ["t"], text: "Threshold and other changes to the mask", act: () => menu("mask-menu") },
      { keys: ["c"], text: "Next class", act: () => classes.step(1) },
      { keys: ["Shift+c"], text: "The class before", shown: "Shift C", act: () => classes.step(-1) },
      { keys: ["Shift+1"], text: "First class, and so on", shown: "Shift 1", act: () => classes.choose(0) },
      { keys: ["s", "Ctrl+s"], text: "Submit", act: () => void submit() },
      { keys: ["Ctrl+Enter"], text: "Submit, then the next image", shown: "Ctrl Enter", act: () => void submit(true) },
    ],
    Images: [
      { keys: ["x"], text: "Next to annotate, by active learning", act: () => void openNext() },
      { keys: ["j", "PageDown"], text: "Next in the list", shown: "J", act: () => step(1) },
      { keys: ["k", "PageUp"], text: "Previous in the list", shown: "K", act: () => step(-1) },
      { keys: ["/"], text: "Search", act: search },
    ],
    View: [
      { keys: ["ArrowLeft"], text: "Move", shown: "← → ↑ ↓", act: () => move(-0.1, 0) },
      { keys: ["+", "="], text: "Zoom in", act: () => zoom(1.4) },
      { keys: ["-"], text: "Zoom out", act: () => zoom(1 / 1.4) },
      { keys: ["0"], text: "Whole image", act: () => stage.isOpen && stage.fit() },
      { keys: ["h"], text: "Hide or show the mask", act: display.toggleMask },
      { keys: ["u"], text: "Borders alone, or filled", act: display.toggleOutline },
      { keys: [","], text: "Fainter mask", act: () => display.setOpacity(preferences.opacity - 10) },
      { keys: ["."], text: "Stronger mask", act: () => display.setOpacity(preferences.opacity + 10) },
      { keys: ["v"], text: "Red-free", act: display.toggleRedFree },
      { keys: ["w"], text: "Magnifier", act: display.toggleMagnifier },
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
  const unlisted = [
    ...moves.map(([key, right, down]) => ({ keys: [key], text: "", act: () => move(right, down) })),
    ...Array.from({ length: 8 }, (_, index) => ({ keys: [`Shift+${index + 2}`], text: "", act: () => classes.choose(index + 1) })),
  ];
  listen(groups, unlisted, () => preferences.singleKeys);
  const clicks: Record<string, () => void> = {
    undo, redo, submit: () => void submit(), next: () => void openNext(), theme: nextTheme, help: openHelp,
    "toggle-images": () => panel("images-panel"), "toggle-model": () => panel("model-panel"),
    automatic: () => void annotation.automatic(), gap: () => nextGap(), bridge: () => tools.bridge(), fit: () => stage.isOpen && stage.fit(),
    view: () => menu("view-menu"), refine: () => menu("mask-menu"), "busy-stop": () => annotation.stop(),
    skip: () => stage.viewer.canvas.focus(),
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
  remember("automatic-always", "automatic");
  remember("single-keys", "singleKeys");
  remember("breaks", "breaks", (on) => {
    showBreaks(on);
    if (on && !stage.marks.breaks.length) void annotation.findBreaks();
    show();
  });
  watchAddress((image) => void openImage(image));
  NARROW.addEventListener("change", showPanels);
  addEventListener("beforeunload", (event) => {
    if (!annotation.dirty || leaving) return;
    void annotation.keepNow();
    event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) void annotation.keepNow();
    else void list.refresh().catch(() => undefined);
  });
  setInterval(() => !document.hidden && void list.refresh().catch(() => undefined), REFRESH);
}

function remember(id: string, name: "automatic" | "singleKeys" | "breaks", changed?: (on: boolean) => void): void {
  const box = byId<HTMLInputElement>(id);
  box.checked = preferences[name];
  box.addEventListener("change", () => {
    preferences[name] = box.checked;
    keepPreferences(preferences);
    changed?.(box.checked);
  });
}

let leaving = false;

/** Keep what was drawn before somebody else goes on here. */
async function leave(): Promise<boolean> {
  leaving = await annotation.leave();
  return leaving;
}

async function start(): Promise<void> {
  wire();
  setTheme(preferences.theme);
  setSize(preferences.size);
  showBreaks(preferences.breaks);
  showPanels();
  byId<HTMLInputElement>("epochs").value = "8";
  await people.start();
  drafts.owner = people.signedIn;
  list.person = () => people.name;
  list.drafts = await drafts.images().catch(() => new Set<string>());
  await learning.start(people);
  await list.refresh();
  const named = addressedImage();
  const first = list.find(named) ?? list.entries.find((entry) => !("final" in entry.labels)) ?? list.entries[0];
  if (named && first?.image !== named) say(`There is no image “${named}” here.`, "error");
  if (first) await openImage(first.image);
  else byId("empty").textContent = "The folder of images is empty.";
  await showLeftOut();
}

/** Files of the folder that are not in the list, with the reason. */
async function showLeftOut(): Promise<void> {
  const files = await api.leftOut();
  const place = byId("left-out");
  place.hidden = !files.length;
  place.querySelector("summary")!.textContent = files.length === 1 ? "1 file is left out" : `${files.length} files are left out`;
  place.querySelector("ul")!.replaceChildren(...files.map(({ file, reason }) => element("li", "", `${file}: ${reason}`)));
}

start().catch(sayError);
