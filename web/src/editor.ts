/** One open image: its mask, clicks and hints, changes to them, and whether they were submitted. */

import { type Click, History, type Marks, type Step } from "./history";
import { difference, merged, paint, type Point, put, type Rect, touches } from "./mask";
import type { Plane } from "./png";

/** Pixels around a possible break within which drawing settles it. */
const SETTLED = 5;

export class Editor {
  readonly mask: Plane;
  marks: Marks = { clicks: [], breaks: [] };
  /** What the label was started with; null before there is any. */
  origin: string | null = null;
  private readonly history = new History();
  private saved: Step | undefined;
  private settled = true;
  private stroke: { start: Uint8Array; last: Point } | null = null;

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
  start(values: Uint8Array, origin: string, marks: Marks = { clicks: [], breaks: [] }, dirty = false): void {
    this.mask.values.set(values);
    this.marks = marks;
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
  answer(name: string, sent: Uint8Array, values: Uint8Array, breaks: readonly Point[], clicks?: readonly Click[]): void {
    const before = this.mask.values;
    const after = merged(sent, values, before);
    const marks = { clicks: clicks ?? this.marks.clicks, breaks };
    this.commit(name, Uint8Array.from(before), after, marks);
  }

  /** Put the brush down. */
  beginStroke(at: Point, diameter: number, value: number): void {
    this.stroke = { start: Uint8Array.from(this.mask.values), last: at };
    this.extendStroke(at, diameter, value);
  }

  /** Draw on. */
  extendStroke(to: Point, diameter: number, value: number): void {
    if (!this.stroke) return;
    const rect = paint(this.mask, this.stroke.last, to, diameter, value);
    this.stroke.last = to;
    if (rect) this.changed(rect);
  }

  /** Lift the brush. */
  endStroke(name: string): void {
    if (!this.stroke) return;
    const { start } = this.stroke;
    this.stroke = null;
    const patch = difference(start, this.mask.values, this.mask.width);
    if (!patch) return;
    const clicks = this.marks.clicks.filter(
      ({ x, y, positive, label }) => (this.mask.values[y * this.mask.width + x] === label) === positive,
    );
    const breaks = this.marks.breaks.filter((place) => !touches(patch, place, SETTLED));
    this.commit(name, start, this.mask.values, { clicks, breaks });
  }

  /** Give a stroke up. */
  cancelStroke(): void {
    if (!this.stroke) return;
    this.mask.values.set(this.stroke.start);
    this.stroke = null;
    this.changed(this.whole());
  }

  get drawing(): boolean {
    return this.stroke !== null;
  }

  /** Take the latest step back; its name. */
  undo(): string | undefined {
    this.cancelStroke();
    return this.replay(this.history.undo(), "before");
  }

  /** Make the step that was taken back again; its name. */
  redo(): string | undefined {
    this.cancelStroke();
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
