/** Class numbers of an image, and changes to them as rectangles that can be taken back. */

import type { Plane } from "./png";

export interface Point {
  x: number;
  y: number;
}

/** Pixels from (x, y), of the given size. */
export interface Rect extends Point {
  width: number;
  height: number;
}

/** What a rectangle held before and after a change. */
export interface Patch extends Rect {
  before: Uint8Array;
  after: Uint8Array;
}

/** Paint what a disc covers on its way between two points; a pixel is covered with its centre. */
export function paint(mask: Plane, from: Point, to: Point, diameter: number, value: number): Rect | null {
  const radius = Math.max(diameter / 2, 0.5);
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const right = Math.min(mask.width - 1, Math.ceil(Math.max(from.x, to.x) + radius));
  const bottom = Math.min(mask.height - 1, Math.ceil(Math.max(from.y, to.y) + radius));
  if (right < left || bottom < top) return null;
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const squared = dx * dx + dy * dy;
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const px = x + 0.5 - from.x;
      const py = y + 0.5 - from.y;
      const along = squared ? Math.min(1, Math.max(0, (px * dx + py * dy) / squared)) : 0;
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) mask.values[y * mask.width + x] = value;
    }
  }
  for (const { x, y } of [from, to]) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (inside(mask, column, row)) mask.values[row * mask.width + column] = value;
  }
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/** Paint pixels and what is nearer to one than half a width. */
export function paintPixels(mask: Plane, pixels: readonly (readonly [number, number])[], halfWidth: number, value: number): void {
  for (const [x, y] of pixels) {
    const centre = { x: x + 0.5, y: y + 0.5 };
    paint(mask, centre, centre, 2 * halfWidth - 1e-6, value);
  }
}

/** Whether an image has this pixel. */
export function inside(image: { width: number; height: number }, x: number, y: number): boolean {
  return x >= 0 && y >= 0 && x < image.width && y < image.height;
}

/** The smallest patch that leads from one state to another; null if they are equal. */
export function difference(before: Uint8Array, after: Uint8Array, width: number): Patch | null {
  let [left, top, right, bottom] = [width, -1, -1, -1];
  const height = before.length / width;
  for (let y = 0; y < height; y++) {
    const start = y * width;
    let first = 0;
    while (first < width && before[start + first] === after[start + first]) first++;
    if (first === width) continue;
    let last = width - 1;
    while (before[start + last] === after[start + last]) last--;
    if (top < 0) top = y;
    bottom = y;
    left = Math.min(left, first);
    right = Math.max(right, last);
  }
  if (top < 0) return null;
  const rect = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  return { ...rect, before: cut(before, rect, width), after: cut(after, rect, width) };
}

/** Put one side of a patch into a mask. */
export function put(mask: Plane, patch: Patch, side: "before" | "after"): void {
  for (let row = 0; row < patch.height; row++) {
    const line = patch[side].subarray(row * patch.width, (row + 1) * patch.width);
    mask.values.set(line, (patch.y + row) * mask.width + patch.x);
  }
}

/** What the server answered to a mask that was changed meanwhile: a pixel that was changed stays as it is. */
export function merged(sent: Uint8Array, answer: Uint8Array, current: Uint8Array): Uint8Array {
  const values = Uint8Array.from(answer);
  for (let at = 0; at < values.length; at++) if (current[at] !== sent[at]) values[at] = current[at]!;
  return values;
}

/** Whether a patch changes anything within a distance of a point. */
export function touches(patch: Patch, point: Point, distance: number): boolean {
  const first = { x: Math.max(0, Math.ceil(point.x - distance) - patch.x), y: Math.max(0, Math.ceil(point.y - distance) - patch.y) };
  const last = { x: Math.floor(point.x + distance) - patch.x, y: Math.floor(point.y + distance) - patch.y };
  for (let row = first.y; row <= Math.min(last.y, patch.height - 1); row++) {
    for (let column = first.x; column <= Math.min(last.x, patch.width - 1); column++) {
      const at = row * patch.width + column;
      const near = Math.hypot(patch.x + column - point.x, patch.y + row - point.y) <= distance;
      if (near && patch.before[at] !== patch.after[at]) return true;
    }
  }
  return false;
}

function cut(values: Uint8Array, rect: Rect, width: number): Uint8Array {
  const part = new Uint8Array(rect.width * rect.height);
  for (let row = 0; row < rect.height; row++) {
    const start = (rect.y + row) * width + rect.x;
    part.set(values.subarray(start, start + rect.width), row * rect.width);
  }
  return part;
}
