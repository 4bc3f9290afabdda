/** What pointers do to the image: clicks, a box, strokes of the brush, live-wires. */

import { announce, byId, element, icon, sayError } from "./dom";
import type { Editor } from "./editor";
import { inside, type Point, type Rect } from "./mask";
import type { Stage } from "./stage";
import { type Part, type Way, Wire } from "./wire";

export type Tool = "move" | "add" | "remove" | "box" | "brush" | "eraser" | "wire";

interface ToolText {
  tool: Tool;
  text: string;
  key: string;
}

export const TOOLS: readonly ToolText[] = [
  { tool: "move", text: "Move the image", key: "M" },
  { tool: "add", text: "Click what belongs to it", key: "P" },
  { tool: "remove", text: "Click what does not", key: "N" },
  { tool: "box", text: "Segment again in a box", key: "R" },
  { tool: "brush", text: "Brush", key: "B" },
  { tool: "eraser", text: "Eraser", key: "E" },
  { tool: "wire", text: "Live-wire from click to click", key: "L" },
];

/** Tools that ask a model that takes clicks. */
const ASKING: readonly Tool[] = ["add", "remove", "box", "wire"];
/** Pixels of the screen within which a click is one at the same place. */
const SAME = 8;
/** Milliseconds after the end of a live-wire in which a click is the second of two, and begins none. */
const DOUBLE = 400;
/** Name of a live-wire's step. */
export const WIRE = "live-wire";

export interface Target {
  editor: Editor;
  /** Number of the class that is drawn. */
  label: number;
  canClick: boolean;
}

export interface Actions {
  /** What can be worked on; null while there is nothing. */
  target(): Target | null;
  click(at: Point, positive: boolean): void;
  box(box: Rect): void;
  bridge(at: Point): void;
  trace(part: Part, signal: AbortSignal): Promise<Way>;
  place(at: Point | null): void;
  toolChanged(tool: Tool): void;
}

interface PointerAt {
  position: Point;
  originalEvent: Event;
  pointerType?: string;
  preventDefaultAction?: boolean;
}

const OPPOSITE: Partial<Record<Tool, Tool>> = { add: "remove", remove: "add", brush: "eraser", eraser: "brush" };

export class Tools {
  size = 6;
  private chosen: Tool = "add";
  private penSeen = false;
  private used: Tool | null = null;
  private from: Point | null = null;
  /** Where the pointer is on the viewer. */
  private pointer: Point | null = null;
  /** Whether a click of the live-wire would take away. */
  private taking = false;
  private ended = 0;
  private readonly wire = new Wire({
    ask: (part, signal) => this.actions.trace(part, signal),
    paint: (way, positive) => this.paintWay(way, positive),
    changed: () => this.showLine(),
    failed: sayError,
  });
  private readonly buttons = new Map<Tool, HTMLButtonElement>();

  constructor(
    private readonly stage: Stage,
    private readonly actions: Actions,
  ) {
    for (const { tool, text, key } of TOOLS) this.addButton(tool, text, key);
    const { viewer } = stage;
    viewer.addHandler("canvas-press", (event) => this.press(event as unknown as PointerAt));
    viewer.addHandler("canvas-drag", (event) => this.drag(event as unknown as PointerAt));
    viewer.addHandler("canvas-release", (event) => this.release(event as unknown as PointerAt));
    viewer.addHandler("canvas-pinch", () => this.lift());
    viewer.addHandler("close", () => this.wire.drop());
    viewer.addHandler("canvas-click", (event) => this.click(event as unknown as PointerAt & { quick: boolean }));
    viewer.addHandler("canvas-nonprimary-press", (event) => this.otherButton(event as unknown as PointerAt & { button: number }));
    viewer.canvas.addEventListener("pointermove", (event) => this.hover(event));
    viewer.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.wire.point(null);
      this.showCursor(null);
    });
    byId("wire-end").addEventListener("click", () => this.wire.end());
    this.choose("add");
  }

  get tool(): Tool {
    return this.chosen;
  }

  choose(tool: Tool): void {
    this.cancel();
    this.chosen = tool;
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === tool));
    this.stage.viewer.canvas.dataset["tool"] = tool;
    this.showCursor(null);
    this.actions.toolChanged(tool);
  }

  /** Switch off what the model cannot do. */
  allow(canClick: boolean): void {
    for (const button of [...ASKING.map((tool) => this.buttons.get(tool)!), byId<HTMLButtonElement>("bridge")]) {
      button.disabled = !canClick;
      button.title = canClick ? button.dataset["title"]! : "This model takes no clicks";
    }
    if (!canClick && ASKING.includes(this.chosen)) this.choose("brush");
  }

  /** Use the tool at the centre of what is shown; for work without a pointer. */
  useAtCentre(opposite: boolean): void {
    const target = this.actions.target();
    if (!target) return;
    const at = this.stage.centre;
    const tool = (opposite && OPPOSITE[this.chosen]) || this.chosen;
    if (tool === "wire" && this.wire.start && !this.crossed) return this.endLine(); // the pointer draws it
    if (tool === "wire") this.wireAt(at, !opposite);
    if (tool === "add" || tool === "remove") this.clickAt(at, tool === "add");
    if (tool === "brush" || tool === "eraser") {
      target.editor.beginStroke(at, this.size, tool === "brush" ? target.label : 0);
      target.editor.end(tool);
    }
    this.showCross();
  }

  /** Mark the centre of what is shown. */
  showCross(): void {
    if (!this.stage.isOpen) return;
    this.showCursor({ at: this.stage.centre, diameter: 0 });
    if (this.chosen === "wire") this.pointWire(this.stage.centre, false);
  }

  /** Join the break that is shown as the current one, else the nearest to the cross or the pointer. */
  bridge(): void {
    if (!this.actions.target()?.canClick) return;
    const pointed = this.pointer && !this.crossed ? this.stage.toImage(this.pointer) : this.stage.centre;
    this.actions.bridge(this.stage.currentBreak ?? pixelAt(pointed));
  }

  /** A step was taken back; a live-wire goes on from where it began. */
  undone(name: string): void {
    if (name === WIRE) this.wire.back();
  }

  /** Give up what is being drawn. */
  cancel(): void {
    this.wire.drop();
    this.lift();
  }

  private lift(): void {
    this.actions.target()?.editor.cancel();
    this.used = this.from = null;
    this.stage.box = null;
    this.stage.redraw();
  }

  private addButton(tool: Tool, text: string, key: string): void {
    const button = element("button", "tool");
    button.type = "button";
    button.id = `tool-${tool}`;
    button.dataset["title"] = button.title = `${text} (${key})`;
    button.setAttribute("aria-label", text);
    button.append(icon(tool));
    button.addEventListener("click", () => this.choose(tool));
    this.buttons.set(tool, button);
    byId("tools").append(button);
  }

  private toolOf({ originalEvent, pointerType }: PointerAt): Tool {
    if (pointerType === "pen") this.penSeen = true;
    if (pointerType === "touch" && this.penSeen) return "move";
    return ((originalEvent as PointerEvent).altKey && OPPOSITE[this.chosen]) || this.chosen;
  }

  private press(event: PointerAt): void {
    this.used = this.toolOf(event);
    const target = this.actions.target();
    if (!target || !this.stage.isOpen) return;
    this.from = this.stage.toImage(event.position);
    if (this.used === "brush" || this.used === "eraser") {
      target.editor.beginStroke(this.from, this.size, this.used === "brush" ? target.label : 0);
    }
  }

  private drag(event: PointerAt): void {
    const target = this.actions.target();
    if (!this.from || !target || !this.used) return;
    const at = this.stage.toImage(event.position);
    if (target.editor.drawing) {
      event.preventDefaultAction = true;
      target.editor.extendStroke(at, this.size, this.used === "brush" ? target.label : 0);
    } else if (this.used === "box") {
      event.preventDefaultAction = true;
      this.stage.box = spanned(this.from, at);
      this.stage.redraw();
    }
  }

  private release(event: PointerAt): void {
    const target = this.actions.target();
    const { used, from } = this;
    this.used = this.from = null;
    const box = this.stage.box;
    this.stage.box = null;
    this.stage.redraw();
    if (!target || !from) return;
    if (target.editor.drawing) {
      target.editor.end(used ?? "brush");
    } else if (used === "box" && box) {
      const { mask } = target.editor;
      const clipped = clip(spanned(from, this.stage.toImage(event.position)), mask);
      if (clipped.width > 2 && clipped.height > 2) this.actions.box(clipped);
    }
  }

  private click(event: PointerAt & { quick: boolean }): void {
    const tool = this.toolOf(event);
    if (!event.quick || !this.stage.isOpen || (tool !== "add" && tool !== "remove" && tool !== "wire")) return;
    event.preventDefaultAction = true;
    const at = this.stage.toImage(event.position);
    if (tool === "wire") this.wireAt(at, !(event.originalEvent as PointerEvent).altKey);
    else this.clickAt(at, tool === "add");
  }

  private otherButton(event: PointerAt & { button: number }): void {
    if (event.button !== 2 || !this.stage.isOpen) return;
    const at = this.stage.toImage(event.position);
    if (this.chosen === "wire") this.wireAt(at, false);
    if (this.chosen === "add" || this.chosen === "remove") this.clickAt(at, this.chosen === "remove");
  }

  private clickAt(at: Point, positive: boolean): void {
    const target = this.actions.target();
    const pixel = pixelAt(at);
    if (target?.canClick && inside(target.editor.mask, pixel.x, pixel.y)) this.actions.click(pixel, positive);
  }

  /** Begin a live-wire, go on with it, or end it by another click at the same place. */
  private wireAt(at: Point, positive: boolean): void {
    const target = this.actions.target();
    const pixel = pixelAt(at);
    if (!target?.canClick || !inside(target.editor.mask, pixel.x, pixel.y)) return;
    const { start } = this.wire;
    if (start && Math.hypot(pixel.x - start.x, pixel.y - start.y) * this.stage.scale < SAME) return this.endLine();
    if (!start && performance.now() < this.ended + DOUBLE) return;
    this.wire.click(pixel, positive);
    if (!start) announce("Live-wire begins here");
  }

  private endLine(): void {
    this.wire.end();
    this.ended = performance.now();
    announce("Live-wire ended");
  }

  private pointWire(at: Point, taking: boolean): void {
    const mask = this.actions.target()?.editor.mask;
    const pixel = pixelAt(at);
    this.taking = taking;
    this.showLine();
    this.wire.point(mask && inside(mask, pixel.x, pixel.y) ? pixel : null);
  }

  private paintWay(way: Way, positive: boolean): void {
    const { path, half_width } = positive ? way : wider(way);
    const target = this.actions.target();
    target?.editor.drawPixels(WIRE, path, half_width, positive ? target.label : 0);
  }

  private showLine(): void {
    const { start, shown } = this.wire;
    const way = shown && (this.taking ? wider(shown.way) : shown.way);
    this.stage.line = start ? { start, way, positive: !this.taking } : null;
    byId("wire-end").hidden = !start;
    this.stage.redraw();
  }

  /** Whether the keyboard moves the cross. */
  private get crossed(): boolean {
    return this.stage.cursor?.diameter === 0;
  }

  private hover(event: PointerEvent): void {
    if (!this.stage.isOpen) return;
    const { left, top } = this.stage.viewer.canvas.getBoundingClientRect();
    this.pointer = { x: event.clientX - left, y: event.clientY - top };
    const at = this.stage.toImage(this.pointer);
    const brush = this.chosen === "brush" || this.chosen === "eraser";
    this.showCursor(brush && event.pointerType !== "touch" ? { at, diameter: this.size } : null);
    if (this.chosen === "wire" && event.pointerType !== "touch") this.pointWire(at, event.altKey);
    this.actions.place(at);
  }

  private showCursor(cursor: Stage["cursor"]): void {
    if (!cursor && !this.stage.cursor) return;
    this.stage.cursor = cursor;
    this.stage.redraw();
  }
}

/** What is taken away is a pixel wider, so that no rim stays. */
function wider(way: Way): Way {
  return { ...way, half_width: way.half_width + 1 };
}

function pixelAt({ x, y }: Point): Point {
  return { x: Math.floor(x), y: Math.floor(y) };
}

function spanned(from: Point, to: Point): Rect {
  const x = Math.floor(Math.min(from.x, to.x));
  const y = Math.floor(Math.min(from.y, to.y));
  return { x, y, width: Math.ceil(Math.max(from.x, to.x)) - x, height: Math.ceil(Math.max(from.y, to.y)) - y };
}

function clip(rect: Rect, { width, height }: { width: number; height: number }): Rect {
  const x = Math.min(Math.max(0, rect.x), width);
  const y = Math.min(Math.max(0, rect.y), height);
  const right = Math.min(rect.x + rect.width, width);
  const bottom = Math.min(rect.y + rect.height, height);
  return { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
}
