import { expect, test } from "vitest";

import { withoutHoles, withoutIslands } from "../src/regions";

function drawn(text: string): { width: number; height: number; values: Uint8Array } {
  const rows = text.trim().split(/\s+/);
  const values = Uint8Array.from([...rows.join("")].map((sign) => (sign === "." ? 0 : Number(sign))));
  return { width: rows[0]!.length, height: rows.length, values };
}

const ringed = drawn(`
  11111...
  1...1.2.
  1.111...
  11111..1`);

test("holes of a class up to a size are filled", () => {
  expect(withoutHoles(ringed, 1, 4)).toEqual(drawn("11111... 11111.2. 11111... 11111..1").values);
  expect(withoutHoles(ringed, 1, 3)).toEqual(ringed.values);
  expect(withoutHoles(ringed, 2, 100)).toEqual(ringed.values);
});

test("a gap to the border and one beside another class are no holes", () => {
  const open = drawn("111 1.1 1.1 111 1.2 111");
  expect([...withoutHoles(open, 1, 1)].filter(Boolean).length).toBe(15);
  const border = drawn("1.1 111");
  expect(withoutHoles(border, 1, 9)).toEqual(border.values);
});

test("islands of a class up to a size go, and corners join", () => {
  expect(withoutIslands(ringed, 1, 1)).toEqual(drawn("11111... 1...1.2. 1.111... 11111...").values);
  const diagonal = drawn("1... .1.. ...1");
  expect(withoutIslands(diagonal, 1, 1)).toEqual(drawn("1... .1.. ....").values);
});
