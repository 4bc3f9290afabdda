import { expect, test } from "vitest";

import { difference, merged, paint, paintPixels, put, touches } from "../src/mask";

const empty = (width = 6, height = 4) => ({ width, height, values: new Uint8Array(width * height) });
const picture = (mask: { width: number; values: Uint8Array }) =>
  [...mask.values].map((value, at) => (at % mask.width ? "" : "\n") + (value || ".")).join("");

test("a brush of 1 pixel draws the pixels it passes", () => {
  const mask = empty();
  paint(mask, { x: 1.5, y: 1.5 }, { x: 4.5, y: 1.5 }, 1, 2);
  expect(picture(mask)).toBe("\n......\n.2222.\n......\n......");
});

test("a disc covers pixels with their centres", () => {
  const mask = empty(5, 5);
  paint(mask, { x: 2.5, y: 2.5 }, { x: 2.5, y: 2.5 }, 3, 1);
  expect(picture(mask)).toBe("\n.....\n.111.\n.111.\n.111.\n.....");
});

test("pixels of a way are painted with what is nearer than half the width", () => {
  const mask = empty();
  paintPixels(mask, [[1, 1], [2, 2]], 1, 1);
  expect(picture(mask)).toBe("\n......\n.1....\n..1...\n......");
  paintPixels(mask, [[4, 1]], 1.1, 2);
  expect(picture(mask)).toBe("\n....2.\n.1.222\n..1.2.\n......");
});

test("outside of the image nothing happens", () => {
  const mask = empty();
  expect(paint(mask, { x: -20, y: -20 }, { x: -10, y: -20 }, 4, 1)).toBeNull();
  paint(mask, { x: -1, y: 2.5 }, { x: 0.5, y: 2.5 }, 1, 1);
  expect(picture(mask)).toBe("\n......\n......\n1.....\n......");
});

test("a patch leads there and back", () => {
  const before = empty();
  before.values.fill(3, 0, 6);
  const after = { ...before, values: Uint8Array.from(before.values) };
  paint(after, { x: 2.5, y: 0.5 }, { x: 3.5, y: 2.5 }, 1, 1);
  const patch = difference(before.values, after.values, 6)!;
  expect([patch.x, patch.y, patch.width, patch.height]).toEqual([2, 0, 2, 3]);
  const mask = { ...before, values: Uint8Array.from(before.values) };
  put(mask, patch, "after");
  expect(mask.values).toEqual(after.values);
  put(mask, patch, "before");
  expect(mask.values).toEqual(before.values);
  expect(difference(before.values, before.values, 6)).toBeNull();
});

test("an answer leaves what was drawn meanwhile", () => {
  expect([...merged(Uint8Array.of(0, 0, 1, 1), Uint8Array.of(1, 1, 0, 1), Uint8Array.of(0, 2, 1, 0))]).toEqual([1, 2, 0, 0]);
});

test("only changed pixels touch a place", () => {
  const patch = { x: 10, y: 10, width: 3, height: 1, before: Uint8Array.of(1, 1, 1), after: Uint8Array.of(1, 1, 0) };
  expect(touches(patch, { x: 14, y: 10 }, 2)).toBe(true);
  expect(touches(patch, { x: 9, y: 10 }, 2)).toBe(false);
});
