/** Live-wire: ways along structures, from click to click, and from the last click to the pointer. */

import type { Point } from "./mask";

/** Pixels that follow a structure, and half the width that they are painted with. */
export interface Way {
  path: [number, number][];
  half_width: number;
}

/** What lies between two places; `positive` tells of a click what to do with it, and is null for the pointer. */
export interface Part {
  from: Point;
  to: Point;
  positive: boolean | null;
}

export interface WireHooks {
  ask(part: Part, signal: AbortSignal): Promise<Way>;
  /** A click's part has its way. */
  paint(way: Way, positive: boolean): void;
  /** The start or the shown way is another. */
  changed(): void;
  /** The server could not tell a way; said once of ways to the pointer, until it can. */
  failed(error: unknown): void;
}

/** Asks for one way at a time: of clicks in their order, and between them of where the pointer is by then. */
export class Wire {
  /** The way to the pointer, once it is known. */
  shown: { from: Point; to: Point; way: Way } | null = null;
  private places: Point[] = [];
  private clicked: Part[] = [];
  private pointer: Point | null = null;
  private asking: AbortController | null = null;
  /** Whether what is asked is the way to the pointer, which no click waits for. */
  private hovering = false;
  private failing = false;

  constructor(private readonly hooks: WireHooks) {}

  /** Where the next part begins; undefined before the first click. */
  get start(): Point | undefined {
    return this.places.at(-1);
  }

  /** Begin, or go on to a place. */
  click(to: Point, positive: boolean): void {
    const from = this.start;
    if (from) this.clicked.push({ from, to, positive });
    this.places.push(to);
    this.pointer = null;
    if (this.hovering) this.asking?.abort();
    this.hooks.changed();
    void this.work();
  }

  /** Show the way to a place, or none. */
  point(to: Point | null): void {
    this.pointer = to;
    if (to) void this.work();
    else if (this.shown) this.show(null);
  }

  /** Begin elsewhere with the next click; parts that were clicked are still painted. */
  end(): void {
    this.places = [];
    this.pointer = null;
    this.show(null);
  }

  /** Give up all that is not painted. */
  drop(): void {
    this.clicked = [];
    this.asking?.abort();
    this.end();
  }

  /** Go on from where the latest part began, which was taken back. */
  back(): void {
    if (this.places.length > 1) this.places.pop();
    this.pointer = null;
    this.show(null);
  }

  private async work(): Promise<void> {
    if (this.asking) return;
    for (let part = this.next(); part; part = this.next()) {
      const asking = (this.asking = new AbortController());
      this.hovering = part.positive === null;
      try {
        const way = this.known(part) ?? (await this.hooks.ask(part, asking.signal));
        if (asking.signal.aborted) continue;
        this.failing = false;
        if (part.positive !== null) {
          this.show(null);
          this.hooks.paint(way, part.positive);
        } else if (part.from === this.start) {
          this.show({ ...part, way });
        }
      } catch (error) {
        if (!asking.signal.aborted) this.fail(part, error);
      }
    }
    this.asking = null;
  }

  private next(): Part | undefined {
    const { start: from, pointer: to } = this;
    const clicked = this.clicked.shift();
    if (clicked || !from || !to) return clicked;
    this.pointer = null;
    return { from, to, positive: null };
  }

  /** The way of a part that is shown already. */
  private known({ from, to }: Part): Way | undefined {
    const { shown } = this;
    return shown?.from === from && shown.to.x === to.x && shown.to.y === to.y ? shown.way : undefined;
  }

  private fail({ to, positive }: Part, error: unknown): void {
    if (positive !== null || !this.failing) this.hooks.failed(error);
    this.failing = true;
    if (positive !== null) {
      const done = this.places.indexOf(to);
      if (done >= 0) this.places.length = done;
      this.clicked = [];
    }
    this.show(null);
  }

  private show(shown: Wire["shown"]): void {
    this.shown = shown;
    this.hooks.changed();
  }
}
