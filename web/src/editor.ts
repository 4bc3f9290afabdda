/** One open image: its mask, clicks and hints, changes to them, and whether they were submitted. */

import { type Break, History, type Marks, NO_MARKS, type Step } from "./history";
import { difference, merged, paint, paintPixels, type Point, put, type Rect, touches } from "./mask";
import type { Plane } from "./png";

/** Pixels around a possible break within which drawing settles it. */
const SETTLED = 5;

export class Editor {
  readonly mask: Plane;
  marks: Marks = NO_MARKS;
  /** What the label was started with; null before there is any. */
  origin: string | null = null;
  private readonly history = new History();
  private saved: Step | undefined;
  private settled = true;
  /** The mask before the change that goes on, and where its brush was last. */
  private before: Uint8Array | null = null;
  private last: Point = { x: 0, y: 0 };

  /**
   * @param changed called after each change, with the rectangle of the mask that is new.
   */
  constructor(
    readonly image: string,
    width: number,
    height: number,
    private readonly changed: (rect: Rect | null) => void,
  ) {
    this.mask = { width, height, values: new Uint8Array(width * height) };
  }

  get undoable(): string | undefined {
    return this.history.undoable?.name;
  }

  get redoable(): string | undefined {
    return this.history.redoable?.name;
  }

  /** Whether there is something that was not submitted. */
  get dirty(): boolean {
    return !this.settled || this.history.undoable !== this.saved;
  }

  /** Start with a mask from the server, or a draft; nothing to undo. */
  start(values: Uint8Array, origin: string, marks: Partial<Marks> = {}, dirty = false): void {
    this.mask.values.set(values);
    this.marks = { ...NO_MARKS, ...marks };
    this.origin = origin;
    this.settled = !dirty;
    this.changed(this.whole());
  }

  /** Note that all was submitted. */
  submitted(upTo: Step | undefined): void {
    this.saved = upTo;
    this.settled = true;
    this.changed(null);
  }

  /** The latest step, to say later up to where a label was submitted. */
  get latest(): Step | undefined {
    return this.history.undoable;
  }

  /** Take in an answer to a mask that was sent; what was drawn meanwhile stays. */
  answer(name: string, sent: Uint8Array, values: Uint8Array, marks: Partial<Marks>): void {
    const before = this.mask.values;
    this.commit(name, Uint8Array.from(before), merged(sent, values, before), { ...this.marks, ...marks });
  }

  /** Note possible breaks of a mask that was sent, but those where something was drawn meanwhile. */
  found(sent: Uint8Array, breaks: readonly Break[]): void {
    const patch = difference(sent, this.mask.values, this.mask.width);
    const open = patch ? breaks.filter((place) => !touches(patch, place, SETTLED)) : breaks;
    this.marks = { ...this.marks, breaks: open };
    this.changed(null);
  }

  /** Show what the mask would become; {@link end} makes it so. */
  preview(values: Uint8Array): void {
    this.before ??= Uint8Array.from(this.mask.values);
    this.mask.values.set(values);
    this.changed(this.whole());
  }

  /** Put the brush down. */
  beginStroke(at: Point, diameter: number, value: number): void {
    this.before = Uint8Array.from(this.mask.values);
    this.last = at;
    this.extendStroke(at, diameter, value);
  }

  /** Draw on. */
  extendStroke(to: Point, diameter: number, value: number): void {
    if (!this.before) return;
    const rect = paint(this.mask, this.last, to, diameter, value);
    this.last = to;
    if (rect) this.changed(rect);
  }

  /** Paint pixels and their surroundings as one step. */
  drawPixels(name: string, pixels: readonly (readonly [number, number])[], halfWidth: number, value: number): void {
    this.cancel();
    this.before = Uint8Array.from(this.mask.values);
    paintPixels(this.mask, pixels, halfWidth, value);
    this.end(name);
  }

  /** Make the change that goes on a step, such as when the brush is lifted. */
  end(name: string, level = this.marks.level): void {
    const start = this.before;
    if (!start) return;
    this.before = null;
    const patch = difference(start, this.mask.values, this.mask.width);
    if (!patch) return;
    const clicks = this.marks.clicks.filter(
      ({ x, y, positive, label }) => (this.mask.values[y * this.mask.width + x] === label) === positive,
    );
    const breaks = this.marks.breaks.filter((place) => !touches(patch, place, SETTLED));
    this.commit(name, start, this.mask.values, { clicks, breaks, level });
  }

  /** Give the change that goes on up. */
  cancel(): void {
    if (!this.before) return;
    this.mask.values.set(this.before);
    this.before = null;
    this.changed(this.whole());
  }

  /** Whether a change goes on. */
  get drawing(): boolean {
    return this.before !== null;
  }

  /** Take the latest step back; its name. */
  undo(): string | undefined {
    this.cancel();
    return this.replay(this.history.undo(), "before");
  }

  /** Make the step that was taken back again; its name. */
  redo(): string | undefined {
    this.cancel();
    return this.replay(this.history.redo(), "after");
  }

  private replay(step: Step | undefined, side: "before" | "after"): string | undefined {
    if (!step) return undefined;
    if (step.patch) put(this.mask, step.patch, side);
    this.marks = step[side];
    this.changed(step.patch);
    return step.name;
  }

  private commit(name: string, start: Uint8Array, after: Uint8Array, marks: Marks): void {
    const patch = difference(start, after, this.mask.width);
    this.history.push({ name, patch, before: this.marks, after: marks });
    if (patch) put(this.mask, patch, "after");
    this.marks = marks;
    this.changed(patch);
  }

  private whole(): Rect {
    return { x: 0, y: 0, width: this.mask.width, height: this.mask.height };
  }
}
