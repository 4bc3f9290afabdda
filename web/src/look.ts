/** How the image looks, mask aside: contrast, gamma, and the green channel alone, by a filter of the browser. */

export interface Look {
  /** 1 leaves it; steeper around the middle above. */
  contrast: number;
  /** 1 leaves it; darker parts are lifted below. */
  gamma: number;
  /** Whether only green is shown, as grey: vessels of a retina stand out in it. */
  redFree: boolean;
}

export const PLAIN: Readonly<Look> = { contrast: 1, gamma: 1, redFree: false };

const POINTS = 64;
const GREEN = "0 1 0 0 0  0 1 0 0 0  0 1 0 0 0  0 0 0 1 0";
const FILTER = "look-filter";

/** What values from 0 to 1 become, at equal distances. */
export function curve({ contrast, gamma }: Look): number[] {
  return Array.from({ length: POINTS + 1 }, (_, index) => {
    const stretched = (index / POINTS - 0.5) * contrast + 0.5;
    return Math.min(1, Math.max(0, stretched)) ** gamma;
  });
}

/** Put a look on the elements that show the image. */
export function wear(look: Look, elements: readonly HTMLElement[]): void {
  const table = curve(look).map((value) => value.toFixed(4)).join(" ");
  const functions = ["R", "G", "B"].map((channel) => `<feFunc${channel} type="table" tableValues="${table}"/>`).join("");
  document.getElementById(FILTER)!.innerHTML =
    (look.redFree ? `<feColorMatrix values="${GREEN}"/>` : "") + `<feComponentTransfer>${functions}</feComponentTransfer>`;
  const plain = look.contrast === 1 && look.gamma === 1 && !look.redFree;
  for (const element of elements) element.style.filter = plain ? "" : `url("#${FILTER}")`;
}
