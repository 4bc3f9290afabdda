/** The open image: where its mask comes from, what the server answers to clicks, drafts, submission. */

import { type Api, ApiError, type ImageEntry, type LabelVersion } from "./api";
import { announce, ask, byId, choose, say, sayError, whenText } from "./dom";
import type { Draft, Drafts } from "./drafts";
import { Editor } from "./editor";
import { type Click, ofFirstClass } from "./history";
import { madeBy } from "./list";
import type { Point, Rect } from "./mask";
import type { Plane } from "./png";
import type { Preferences } from "./preferences";
import type { Stage } from "./stage";
import { OWN_LEVEL, type Probabilities } from "./threshold";
import type { Part, Way } from "./wire";

export interface ModelChoice {
  automatic: string;
  /** Name of the same network by clicks; null if it takes none. */
  clicks: string | null;
}

export interface Hooks {
  model(): ModelChoice | null;
  /** Class that is drawn. */
  label(): number;
  /** Something to show changed. */
  changed(): void;
  submitted(image: string): void;
}

const KEEP_AFTER = 400;
/** Milliseconds after which breaks of an opened image are looked for, if it is still open. */
const SEEK_AFTER = 600;
const LARGEST = 80e6;

export class Annotation {
  editor: Editor | null = null;
  entry: ImageEntry | null = null;
  /** Whether the image can only be looked at, and why. */
  readOnly: string | null = null;
  /** Whether the draft of the open image is in the browser as it is now. */
  private kept = true;
  /** The open image's file, as drafts are kept by. */
  private file = "";
  /** Version of the submitted label that the mask began from; 0 without one. */
  private base = 0;
  private opening = 0;
  private running = 0;
  private queue: Click[] = [];
  private bridging = Promise.resolve();
  private stopper: AbortController | null = null;
  private asked: { model: string; answer: Promise<Probabilities | null> } | null = null;
  /** Whether the server is looking for breaks. */
  seeking = false;
  /** What the picture shows as black and white, as {@link Api.picture} takes it. */
  private window = "";
  private keeper: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly api: Api,
    private readonly drafts: Drafts,
    private readonly stage: Stage,
    private readonly preferences: Preferences,
    private readonly hooks: Hooks,
  ) {}

  get busy(): boolean {
    return this.running > 0;
  }

  /** Whether leaving the page now would lose changes, or only seem to. */
  get dirty(): boolean {
    return this.editor?.dirty ?? false;
  }

  /** Open an image; changes to the one before are kept as its draft. */
  async open(entry: ImageEntry): Promise<void> {
    if (!(await this.leave())) return;
    const turn = ++this.opening;
    this.entry = entry;
    this.editor = this.readOnly = null;
    this.queue = [];
    this.stopper?.abort();
    this.asked = null;
    this.seeking = false;
    this.compared = null;
    this.kept = true;
    this.stage.close();
    this.hooks.changed();
    await this.working("Opening", async () => {
      const [facts, picture] = await Promise.all([this.api.facts(entry.image), this.api.picture(entry.image, 0, this.window)]);
      const [width, height] = await sizeOf(picture);
      if (turn !== this.opening) return;
      if (width * height > LARGEST) throw new Error("The image is too large for a browser; use QuPath for it.");
      const editor = new Editor(entry.image, width, height, (rect) => this.edited(editor, rect));
      await this.stage.open(picture, editor.mask);
      if (turn !== this.opening) return;
      this.editor = editor;
      this.file = [entry.image, facts.path ?? "", facts.ts ?? ""].join("\n");
      this.base = entry.labels["final"]?.version ?? 0;
      if ((facts.shape?.length ?? 2) > 2) this.readOnly = "A volume: its middle slice can be looked at here; use 3D Slicer.";
      await this.begin(editor, entry, turn);
    });
  }

  /** Keep changes before another image is opened; false if the annotator wants to stay. */
  async leave(): Promise<boolean> {
    if (!this.dirty) return true;
    await this.keepNow();
    return this.kept || ask("Your changes could not be kept in this browser. Leave without them?", "Leave");
  }

  /** Ask for the automatic mask. */
  async automatic(): Promise<void> {
    const { editor } = this;
    const model = this.hooks.model();
    if (!editor || !model || this.readOnly) return;
    const turn = this.opening;
    await this.working("Segmenting", async (signal) => {
      const sent = Uint8Array.from(editor.mask.values);
      const answer = await this.api.infer(model.automatic, editor.image, {}, signal);
      if (turn !== this.opening) return;
      const marks = { clicks: [], breaks: answer.breaks, level: OWN_LEVEL };
      const origin = `automatic mask${answer.version ? `, version ${answer.version}` : ""}`;
      if (editor.origin === null && !editor.undoable) editor.start(answer.mask.values, origin, marks);
      else editor.answer("automatic mask", sent, answer.mask.values, marks);
      announce(`Automatic mask in ${answer.seconds.toFixed(1)} seconds, ${answer.breaks.length} possible breaks`);
    });
  }

  /** Wait no longer for what the server was asked for. */
  stop(): void {
    this.stopper?.abort();
  }

  /** Show the image with other values black and white. */
  async setWindow(window: string): Promise<void> {
    this.window = window;
    const turn = this.opening;
    const { entry } = this;
    if (!entry) return;
    await this.working("Opening", async () => {
      const picture = await this.api.picture(entry.image, 0, window);
      if (turn === this.opening) await this.stage.swap(picture);
    });
  }

  /** What the chosen model thinks of each pixel; asked for once. */
  probabilities(): Promise<Probabilities | null> {
    const { entry } = this;
    const model = this.hooks.model()?.automatic;
    if (!entry || !model) return Promise.resolve(null);
    if (this.asked?.model !== model) {
      const answer = this.api.probabilities(model, entry.image);
      this.asked = { model, answer };
      answer.catch(() => (this.asked = null));
    }
    return this.asked.answer;
  }

  /** Look for possible breaks of the mask as it is, beside other work. */
  async findBreaks(): Promise<void> {
    const { editor } = this;
    const model = this.hooks.model()?.automatic;
    if (!editor || !model || this.readOnly || !this.preferences.breaks) return;
    const sent = Uint8Array.from(editor.mask.values);
    this.seeking = true;
    this.hooks.changed();
    try {
      const breaks = await this.api.breaks(model, editor.image, { ...editor.mask, values: sent });
      if (editor === this.editor) editor.found(sent, breaks);
    } catch (error) {
      sayError(error);
    } finally {
      if (editor === this.editor) this.seeking = false;
      this.hooks.changed();
    }
  }

  /** Add a click; clicks of one class that come while the server works are sent together. */
  click(at: Point, positive: boolean): void {
    this.queue.push({ ...at, positive, label: this.hooks.label() });
    this.stage.pending = [...this.queue];
    this.stage.redraw();
    if (this.queue.length === 1) void this.sendClicks();
  }

  /** Segment again in a box. */
  async box({ x, y, width, height }: Rect): Promise<void> {
    const { editor } = this;
    if (editor) await this.prompt(editor, "box", { roi: [x, y, x + width - 1, y + height - 1] }, editor.marks.clicks);
  }

  /** Join the two ends of the break that is nearest to a place. */
  bridge({ x, y }: Point): void {
    const { editor } = this;
    const none = "There is no break within reach here. Trace what is missing with the live-wire.";
    this.bridging = this.bridging.then(async () => {
      if (!editor || editor !== this.editor) return;
      await this.prompt(editor, "bridge", { bridges: [[x, y]] }, editor.marks.clicks, none);
    });
  }

  /** Ask for the way of a live-wire; the page waits with those that were clicked. */
  async trace(part: Part, signal: AbortSignal): Promise<Way> {
    const model = this.hooks.model()?.automatic ?? "";
    const answer = this.api.trace(model, this.editor?.image ?? "", part, this.hooks.label(), signal);
    if (part.positive !== null) await this.working("Tracing", () => answer.catch(() => undefined));
    return answer;
  }

  /** Send the mask as the image's label. */
  async submit(): Promise<boolean> {
    const { editor } = this;
    if (!editor || this.readOnly) return false;
    if (this.busy) {
      say("The server is still at work; submit when it is done.");
      return false;
    }
    if (!editor.mask.values.some(Boolean) && !(await ask("The mask is empty. Submit that there is nothing?", "Submit"))) {
      return false;
    }
    let newer: LabelVersion | null | undefined;
    await this.working("Submitting", async () => (newer = await this.newerLabel(editor.image)));
    if (newer === undefined) return false; // the server was not there
    return newer ? this.submitBesides(newer) : this.send(editor, this.base);
  }

  private async send(editor: Editor, base: number | null): Promise<boolean> {
    const { latest } = editor;
    const { file } = this;
    let done = false;
    await this.working("Submitting", async () => {
      const user = this.preferences.user.trim();
      const model = this.hooks.model()?.automatic;
      const version = await this.api.submit(editor.image, editor.mask, {
        ...(user ? { user } : {}),
        ...(model ? { model } : {}),
        ...(base === null ? {} : { base }),
        clicks: editor.marks.clicks.length,
      });
      done = true;
      this.base = version.version;
      editor.submitted(latest);
      clearTimeout(this.keeper);
      this.compare(null);
      if (!editor.dirty) await this.drafts.forget(await this.drafts.key(file)).catch(() => undefined);
      say(`Submitted ${editor.image} as version ${version.version}.`);
      this.hooks.submitted(editor.image);
    });
    return done;
  }

  /** The label that somebody submitted since the mask was begun. */
  private async newerLabel(image: string): Promise<LabelVersion | null> {
    const newest = (await this.api.labels(image, "final")).at(-1);
    return newest && newest.version > this.base ? newest : null;
  }

  /** Ask what to do with a label that somebody else has submitted meanwhile. */
  private async submitBesides(newer: LabelVersion): Promise<boolean> {
    const { editor } = this;
    const who = newer.user ?? "Somebody";
    const question = `${who} submitted a label of this image at ${whenText(newer.time)}, after you had opened it.`;
    const answer = await choose(question, { compare: "Compare", submit: "Submit mine anyway" });
    if (!editor || editor !== this.editor) return false;
    if (answer === "submit") return this.send(editor, null);
    if (answer === "compare" && newer.file) {
      await this.showVersion(newer);
      const load = { text: `Take ${who}'s`, act: () => void this.loadVersion(newer.version) };
      say(`White borders are ${who}'s label. Submit again to choose.`, "info", load);
    }
    return false;
  }

  /** Show the borders of another version of the label over the mask. */
  async showVersion({ version }: LabelVersion): Promise<void> {
    const { editor } = this;
    if (!editor) return;
    await this.working("Loading", async () => {
      const plane = await this.api.label(editor.image, "final", version);
      if (editor === this.editor) this.compare({ plane, version });
    });
  }

  /** Version whose borders are shown. */
  compared: number | null = null;

  /** Show borders of a label over the mask, or none. */
  compare(other: { plane: Plane; version: number } | null): void {
    this.compared = other?.version ?? null;
    this.stage.compare(other?.plane ?? null);
    this.hooks.changed();
  }

  /** Load a version of a label, or its newest, as a change that can be taken back. */
  async loadVersion(version: number | null, tag = "final"): Promise<void> {
    const { editor } = this;
    if (!editor) return;
    await this.working("Loading", async () => {
      const plane = await this.api.label(editor.image, tag, version ?? undefined);
      if (tag === "final" && version !== null) this.base = Math.max(this.base, version);
      this.compare(null);
      const name = version === null ? tag : `version ${version}`;
      editor.answer(name, Uint8Array.from(editor.mask.values), plane.values, { clicks: [], breaks: [], level: OWN_LEVEL });
    });
    await this.findBreaks();
  }

  /** Keep the draft at once. */
  async keepNow(): Promise<void> {
    clearTimeout(this.keeper);
    const { editor } = this;
    if (!editor) return;
    try {
      if (editor.dirty) await this.drafts.keep(await this.draft(editor));
      else await this.drafts.forget(await this.drafts.key(this.file));
      this.kept = true;
    } catch {
      this.kept = false;
    }
    this.hooks.changed();
  }

  private async begin(editor: Editor, entry: ImageEntry, turn: number): Promise<void> {
    if (this.readOnly) {
      editor.start(editor.mask.values, "volume");
      say(this.readOnly);
      return;
    }
    const { drafts, elsewhere } = await this.drafts.find(this.file).catch(() => ({ drafts: [], elsewhere: false }));
    if (turn !== this.opening) return;
    if (elsewhere) say("Another tab of this browser has changes of this image, too; both are kept.");
    const draft = drafts.find(({ width, height }) => width === editor.mask.width && height === editor.mask.height);
    if (draft) {
      await this.takeUp(editor, draft);
      return;
    }
    const tag = "final" in entry.labels ? "final" : Object.keys(entry.labels)[0];
    if (tag !== undefined) {
      const plane = await this.api.label(entry.image, tag);
      if (turn !== this.opening) return;
      editor.start(plane.values, tag === "final" ? "submitted label" : (madeBy(entry.labels[tag]!) ?? `label "${tag}"`));
      setTimeout(() => turn === this.opening && void this.findBreaks(), SEEK_AFTER);
    } else if (this.preferences.automatic) {
      await this.automatic();
    }
  }

  /** Go on with a draft, which is this tab's from now on. */
  private async takeUp(editor: Editor, draft: Draft): Promise<void> {
    this.base = draft.base ?? this.base;
    editor.start(draft.values, draft.origin, draft.marks, true);
    if (draft.key !== (await this.drafts.key(this.file))) {
      await this.keepNow();
      if (this.kept) await this.drafts.forget(draft.key);
    }
    const { entry } = this;
    const discard = { text: "Discard", act: () => void (entry && this.discard(entry)) };
    say(`Your changes of ${whenText(draft.time)} are back.`, "info", discard);
  }

  private async discard(entry: ImageEntry): Promise<void> {
    await this.drafts.forget(await this.drafts.key(this.file));
    this.editor = null;
    await this.open(entry);
  }

  private async sendClicks(): Promise<void> {
    const { editor } = this;
    const turn = this.opening;
    while (editor && this.queue.length && turn === this.opening) {
      const sent = ofFirstClass(this.queue);
      const clicks = [...editor.marks.clicks, ...sent];
      const label = sent[0]!.label;
      const places = (positive: boolean) =>
        clicks.filter((click) => click.label === label && click.positive === positive).map(({ x, y }) => [x, y]);
      const name = sent.length > 1 ? `${sent.length} clicks` : "click";
      await this.prompt(editor, name, { foreground: places(true), background: places(false), class: label }, clicks);
      if (turn !== this.opening) return;
      this.queue = this.queue.filter((click) => !sent.includes(click));
      this.stage.pending = [...this.queue];
      this.stage.redraw();
    }
  }

  /** @param refused said if the server finds that this cannot be done. */
  private async prompt(
    editor: Editor, name: string, params: Record<string, unknown>, clicks: readonly Click[], refused?: string,
  ): Promise<void> {
    const model = this.hooks.model()?.clicks;
    if (!model || this.readOnly) return;
    const turn = this.opening;
    await this.working("Segmenting", async (signal) => {
      const sent = { ...editor.mask, values: Uint8Array.from(editor.mask.values) };
      const asked = this.api.infer(model, editor.image, { class: this.hooks.label(), ...params }, signal, sent);
      const answer = await asked.catch((error: unknown) => {
        if (!refused || !(error instanceof ApiError) || error.status !== 400) throw error;
        say(refused);
      });
      if (!answer) return;
      if (turn !== this.opening) return;
      editor.answer(name, sent.values, answer.mask.values, { breaks: answer.breaks, clicks });
      announce(`Answer to ${name} in ${answer.seconds.toFixed(2)} seconds, ${answer.breaks.length} possible breaks`);
    });
  }

  private edited(editor: Editor, rect: Rect | null): void {
    this.stage.marks = editor.marks;
    this.stage.refresh(rect);
    if (editor !== this.editor) return;
    this.hooks.changed();
    if (editor.drawing) return;
    this.kept = !editor.dirty;
    clearTimeout(this.keeper);
    this.keeper = setTimeout(() => void this.keepNow(), KEEP_AFTER);
  }

  private async draft(editor: Editor): Promise<Draft> {
    const { width, height, values } = editor.mask;
    const { image, marks } = editor;
    const { base, file } = this;
    return { key: await this.drafts.key(file), base, image, width, height, values, marks, origin: editor.origin ?? "", time: Date.now() };
  }

  private async working(what: string, work: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    const stopper = new AbortController();
    const started = Date.now();
    const tell = () => {
      const seconds = Math.floor((Date.now() - started) / 1000);
      byId("busy-text").textContent = seconds < 2 ? `${what} …` : `${what} … ${seconds} s`;
    };
    const clock = setInterval(tell, 1000);
    this.stopper = stopper;
    this.running++;
    byId("busy-stop").hidden = what !== "Segmenting";
    tell();
    this.hooks.changed();
    try {
      await work(stopper.signal);
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") announce("Stopped");
      else sayError(error);
    } finally {
      clearInterval(clock);
      this.running--;
      this.hooks.changed();
    }
  }
}

async function sizeOf(picture: Blob): Promise<[number, number]> {
  const header = new DataView(await picture.slice(16, 24).arrayBuffer()); // the first entries of a PNG
  return [header.getUint32(0), header.getUint32(4)];
}
