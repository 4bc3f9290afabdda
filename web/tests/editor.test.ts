import { expect, test } from "vitest";

import { Editor } from "../src/editor";
import { History, NO_MARKS as marks, ofFirstClass } from "../src/history";

const filled = (value: number) => new Uint8Array(16).fill(value);
const gap = (x: number, y: number) => ({ x, y, probability: 0.4 });

function opened(): Editor {
  const editor = new Editor("im", 4, 4, () => undefined);
  editor.start(filled(0), "automatic mask");
  return editor;
}

test("strokes and answers are taken back and made again in order", () => {
  const editor = opened();
  editor.beginStroke({ x: 1.5, y: 1.5 }, 1, 1);
  editor.end("brush");
  const stroked = Uint8Array.from(editor.mask.values);
  editor.answer("click", stroked, filled(2), { breaks: [gap(1, 1)], clicks: [{ x: 0, y: 0, positive: true, label: 2 }] });
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
  editor.answer("click", filled(0), filled(0), { breaks: [gap(1, 1)], clicks: [{ x: 2, y: 2, positive: false, label: 1 }] });
  editor.beginStroke({ x: 2.5, y: 2.5 }, 1, 1);
  editor.end("brush");
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
  editor.end("brush");
  editor.submitted(latest);
  expect(editor.dirty).toBe(true);
});

test("a cancelled stroke leaves nothing", () => {
  const editor = opened();
  editor.beginStroke({ x: 1.5, y: 1.5 }, 3, 1);
  editor.cancel();
  expect(editor.mask.values).toEqual(filled(0));
  expect(editor.undoable).toBeUndefined();
});

test("a previewed mask becomes one step, with its level, or none", () => {
  const editor = opened();
  editor.preview(filled(1));
  editor.preview(filled(2));
  editor.end("threshold", 99);
  expect([editor.mask.values, editor.marks.level]).toEqual([filled(2), 99]);
  editor.preview(filled(3));
  editor.cancel();
  expect(editor.mask.values).toEqual(filled(2));
  editor.undo();
  expect([editor.mask.values, editor.marks.level]).toEqual([filled(0), marks.level]);
});

test("a way is one step, or none where nothing changes", () => {
  const editor = opened();
  editor.drawPixels("live-wire", [[0, 0], [1, 1]], 1, 1);
  expect([...editor.mask.values.subarray(0, 6)]).toEqual([1, 0, 0, 0, 0, 1]);
  const { latest } = editor;
  editor.drawPixels("live-wire", [[1, 1]], 1, 1);
  expect(editor.latest).toBe(latest);
  editor.undo();
  expect(editor.mask.values).toEqual(filled(0));
});

test("breaks that were found meanwhile are left out where something was drawn", () => {
  const editor = new Editor("im", 40, 1, () => undefined);
  editor.start(new Uint8Array(40), "label");
  const sent = Uint8Array.from(editor.mask.values);
  editor.beginStroke({ x: 2.5, y: 0.5 }, 1, 1);
  editor.end("brush");
  editor.found(sent, [gap(1, 0), gap(30, 0)]);
  expect(editor.marks.breaks).toEqual([gap(30, 0)]);
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
