import { expect, test } from "vitest";

import { PALETTES, palette, pixelColours } from "../src/colours";
import { curve, PLAIN } from "../src/look";
import { atBorder } from "../src/outline";

test("a plain look leaves values, contrast stretches them around the middle, gamma below 1 lifts the dark", () => {
  expect(curve(PLAIN)[16]).toBeCloseTo(0.25);
  const steep = curve({ ...PLAIN, contrast: 4 });
  expect([steep[16], steep[32], steep[48]]).toEqual([0, 0.5, 1]);
  expect(curve({ ...PLAIN, gamma: 0.5 })[16]).toBeCloseTo(0.5);
});

test("colours are bytes in the order of a canvas, come round again, and differ within a palette", () => {
  const colours = pixelColours(palette("okabe"));
  expect([...new Uint8Array(colours.buffer, 4, 4)]).toEqual([0x2f, 0xc4, 0xff, 255]);
  expect([colours[0], colours[8]]).toEqual([0, colours[1]]);
  for (const { colours: all } of PALETTES) expect(new Set(all).size).toBe(all.length);
});

test("a pixel is at the border of its class beside another, or at the image's", () => {
  const mask = { width: 5, height: 5, values: new Uint8Array(25).fill(1) };
  expect([atBorder(mask, 2, 2), atBorder(mask, 0, 2)]).toEqual([false, true]);
  mask.values[11] = 2;
  expect(atBorder(mask, 2, 2)).toBe(true);
});
