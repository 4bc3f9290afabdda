/** Colours of classes, in palettes that people with any colour vision tell apart. */

export interface Palette {
  name: string;
  text: string;
  colours: readonly string[];
}

/** After Okabe and Ito, and Paul Tol's two; the last one differs in brightness alone. The first colours stand out most. */
export const PALETTES: readonly Palette[] = [
  { name: "okabe", text: "Okabe and Ito", colours: ["#2fc4ff", "#f0e442", "#cc79a7", "#009e73", "#e69f00", "#d55e00", "#0072b2"] },
  { name: "bright", text: "Tol, bright", colours: ["#66ccee", "#ccbb44", "#aa3377", "#228833", "#ee6677", "#4477aa", "#bbbbbb"] },
  { name: "contrast", text: "Tol, high contrast", colours: ["#ddaa33", "#004488", "#bb5566", "#ffffff", "#000000"] },
  { name: "viridis", text: "By brightness", colours: ["#fde725", "#440154", "#21918c", "#5ec962", "#3b528b"] },
];

/** The palette of a name, or the first. */
export function palette(name: string): Palette {
  return PALETTES.find((entry) => entry.name === name) ?? PALETTES[0]!;
}

/** Colour of a class from 1; they come round again. */
export function classColour({ colours }: Palette, number: number): string {
  return colours[(number - 1) % colours.length]!;
}

/** For each class number what a pixel of it is in memory: red, green, blue, opaque; 0 is clear. */
export function pixelColours(chosen: Palette): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, number) => {
    if (!number) return 0;
    const colour = Number.parseInt(classColour(chosen, number).slice(1), 16);
    const [red, green, blue] = [colour >> 16, (colour >> 8) & 255, colour & 255];
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}
