/** Borders of a mask's classes: along the edges of pixels, so that they hide none. */

import type { Rect } from "./mask";
import type { Plane } from "./png";

/** For each class in a rectangle its border, in pixels of the image. */
export function borders(mask: Plane, { x: left, y: top, width, height }: Rect): Map<number, Path2D> {
  const paths = new Map<number, Path2D>();
  const valueAt = (x: number, y: number) =>
    x < 0 || y < 0 || x >= mask.width || y >= mask.height ? 0 : mask.values[y * mask.width + x]!;
  const line = (value: number, x: number, y: number, toX: number, toY: number) => {
    let path = paths.get(value);
    if (!path) paths.set(value, (path = new Path2D()));
    path.moveTo(x, y);
    path.lineTo(toX, toY);
  };
  for (let y = top; y < top + height; y++) {
    for (let x = left; x < left + width; x++) {
      const value = valueAt(x, y);
      if (!value) continue;
      if (valueAt(x, y - 1) !== value) line(value, x, y, x + 1, y);
      if (valueAt(x, y + 1) !== value) line(value, x, y + 1, x + 1, y + 1);
      if (valueAt(x - 1, y) !== value) line(value, x, y, x, y + 1);
      if (valueAt(x + 1, y) !== value) line(value, x + 1, y, x + 1, y + 1);
    }
  }
  return paths;
}

/** Whether a pixel lies at the border of its class. */
export function atBorder({ width, height, values }: Plane, x: number, y: number): boolean {
  const at = y * width + x;
  const value = values[at];
  return (
    x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
    values[at - 1] !== value || values[at + 1] !== value || values[at - width] !== value || values[at + width] !== value
  );
}
