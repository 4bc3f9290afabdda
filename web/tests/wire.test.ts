import { beforeEach, expect, test } from "vitest";

import { type Part, type Way, Wire } from "../src/wire";

/** What was asked and not answered yet, what was painted and said, and a way that tells where it leads. */
let asked: { part: Part; signal: AbortSignal; answer: (way: Way) => void; refuse: (error: unknown) => void }[];
let painted: [number, boolean][];
let failed: unknown[];
let wire: Wire;
const at = (x: number) => ({ x, y: 0 });
const way = (x: number): Way => ({ path: [[x, 0]], half_width: 1 });
const shown = () => wire.shown?.way.path[0]![0];

beforeEach(() => {
  [asked, painted, failed] = [[], [], []];
  wire = new Wire({
    ask: (part, signal) => new Promise((answer, refuse) => asked.push({ part, signal, answer, refuse })),
    paint: ({ path }, positive) => painted.push([path[0]![0], positive]),
    changed: () => undefined,
    failed: (error) => failed.push(error),
  });
});

/** Answer the only open question, which leads to where it should. */
async function answer(to: number): Promise<void> {
  expect(asked.map(({ part }) => part.to.x)).toEqual([to]);
  asked.pop()!.answer(way(to));
  await settle();
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
}

test("one question is open, and the next is of where the pointer is by then", async () => {
  wire.point(at(1));
  expect(asked).toEqual([]);
  wire.click(at(0), true);
  for (const x of [2, 3, 4, 5]) wire.point(at(x));
  await answer(2);
  expect(shown()).toBe(2);
  await answer(5);
  expect(shown()).toBe(5);
  expect(asked).toEqual([]);
});

test("a click where the way is shown paints it at once, and the next part goes on from there", async () => {
  wire.click(at(0), true);
  wire.point(at(5));
  await answer(5);
  wire.click(at(5), true);
  await settle();
  expect(painted).toEqual([[5, true]]);
  expect([shown(), wire.start]).toEqual([undefined, at(5)]);
  wire.point(at(8));
  expect(asked[0]!.part).toEqual({ from: at(5), to: at(8), positive: null });
});

test("clicks wait for their ways in order, and the way to the pointer that is late is not shown", async () => {
  wire.click(at(0), true);
  wire.point(at(3));
  wire.click(at(5), true);
  wire.click(at(9), false);
  wire.end();
  expect(asked[0]!.signal.aborted).toBe(true);
  await answer(3);
  expect(shown()).toBeUndefined();
  await answer(5);
  await answer(9);
  expect(painted).toEqual([[5, true], [9, false]]);
  expect(wire.start).toBeUndefined();
});

test("what was given up is neither painted nor shown", async () => {
  wire.click(at(0), true);
  wire.click(at(5), true);
  wire.drop();
  expect(asked[0]!.signal.aborted).toBe(true);
  wire.click(at(20), true);
  wire.point(at(22));
  await answer(5);
  expect([painted, shown()]).toEqual([[], undefined]);
  await answer(22);
  expect(shown()).toBe(22);
});

test("a failure is said once while the pointer moves, and a click that failed can be made again", async () => {
  wire.click(at(0), true);
  for (const x of [1, 2]) {
    wire.point(at(x));
    asked.pop()!.refuse("away");
    await settle();
  }
  expect([failed, shown()]).toEqual([["away"], undefined]);
  wire.click(at(3), true);
  wire.click(at(4), true);
  asked.pop()!.refuse("away");
  await settle();
  expect([failed.length, asked.length, wire.start]).toEqual([2, 0, at(0)]);
});

test("after undo it goes on from where the part began", async () => {
  wire.click(at(0), true);
  wire.click(at(5), true);
  await answer(5);
  wire.back();
  expect(wire.start).toEqual(at(0));
  wire.back();
  expect(wire.start).toEqual(at(0));
});
