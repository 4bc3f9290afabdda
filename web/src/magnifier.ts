/** A round glass over the pointer that shows the image, and the mask's borders, larger than the screen does. */

import { element } from "./dom";
import type { Point } from "./mask";

const SIZE = 180;
/** Screen pixels for a pixel of the image, at least; and how much larger than around it, at least. */
const LEAST_SCALE = 4;
const FACTOR = 2.5;

export interface Magnified {
  /** What the pointer is at, in pixels of the image. */
  at: Point;
  /** The same on the element. */
  place: Point;
  /** Screen pixels for a pixel of the image around the glass. */
  scale: number;
}

export class Magnifier {
  readonly picture = element("canvas");
  private readonly marks = element("canvas");
  private readonly glass = element("div", "glass");
  private image: ImageBitmap | null = null;
  private blob: Blob | null = null;
  on = false;

  constructor(
    private readonly room: HTMLElement,
    private readonly drawMarks: (context: CanvasRenderingContext2D, scale: number, corner: Point) => void,
  ) {
    for (const canvas of [this.picture, this.marks]) {
      const ratio = devicePixelRatio || 1;
      canvas.width = canvas.height = SIZE * ratio;
      canvas.getContext("2d")!.scale(ratio, ratio);
    }
    this.glass.hidden = true;
    this.glass.append(this.picture, this.marks);
    room.append(this.glass);
  }

  /** The image that is open from now on; it is decoded when it is first needed. */
  load(blob: Blob | null): void {
    this.image?.close();
    this.image = null;
    this.blob = blob;
    this.glass.hidden = true;
  }

  /** Move the glass, or take it away. */
  async show(magnified: Magnified | null): Promise<void> {
    this.glass.hidden = !magnified || !this.on;
    if (this.glass.hidden || !magnified || !this.blob) return;
    const { blob } = this;
    if (!this.image) {
      const image = await createImageBitmap(blob);
      if (blob !== this.blob) return;
      this.image ??= image;
    }
    this.draw(magnified, this.image);
  }

  private draw({ at, place, scale }: Magnified, image: ImageBitmap): void {
    const larger = Math.max(LEAST_SCALE, scale * FACTOR);
    const corner = { x: at.x - SIZE / 2 / larger, y: at.y - SIZE / 2 / larger };
    const picture = this.picture.getContext("2d")!;
    picture.clearRect(0, 0, SIZE, SIZE);
    picture.imageSmoothingEnabled = false;
    picture.drawImage(image, -corner.x * larger, -corner.y * larger, image.width * larger, image.height * larger);
    const marks = this.marks.getContext("2d")!;
    marks.clearRect(0, 0, SIZE, SIZE);
    this.drawMarks(marks, larger, corner);
    const above = place.y - SIZE - 24;
    const left = Math.min(Math.max(4, place.x - SIZE / 2), this.room.clientWidth - SIZE - 4);
    this.glass.style.transform = `translate(${left}px, ${above < 4 ? place.y + 24 : above}px)`;
  }
}
