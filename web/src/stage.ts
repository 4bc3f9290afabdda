/** The image in OpenSeadragon, with the mask and marks drawn over it at the same place. */

import OpenSeadragon from "openseadragon";

import { classColour, palette, type Palette, pixelColours } from "./colours";
import { type Marks, NO_MARKS } from "./history";
import { type Look, wear } from "./look";
import { Magnifier } from "./magnifier";
import type { Point, Rect } from "./mask";
import { atBorder, borders } from "./outline";
import type { Plane } from "./png";
import type { Way } from "./wire";

const POSITIVE = "#0072b2";
const NEGATIVE = "#d55e00";
const GAP = "#f0e442";
const MARGIN = { left: 84, bottom: 84, other: 12 };
const HALO = "rgb(0 0 0 / 75%)";
/** Screen pixels for a pixel of the image from which borders are drawn as lines. */
const LINES = 2;

export interface Cursor {
  at: Point;
  /** In pixels of the image; 0 for a cross. */
  diameter: number;
}

/** A live-wire that goes on. */
export interface Line {
  start: Point;
  /** To the pointer; null while it is not known. */
  way: Way | null;
  /** Whether a click would add it, or take it away. */
  positive: boolean;
}

export class Stage {
  readonly viewer: OpenSeadragon.Viewer;
  private readonly overlay = document.createElement("canvas");
  private readonly tinted = document.createElement("canvas");
  private readonly magnifier: Magnifier;
  private palette = palette("");
  private colours = pixelColours(this.palette);
  private mask: Plane | null = null;
  private other: Plane | null = null;
  private url = "";
  private due = 0;
  private focused = -1;
  private shown: Point | null = null;
  private outlined = false;
  marks: Marks = NO_MARKS;
  pending: readonly { x: number; y: number; positive: boolean }[] = [];
  box: Rect | null = null;
  cursor: Cursor | null = null;
  line: Line | null = null;
  opacity = 0.6;
  hidden = false;
  showBreaks = true;

  constructor(element: HTMLElement) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const gestures = { clickToZoom: false, dblClickToZoom: false, flickEnabled: false };
    this.viewer = OpenSeadragon({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      imageSmoothingEnabled: true,
      animationTime: still ? 0 : 0.3,
      springStiffness: 10,
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.7,
      maxZoomPixelRatio: 32,
      zoomPerScroll: 1.25,
      gestureSettingsMouse: gestures,
      gestureSettingsTouch: gestures,
      gestureSettingsPen: gestures,
    });
    this.overlay.className = "overlay";
    this.viewer.canvas.append(this.overlay);
    this.magnifier = new Magnifier(element, (context, scale, corner) => this.drawBorders(context, scale, corner));
    this.viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
    this.viewer.addHandler("canvas-contextmenu", (event) => (event.preventDefault = true));
    this.viewer.addHandler("update-viewport", () => this.draw());
    for (const event of ["resize", "animation", "animation-finish"] as const) {
      this.viewer.addHandler(event, () => this.redraw());
    }
  }

  /** Show a picture; ends once it is there. */
  async open(picture: Blob, mask: Plane): Promise<void> {
    this.close();
    await this.show(picture);
    this.fit(true);
    this.mask = mask;
    this.tinted.width = mask.width;
    this.tinted.height = mask.height;
    this.refresh({ x: 0, y: 0, width: mask.width, height: mask.height });
  }

  /** Show the same image in another picture of it, at the same place. */
  async swap(picture: Blob): Promise<void> {
    const bounds = this.viewer.viewport.getBounds();
    await this.show(picture);
    this.viewer.viewport.fitBounds(bounds, true);
    this.redraw();
  }

  private async show(picture: Blob): Promise<void> {
    URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(picture);
    this.magnifier.load(picture);
    await new Promise<void>((resolve, reject) => {
      this.viewer.addOnceHandler("open", () => resolve());
      this.viewer.addOnceHandler("open-failed", () => reject(new Error("The browser cannot show this image.")));
      this.viewer.open({ type: "image", url: this.url } as unknown as OpenSeadragon.TileSourceSpecifier);
    });
  }

  /** Show nothing. */
  close(): void {
    this.viewer.close();
    URL.revokeObjectURL(this.url);
    this.magnifier.load(null);
    this.mask = this.other = null;
    this.marks = NO_MARKS;
    this.pending = [];
    this.box = null;
    this.focused = -1;
    this.shown = null;
    this.redraw();
  }

  /** Name the image for screen readers. */
  describe(text: string): void {
    this.viewer.canvas.setAttribute("role", "application");
    this.viewer.canvas.setAttribute("aria-label", text);
  }

  /** Take in what changed in a rectangle of the mask. */
  refresh(rect: Rect | null): void {
    if (rect && this.mask) this.tint(this.outlined ? grown(rect, this.mask) : rect, this.mask);
    this.redraw();
  }

  private refreshAll(): void {
    this.refresh(this.mask && { x: 0, y: 0, width: this.mask.width, height: this.mask.height });
  }

  /** Show the mask's borders alone, or all of it. */
  outline(alone: boolean): void {
    this.outlined = alone;
    this.refreshAll();
  }

  /** Show the borders of another mask of the image over its own, in white, or of none. */
  compare(other: Plane | null): void {
    this.other = other;
    this.redraw();
  }

  /** Take other colours for the classes. */
  paint(chosen: Palette): void {
    this.palette = chosen;
    this.colours = pixelColours(chosen);
    this.refreshAll();
  }

  /** How the image looks from now on. */
  wear(look: Look): void {
    wear(look, [this.viewer.drawer.canvas as HTMLElement, this.magnifier.picture]);
  }

  /** Switch the magnifying glass on or off. */
  magnify(on: boolean): void {
    this.magnifier.on = on;
    if (!on) this.moveGlass(null);
  }

  /** Hold the glass over a place of the image. */
  moveGlass(at: Point | null): void {
    if (!this.magnifier.on && at) return;
    const item = this.viewer.world.getItemAt(0);
    const place = at && item?.imageToViewerElementCoordinates(new OpenSeadragon.Point(at.x, at.y));
    void this.magnifier.show(at && place ? { at, place, scale: this.scale } : null);
  }

  /** From pixels of the page's element to the image's. */
  toImage(place: Point): Point {
    const item = this.viewer.world.getItemAt(0);
    const { x, y } = item.viewerElementToImageCoordinates(new OpenSeadragon.Point(place.x, place.y));
    return { x, y };
  }

  get isOpen(): boolean {
    return this.mask !== null;
  }

  /** Screen pixels for a pixel of the image. */
  get scale(): number {
    const item = this.viewer.world.getItemAt(0);
    return item ? item.viewportToImageZoom(this.viewer.viewport.getZoom(true)) : 1;
  }

  /** Centre of what is shown, in pixels of the image. */
  get centre(): Point {
    const { x, y } = this.viewer.viewport.getContainerSize();
    return this.toImage({ x: x / 2, y: y / 2 });
  }

  zoom(factor: number): void {
    this.viewer.viewport.zoomBy(factor).applyConstraints();
  }

  /** Move what is shown, in shares of its size. */
  pan(right: number, down: number): void {
    const { width, height } = this.viewer.viewport.getBounds();
    this.viewer.viewport.panBy(new OpenSeadragon.Point(right * width, down * height)).applyConstraints();
  }

  /** Show the whole image, beside the tools and above the options. */
  fit(immediately = false): void {
    const item = this.viewer.world.getItemAt(0);
    const room = this.viewer.viewport.getContainerSize();
    const { x: width, y: height } = item.getContentSize();
    const free = { x: Math.max(100, room.x - MARGIN.left - MARGIN.other), y: Math.max(100, room.y - MARGIN.bottom - MARGIN.other) };
    const scale = Math.min(free.x / width, free.y / height);
    const left = (width - free.x / scale) / 2 - MARGIN.left / scale;
    const top = (height - free.y / scale) / 2 - MARGIN.other / scale;
    const region = item.imageToViewportRectangle(left, top, room.x / scale, room.y / scale);
    this.viewer.viewport.fitBounds(region, immediately);
  }

  /** Show the surroundings of the next or last possible break; its number, or null without any. */
  nextBreak(by: 1 | -1 = 1): number | null {
    const count = this.marks.breaks.length;
    if (!count || !this.showBreaks) return null;
    // One that was mended since has gone from the list, and the next has its number.
    const still = this.marks.breaks.findIndex(({ x, y }) => x === this.shown?.x && y === this.shown.y);
    this.focused = ((still < 0 ? Math.max(0, this.focused) : still + by) + count) % count;
    this.shown = this.marks.breaks[this.focused]!;
    const { x, y } = this.shown;
    const item = this.viewer.world.getItemAt(0);
    const around = Math.max(60, Math.min(160, item.getContentSize().x / 5));
    const region = item.imageToViewportRectangle(x - around / 2, y - around / 2, around, around);
    this.viewer.viewport.fitBoundsWithConstraints(region);
    this.redraw();
    return this.focused;
  }

  /** The possible break that was gone to, until it is settled. */
  get currentBreak(): Point | undefined {
    return this.showBreaks ? this.marks.breaks.find(({ x, y }) => x === this.shown?.x && y === this.shown.y) : undefined;
  }

  /** Draw when the browser draws next. */
  redraw(): void {
    if (!this.due) this.due = requestAnimationFrame(() => this.draw());
  }

  private tint({ x, y, width, height }: Rect, mask: Plane): void {
    const picture = new ImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        if (this.outlined && !atBorder(mask, x + column, y + row)) continue;
        pixels[row * width + column] = this.colours[mask.values[(y + row) * mask.width + x + column]!]!;
      }
    }
    this.tinted.getContext("2d")!.putImageData(picture, x, y);
  }

  private drawBorders(context: CanvasRenderingContext2D, scale: number, corner: Point): void {
    if (!this.mask || this.hidden) return;
    drawBorders(context, this.mask, scale, corner, (number) => classColour(this.palette, number));
  }

  private draw(): void {
    cancelAnimationFrame(this.due);
    this.due = 0;
    const { clientWidth: width, clientHeight: height } = this.viewer.canvas;
    const ratio = devicePixelRatio || 1;
    if (this.overlay.width !== Math.round(width * ratio) || this.overlay.height !== Math.round(height * ratio)) {
      this.overlay.width = Math.round(width * ratio);
      this.overlay.height = Math.round(height * ratio);
    }
    const context = this.overlay.getContext("2d")!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const item = this.viewer.world.getItemAt(0);
    if (!item || !this.mask) return;
    const toScreen = ({ x, y }: Point): Point => item.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
    const corner = toScreen({ x: 0, y: 0 });
    const far = toScreen({ x: this.mask.width, y: this.mask.height });
    const scale = (far.x - corner.x) / this.mask.width;
    this.viewer.drawer.setImageSmoothingEnabled(scale < 3);
    if (!this.hidden) {
      if (this.outlined && scale >= LINES) {
        this.drawBorders(context, scale, { x: -corner.x / scale, y: -corner.y / scale });
      } else {
        context.globalAlpha = this.outlined ? 1 : this.opacity;
        context.imageSmoothingEnabled = scale < 1;
        context.drawImage(this.tinted, corner.x, corner.y, far.x - corner.x, far.y - corner.y);
        context.globalAlpha = 1;
      }
      for (const place of this.showBreaks ? this.marks.breaks : []) {
        drawGap(context, toScreen(centre(place)), scale, place.x === this.shown?.x && place.y === this.shown.y);
      }
      for (const click of this.marks.clicks) drawClick(context, toScreen(centre(click)), click.positive, 1);
    }
    if (this.other) drawBorders(context, this.other, scale, { x: -corner.x / scale, y: -corner.y / scale }, () => "#fff");
    for (const click of this.pending) drawClick(context, toScreen(centre(click)), click.positive, 0.5);
    if (this.box) drawBox(context, toScreen(this.box), this.box.width * scale, this.box.height * scale);
    if (this.line) drawLine(context, this.line, scale, (place) => toScreen(centre(place)));
    if (this.cursor) drawCursor(context, toScreen(this.cursor.at), this.cursor.diameter * scale);
  }
}

/** A rectangle and the pixels beside it. */
function grown({ x, y, width, height }: Rect, mask: Plane): Rect {
  const [left, top] = [Math.max(0, x - 1), Math.max(0, y - 1)];
  return { x: left, y: top, width: Math.min(mask.width, x + width + 1) - left, height: Math.min(mask.height, y + height + 1) - top };
}

function centre({ x, y }: Point): Point {
  return { x: x + 0.5, y: y + 0.5 };
}

/** Borders of the part of a mask that a canvas shows, whose corner is at a place of the image. */
function drawBorders(
  context: CanvasRenderingContext2D, mask: Plane, scale: number, corner: Point, colour: (number: number) => string,
): void {
  const ratio = context.getTransform().a;
  const [x, y] = [Math.max(0, Math.floor(corner.x)), Math.max(0, Math.floor(corner.y))];
  const right = Math.min(mask.width, Math.ceil(corner.x + context.canvas.width / ratio / scale));
  const bottom = Math.min(mask.height, Math.ceil(corner.y + context.canvas.height / ratio / scale));
  context.save();
  context.scale(scale, scale);
  context.translate(-corner.x, -corner.y);
  context.lineCap = "square";
  for (const [number, path] of borders(mask, { x, y, width: right - x, height: bottom - y })) {
    context.strokeStyle = HALO;
    context.lineWidth = 3.5 / scale;
    context.stroke(path);
    context.strokeStyle = colour(number);
    context.lineWidth = 1.8 / scale;
    context.stroke(path);
  }
  context.restore();
}

/** A line in a colour over a wider dark one, to be seen on any image. */
function outlined(context: CanvasRenderingContext2D, colour: string, width: number): void {
  context.lineCap = "round";
  context.strokeStyle = HALO;
  context.lineWidth = width + 2;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function drawClick(context: CanvasRenderingContext2D, { x, y }: Point, positive: boolean, alpha: number): void {
  context.save();
  context.globalAlpha = alpha;
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  context.fillStyle = positive ? POSITIVE : NEGATIVE;
  context.fill();
  outlined(context, "#fff", 1.5);
  context.beginPath();
  context.moveTo(x - 3.5, y);
  context.lineTo(x + 3.5, y);
  if (positive) {
    context.moveTo(x, y - 3.5);
    context.lineTo(x, y + 3.5);
  }
  context.strokeStyle = "#fff";
  context.lineWidth = 2;
  context.stroke();
  context.restore();
}

function drawGap(context: CanvasRenderingContext2D, { x, y }: Point, scale: number, focused: boolean): void {
  context.save();
  context.beginPath();
  context.arc(x, y, Math.min(40, Math.max(9, 7 * scale)), 0, 2 * Math.PI);
  context.setLineDash([5, 5]);
  outlined(context, GAP, focused ? 3.5 : 2);
  context.restore();
}

function drawBox(context: CanvasRenderingContext2D, { x, y }: Point, width: number, height: number): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.setLineDash([8, 6]);
  outlined(context, "#fff", 1.5);
  context.restore();
}

/** Where a live-wire would be painted, and its middle. */
function drawLine(context: CanvasRenderingContext2D, { start, way, positive }: Line, scale: number, place: (at: Point) => Point): void {
  const colour = positive ? POSITIVE : NEGATIVE;
  context.save();
  context.lineJoin = context.lineCap = "round";
  if (way) {
    context.beginPath();
    for (const [x, y] of way.path) {
      const at = place({ x, y });
      context.lineTo(at.x, at.y);
    }
    context.globalAlpha = 0.5;
    context.strokeStyle = colour;
    context.lineWidth = (2 * way.half_width - 1) * scale;
    context.stroke();
    context.globalAlpha = 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 5;
    context.stroke();
    context.strokeStyle = colour;
    context.lineWidth = 2.5;
    context.stroke();
  }
  const { x, y } = place(start);
  context.beginPath();
  context.arc(x, y, 4.5, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  outlined(context, "#fff", 1.5);
  context.restore();
}

function drawCursor(context: CanvasRenderingContext2D, { x, y }: Point, diameter: number): void {
  context.beginPath();
  if (diameter) {
    context.arc(x, y, Math.max(diameter / 2, 2), 0, 2 * Math.PI);
  } else {
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
      context.moveTo(x + 4 * dx, y + 4 * dy);
      context.lineTo(x + 14 * dx, y + 14 * dy);
    }
  }
  outlined(context, "#fff", 1.5);
}
