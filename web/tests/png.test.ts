import { deflateSync, inflateSync } from "node:zlib";

import { expect, test } from "vitest";

import { decodePng, encodePng } from "../src/png";

const plane = { width: 5, height: 3, values: Uint8Array.from([0, 1, 2, 3, 255, 9, 9, 8, 0, 1, 7, 200, 13, 1, 0]) };

test("a mask comes back as it was", async () => {
  expect(await decodePng(await encodePng(plane))).toEqual(plane);
});

test("the file is one that others read", async () => {
  const bytes = Buffer.from(await (await encodePng(plane)).arrayBuffer());
  const start = bytes.indexOf("IDAT");
  const rows = inflateSync(bytes.subarray(start + 4, start + 4 + bytes.readUInt32BE(start - 4)));
  expect([...rows.subarray(6, 12)]).toEqual([0, 9, 9, 8, 0, 1]);
});

test.each([
  [1, [[10, 1, 1], [5, 0, 255]], [10, 11, 12, 5, 5, 4]],
  [2, [[10, 11, 12], [1, 1, 255]], [10, 11, 12, 11, 12, 11]],
  [3, [[10, 5, 5], [1, 2, 3]], [10, 10, 10, 6, 10, 13]],
  [4, [[10, 1, 1], [1, 1, 1]], [10, 11, 12, 11, 12, 13]],
])("filter %i is undone", async (filter, [first, second], expected) => {
  const rows = Buffer.from([filter, ...first!, filter, ...second!]);
  const encoded = Buffer.from(await (await encodePng({ width: 3, height: 2, values: new Uint8Array(6) })).arrayBuffer());
  const packed = deflateSync(rows);
  const head = encoded.subarray(0, 33);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(packed.length);
  const file = Buffer.concat([head, length, Buffer.from("IDAT"), packed, Buffer.alloc(4), encoded.subarray(-12)]);
  expect([...(await decodePng(new Blob([file]))).values]).toEqual(expected);
});

test("other files are refused", async () => {
  await expect(decodePng(new Blob(["GIF89a"]))).rejects.toThrow("no PNG");
});
