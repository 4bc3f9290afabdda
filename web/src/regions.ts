/** Connected parts of a mask: small holes to fill and small islands to remove. */

import type { Plane } from "./png";

/** A mask in which holes of a class with at most so many pixels belong to it; what touches another class is no hole. */
export function withoutHoles(mask: Plane, label: number, most: number): Uint8Array {
  return changed(mask, 0, label, most, false, (part) => part.open || part.neighbours.some((value) => value !== label));
}

/** A mask without the parts of a class that have at most so many pixels; corners join. */
export function withoutIslands(mask: Plane, label: number, most: number): Uint8Array {
  return changed(mask, label, 0, most, true, () => false);
}

interface Part {
  /** Whether it reaches the image's border. */
  open: boolean;
  /** Other values beside it. */
  neighbours: number[];
}

/** Give small parts of one value another, but for those that stay. */
function changed(
  { width, height, values }: Plane, from: number, to: number, most: number, corners: boolean, stays: (part: Part) => boolean,
): Uint8Array {
  const result = Uint8Array.from(values);
  const seen = new Uint8Array(values.length);
  for (let start = 0; start < values.length; start++) {
    if (values[start] !== from || seen[start]) continue;
    const pixels = [start];
    const beside = new Set<number>();
    let open = false;
    seen[start] = 1;
    for (let next = 0; next < pixels.length; next++) {
      const at = pixels[next]!;
      const x = at % width;
      const y = (at - x) / width;
      if (x === 0 || y === 0 || x === width - 1 || y === height - 1) open = true;
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          if (!corners && row !== y && column !== x) continue;
          const place = row * width + column;
          if (values[place] !== from) beside.add(values[place]!);
          else if (!seen[place]) {
            seen[place] = 1;
            pixels.push(place);
          }
        }
      }
    }
    if (pixels.length <= most && !stays({ open, neighbours: [...beside] })) for (const at of pixels) result[at] = to;
  }
  return result;
}
