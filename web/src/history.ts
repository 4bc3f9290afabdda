/** Undo and redo. */

import type { Patch, Point } from "./mask";
import { OWN_LEVEL } from "./threshold";

export interface Click extends Point {
  positive: boolean;
  /** Class number. */
  label: number;
}

/** The clicks of the first one's class, which one request can carry. */
export function ofFirstClass(clicks: readonly Click[]): Click[] {
  return clicks.filter(({ label }) => label === clicks[0]?.label);
}

/** A place where the mask may break one structure, as the server found it. */
export interface Break extends Point {
  /** How probable it is that something is there after all. */
  probability: number;
}

/** What lies over the mask, and how it was made. */
export interface Marks {
  clicks: readonly Click[];
  /** The most probable ones first. */
  breaks: readonly Break[];
  /** Where the probabilities were cut, see {@link OWN_LEVEL}. */
  level: number;
}

export const NO_MARKS: Marks = { clicks: [], breaks: [], level: OWN_LEVEL };

export interface Step {
  name: string;
  patch: Patch | null;
  before: Marks;
  after: Marks;
}

const ROOM = 400e6;

/** Steps in order; the oldest are given up once they hold more bytes than there is room for. */
export class History {
  private steps: Step[] = [];
  private done = 0;

  constructor(private readonly room = ROOM) {}

  get undoable(): Step | undefined {
    return this.steps[this.done - 1];
  }

  get redoable(): Step | undefined {
    return this.steps[this.done];
  }

  /** Note a step that was made; what had been undone is gone. */
  push(step: Step): void {
    this.steps = [...this.steps.slice(0, this.done), step];
    while (this.steps.length > 1 && this.bytes() > this.room) this.steps.shift();
    this.done = this.steps.length;
  }

  /** The step to take back. */
  undo(): Step | undefined {
    const step = this.undoable;
    if (step) this.done--;
    return step;
  }

  /** The step to make again. */
  redo(): Step | undefined {
    const step = this.redoable;
    if (step) this.done++;
    return step;
  }

  private bytes(): number {
    return this.steps.reduce((sum, { patch }) => sum + (patch ? 2 * patch.before.length : 0), 0);
  }
}
