import { expect, test } from "vitest";

import { levelProbability, maskAt, OWN_LEVEL, probabilities } from "../src/threshold";

const told = probabilities({ width: 3, height: 2, values: Uint8Array.of(10, 128, 200, 9, 130, 200) }, 2, 0.3);

test("of the classes that reach a level the most probable one is taken, the first of equals", () => {
  expect([...maskAt(told, OWN_LEVEL)]).toEqual([0, 2, 1]);
  expect([...maskAt(told, 10)]).toEqual([1, 2, 1]);
  expect([...maskAt(told, 201)]).toEqual([0, 0, 0]);
});

test("levels stand for probabilities, the own one for the model's threshold", () => {
  expect(levelProbability(OWN_LEVEL, 0.3)).toBeCloseTo(0.3);
  expect(levelProbability(0, 0.3)).toBe(0);
  expect(levelProbability(64, 0.3)).toBeCloseTo(0.15);
  expect(levelProbability(255, 0.3)).toBeCloseTo(1);
});
