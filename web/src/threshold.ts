/** A mask from probabilities at any threshold, without asking the server. */

import type { Plane } from "./png";

/** The level at which the mask is the model's own. */
export const OWN_LEVEL = 128;

export interface Probabilities {
  width: number;
  height: number;
  /** Of each class from 1, levels row by row; the threshold lies between 127 and {@link OWN_LEVEL}. */
  planes: Uint8Array[];
  threshold: number;
}

/** From the server's picture, in which the classes' planes are one below the other. */
export function probabilities({ width, height, values }: Plane, classes: number, threshold: number): Probabilities {
  const pixels = values.length / classes;
  const planes = Array.from({ length: classes }, (_, index) => values.subarray(index * pixels, (index + 1) * pixels));
  return { width, height: height / classes, planes, threshold };
}

/** What the mask is at a level: of the classes that reach it the most probable one. */
export function maskAt({ planes }: Probabilities, level: number): Uint8Array {
  const mask = new Uint8Array(planes[0]!.length);
  const best = new Uint8Array(mask.length).fill(level);
  planes.forEach((plane, index) => {
    for (let at = 0; at < mask.length; at++) {
      // An earlier class is kept when another is as probable, as on the server.
      if (mask[at] ? plane[at]! > best[at]! : plane[at]! >= level) {
        mask[at] = index + 1;
        best[at] = plane[at]!;
      }
    }
  });
  return mask;
}

/** The probability that a level stands for. */
export function levelProbability(level: number, threshold: number): number {
  return level < OWN_LEVEL ? (level / OWN_LEVEL) * threshold : threshold + ((level - OWN_LEVEL) / 127) * (1 - threshold);
}
