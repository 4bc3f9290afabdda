/** What pointers do to the image: clicks, a box, strokes of the brush. */

import { byId, element, icon } from "./dom";
import type { Editor } from "./editor";
import { inside, type Point, type Rect } from "./mask";
import type { Stage } from "./stage";

export type Tool = "move" | "add" | "remove" | "box" | "brush" | "eraser";

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
];

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
    viewer.addHandler("canvas-pinch", () => this.cancel());
    viewer.addHandler("canvas-click", (event) => this.click(event as unknown as PointerAt & { quick: boolean }));
    viewer.addHandler("canvas-nonprimary-press", (event) => this.otherButton(event as unknown as PointerAt & { button: number }));
    viewer.canvas.addEventListener("pointermove", (event) => this.hover(event));
    viewer.canvas.addEventListener("pointerleave", () => this.showCursor(null));
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
    for (const tool of ["add", "remove", "box"] as const) {
      const button = this.buttons.get(tool)!;
      button.disabled = !canClick;
      button.title = canClick ? button.dataset["title"]! : "This model takes no clicks";
    }
    if (!canClick && ["add", "remove", "box"].includes(this.chosen)) this.choose("brush");
  }

  /** Use the tool at the centre of what is shown; for work without a pointer. */
  useAtCentre(opposite: boolean): void {
    const target = this.actions.target();
    if (!target) return;
    const at = this.stage.centre;
    const tool = (opposite && OPPOSITE[this.chosen]) || this.chosen;
    if (tool === "add" || tool === "remove") this.clickAt(at, tool === "add");
    if (tool === "brush" || tool === "eraser") {
      target.editor.beginStroke(at, this.size, tool === "brush" ? target.label : 0);
      target.editor.end(tool);
    }
    this.showCross();
  }

  /** Mark the centre of what is shown. */
  showCross(): void {
    if (this.stage.isOpen) this.showCursor({ at: this.stage.centre, diameter: 0 });
  }

  /** Give up what is being drawn. */
  cancel(): void {
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
    if (!event.quick || (tool !== "add" && tool !== "remove")) return;
    event.preventDefaultAction = true;
    this.clickAt(this.stage.toImage(event.position), tool === "add");
  }

  private otherButton(event: PointerAt & { button: number }): void {
    if (event.button !== 2 || (this.chosen !== "add" && this.chosen !== "remove") || !this.stage.isOpen) return;
    this.clickAt(this.stage.toImage(event.position), this.chosen === "remove");
  }

  private clickAt(at: Point, positive: boolean): void {
    const target = this.actions.target();
    const pixel = { x: Math.floor(at.x), y: Math.floor(at.y) };
    if (target?.canClick && inside(target.editor.mask, pixel.x, pixel.y)) this.actions.click(pixel, positive);
  }

  private hover(event: PointerEvent): void {
    if (!this.stage.isOpen) return;
    const { left, top } = this.stage.viewer.canvas.getBoundingClientRect();
    const at = this.stage.toImage({ x: event.clientX - left, y: event.clientY - top });
    const brush = this.chosen === "brush" || this.chosen === "eraser";
    this.showCursor(brush && event.pointerType !== "touch" ? { at, diameter: this.size } : null);
    this.actions.place(at);
  }

  private showCursor(cursor: Stage["cursor"]): void {
    if (!cursor && !this.stage.cursor) return;
    this.stage.cursor = cursor;
    this.stage.redraw();
  }
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
