/** PNG files of one 8-bit channel, exactly: a browser's canvas may change values, and writes four channels. */

export interface Plane {
  width: number;
  height: number;
  /** Row by row, one byte a pixel. */
  values: Uint8Array;
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** Encode class numbers. */
export async function encodePng({ width, height, values }: Plane): Promise<Blob> {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8; // bits a pixel; colour type 0, grey, and the rest stay 0
  const packed = await piped(rows, new CompressionStream("deflate"));
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", new Uint8Array())];
  return new Blob(parts as BlobPart[], { type: "image/png" });
}

/** Decode an 8-bit grey PNG; throws on any other. */
export async function decodePng(file: Blob): Promise<Plane> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  if (SIGNATURE.some((value, index) => bytes[index] !== value)) throw new Error("The server's mask is no PNG file.");
  const width = view.getUint32(16);
  const height = view.getUint32(20);
  const [depth, colour, , , interlaced] = bytes.subarray(24, 29);
  if (depth !== 8 || colour !== 0 || interlaced !== 0) throw new Error("The server's mask is not an 8-bit grey PNG.");
  const data: Uint8Array[] = [];
  for (let at = 8; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IDAT") data.push(bytes.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const rows = await piped(joined(data), new DecompressionStream("deflate"));
  if (rows.length !== (width + 1) * height) throw new Error("The server's mask is damaged.");
  return { width, height, values: unfiltered(rows, width, height) };
}

function unfiltered(rows: Uint8Array, width: number, height: number): Uint8Array {
  const values = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (width + 1)]!;
    values.set(rows.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)), y * width);
    if (filter) unfilter(values, y * width, width, filter);
  }
  return values;
}

/** Add to each byte of a row what its filter predicts from its neighbours. */
function unfilter(values: Uint8Array, start: number, width: number, filter: number): void {
  for (let at = start; at < start + width; at++) {
    const left = at > start ? values[at - 1]! : 0;
    const up = start ? values[at - width]! : 0;
    const corner = start && at > start ? values[at - width - 1]! : 0;
    if (filter === 1) values[at]! += left;
    else if (filter === 2) values[at]! += up;
    else if (filter === 3) values[at]! += (left + up) >> 1;
    else values[at]! += paeth(left, up, corner);
  }
}

function paeth(left: number, up: number, corner: number): number {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function chunk(kind: string, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let index = 0; index < 4; index++) bytes[4 + index] = kind.charCodeAt(index);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, checksum(bytes.subarray(4, content.length + 8)));
  return bytes;
}

function checksum(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_TABLE[(value ^ byte) & 255]! ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function piped(bytes: Uint8Array, stream: CompressionStream | DecompressionStream): Promise<Uint8Array> {
  const source = new Blob([bytes as BlobPart]).stream();
  return new Uint8Array(await new Response(source.pipeThrough(stream)).arrayBuffer());
}
