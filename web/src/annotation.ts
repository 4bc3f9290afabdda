/** The open image: where its mask comes from, what the server answers to clicks, drafts, submission. */

import type { Api, ImageEntry } from "./api";
import { announce, ask, byId, say, sayError, whenText } from "./dom";
import type { Draft, Drafts } from "./drafts";
import { Editor } from "./editor";
import { type Click, ofFirstClass } from "./history";
import { madeBy } from "./list";
import type { Point, Rect } from "./mask";
import type { Preferences } from "./preferences";
import type { Stage } from "./stage";

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
const LARGEST = 80e6;

export class Annotation {
  editor: Editor | null = null;
  entry: ImageEntry | null = null;
  /** Whether the image can only be looked at, and why. */
  readOnly: string | null = null;
  /** Whether the draft of the open image is in the browser as it is now. */
  private kept = true;
  private key = "";
  private opening = 0;
  private running = 0;
  private queue: Click[] = [];
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
    this.kept = true;
    this.stage.close();
    this.hooks.changed();
    await this.working("Opening", async () => {
      const [facts, picture] = await Promise.all([this.api.facts(entry.image), this.api.picture(entry.image)]);
      const [width, height] = await sizeOf(picture);
      if (turn !== this.opening) return;
      if (width * height > LARGEST) throw new Error("The image is too large for a browser; use QuPath for it.");
      const editor = new Editor(entry.image, width, height, (rect) => this.edited(editor, rect));
      await this.stage.open(picture, editor.mask);
      if (turn !== this.opening) return;
      this.editor = editor;
      this.key = [entry.image, facts.path ?? "", facts.ts ?? ""].join("\n");
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
    await this.working("Segmenting", async () => {
      const sent = Uint8Array.from(editor.mask.values);
      const answer = await this.api.infer(model.automatic, editor.image, {});
      if (turn !== this.opening) return;
      const breaks = answer.breaks.map(([x, y]) => ({ x, y }));
      const origin = `automatic mask${answer.version ? `, version ${answer.version}` : ""}`;
      if (editor.origin === null && !editor.undoable) editor.start(answer.mask.values, origin, { clicks: [], breaks });
      else editor.answer("automatic mask", sent, answer.mask.values, breaks, []);
      announce(`Automatic mask in ${answer.seconds.toFixed(1)} seconds, ${breaks.length} possible breaks`);
    });
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
    const { latest } = editor;
    const key = this.key;
    let done = false;
    await this.working("Submitting", async () => {
      const user = this.preferences.user.trim();
      const model = this.hooks.model()?.automatic;
      const version = await this.api.submit(editor.image, editor.mask, {
        ...(user ? { user } : {}),
        ...(model ? { model } : {}),
        clicks: editor.marks.clicks.length,
      });
      done = true;
      editor.submitted(latest);
      clearTimeout(this.keeper);
      if (!editor.dirty) await this.drafts.forget(key).catch(() => undefined);
      say(`Submitted ${editor.image} as version ${version.version}.`);
      this.hooks.submitted(editor.image);
    });
    return done;
  }

  /** Load an older version of the label, as a change that can be taken back. */
  async loadVersion(version: number): Promise<void> {
    const { editor } = this;
    if (!editor) return;
    await this.working("Loading", async () => {
      const plane = await this.api.label(editor.image, "final", version);
      editor.answer(`version ${version}`, Uint8Array.from(editor.mask.values), plane.values, [], []);
    });
  }

  /** Keep the draft at once. */
  async keepNow(): Promise<void> {
    clearTimeout(this.keeper);
    const { editor } = this;
    if (!editor) return;
    try {
      if (editor.dirty) await this.drafts.keep(this.draft(editor));
      else await this.drafts.forget(this.key);
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
    const draft = await this.drafts.find(this.key).catch(() => undefined);
    if (turn !== this.opening) return;
    if (draft && draft.width === editor.mask.width && draft.height === editor.mask.height) {
      editor.start(draft.values, draft.origin, draft.marks, true);
      const discard = { text: "Discard", act: () => void this.discard(entry) };
      say(`Your changes of ${whenText(draft.time)} are back.`, "info", discard);
      return;
    }
    const tag = "final" in entry.labels ? "final" : Object.keys(entry.labels)[0];
    if (tag !== undefined) {
      const plane = await this.api.label(entry.image, tag);
      const made = madeBy(entry.labels[tag]!);
      if (turn === this.opening) editor.start(plane.values, tag === "final" ? "submitted label" : (made ?? `label "${tag}"`));
    } else if (this.preferences.automatic) {
      await this.automatic();
    }
  }

  private async discard(entry: ImageEntry): Promise<void> {
    await this.drafts.forget(this.key);
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

  private async prompt(editor: Editor, name: string, params: Record<string, unknown>, clicks: readonly Click[]): Promise<void> {
    const model = this.hooks.model()?.clicks;
    if (!model || this.readOnly) return;
    const turn = this.opening;
    await this.working("Segmenting", async () => {
      const sent = { ...editor.mask, values: Uint8Array.from(editor.mask.values) };
      const answer = await this.api.infer(model, editor.image, { class: this.hooks.label(), ...params }, sent);
      if (turn !== this.opening) return;
      const breaks = answer.breaks.map(([x, y]) => ({ x, y }));
      editor.answer(name, sent.values, answer.mask.values, breaks, clicks);
      announce(`Answer to ${name} in ${answer.seconds.toFixed(2)} seconds, ${breaks.length} possible breaks`);
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

  private draft(editor: Editor): Draft {
    const { width, height, values } = editor.mask;
    const { image, marks } = editor;
    return { key: this.key, image, width, height, values, marks, origin: editor.origin ?? "", time: Date.now() };
  }

  private async working(what: string, work: () => Promise<void>): Promise<void> {
    this.running++;
    byId("busy").textContent = `${what} …`;
    this.hooks.changed();
    try {
      await work();
    } catch (error) {
      sayError(error);
    } finally {
      this.running--;
      this.hooks.changed();
    }
  }
}

async function sizeOf(picture: Blob): Promise<[number, number]> {
  const header = new DataView(await picture.slice(16, 24).arrayBuffer()); // the first entries of a PNG
  return [header.getUint32(0), header.getUint32(4)];
}
