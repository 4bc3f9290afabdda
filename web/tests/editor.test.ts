import { expect, test } from "vitest";

import { Editor } from "../src/editor";
import { History, ofFirstClass } from "../src/history";

const filled = (value: number) => new Uint8Array(16).fill(value);
const marks = { clicks: [], breaks: [] };

function opened(): Editor {
  const editor = new Editor("im", 4, 4, () => undefined);
  editor.start(filled(0), "automatic mask");
  return editor;
}

test("strokes and answers are taken back and made again in order", () => {
  const editor = opened();
  editor.beginStroke({ x: 1.5, y: 1.5 }, 1, 1);
  editor.endStroke("brush");
  const stroked = Uint8Array.from(editor.mask.values);
  editor.answer("click", stroked, filled(2), [{ x: 1, y: 1 }], [{ x: 0, y: 0, positive: true, label: 2 }]);
  expect(editor.undo()).toBe("click");
  expect(editor.mask.values).toEqual(stroked);
  expect(editor.marks).toEqual(marks);
  expect(editor.undo()).toBe("brush");
  expect(editor.mask.values).toEqual(filled(0));
  expect(editor.dirty).toBe(false);
  editor.redo();
  editor.redo();
  expect(editor.mask.values).toEqual(filled(2));
  expect(editor.marks.clicks.length).toBe(1);
});

test("drawing over a break settles it, and over a click withdraws it", () => {
  const editor = opened();
  editor.answer("click", filled(0), filled(0), [{ x: 1, y: 1 }], [{ x: 2, y: 2, positive: false, label: 1 }]);
  editor.beginStroke({ x: 2.5, y: 2.5 }, 1, 1);
  editor.endStroke("brush");
  expect(editor.marks).toEqual(marks);
});

test("a draft is not submitted, and is after submission", () => {
  const editor = new Editor("im", 4, 4, () => undefined);
  editor.start(filled(1), "draft", marks, true);
  expect(editor.dirty).toBe(true);
  editor.submitted(editor.latest);
  expect(editor.dirty).toBe(false);
});

test("what is drawn while a label is sent stays unsubmitted", () => {
  const editor = opened();
  const { latest } = editor;
  editor.beginStroke({ x: 1.5, y: 1.5 }, 1, 1);
  editor.endStroke("brush");
  editor.submitted(latest);
  expect(editor.dirty).toBe(true);
});

test("a cancelled stroke leaves nothing", () => {
  const editor = opened();
  editor.beginStroke({ x: 1.5, y: 1.5 }, 3, 1);
  editor.cancelStroke();
  expect(editor.mask.values).toEqual(filled(0));
  expect(editor.undoable).toBeUndefined();
});

test("history gives up the oldest steps when there is no room", () => {
  const history = new History(50);
  const patch = { x: 0, y: 0, width: 4, height: 4, before: filled(0), after: filled(1) };
  for (const name of ["a", "b", "c"]) history.push({ name, patch, before: marks, after: marks });
  expect(history.undo()?.name).toBe("c");
  expect(history.undo()).toBeUndefined();
});

test("clicks of one class go together, in their order", () => {
  const clicks = [1, 2, 1].map((label, x) => ({ x, y: 0, positive: true, label }));
  expect(ofFirstClass(clicks).map(({ x }) => x)).toEqual([0, 2]);
  expect(ofFirstClass([])).toEqual([]);
});
