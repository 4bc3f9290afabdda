/** The menu of how image and mask are shown. */

import { classColour, palette, PALETTES, type Palette } from "./colours";
import { announce, byId, element } from "./dom";
import { PLAIN } from "./look";
import { keepPreferences, type Preferences } from "./preferences";
import type { Stage } from "./stage";

/** Percentiles of an image's values that become black and white; by itself the server cuts those of deep images alone. */
const WINDOWS: readonly (readonly [string, string])[] = [
  ["", "usual"], ["0,100", "least to most"], ["0.1,99.9", "0.1 to 99.9 %"], ["1,99", "1 to 99 %"], ["5,95", "5 to 95 %"],
];

export interface DisplayHooks {
  windowChanged(window: string): void;
  paletteChanged(chosen: Palette): void;
}

export class Display {
  private look = { ...PLAIN };

  constructor(
    private readonly stage: Stage,
    private readonly preferences: Preferences,
    private readonly hooks: DisplayHooks,
  ) {
    this.offerPalettes();
    const windows = byId<HTMLSelectElement>("window");
    windows.replaceChildren(...WINDOWS.map(([value, text]) => new Option(text, value)));
    windows.addEventListener("change", () => hooks.windowChanged(windows.value));
    for (const name of ["contrast", "gamma"] as const) {
      const input = byId<HTMLInputElement>(name);
      input.addEventListener("input", () => this.wear({ [name]: 2 ** input.valueAsNumber }));
    }
    const opacity = byId<HTMLInputElement>("opacity");
    opacity.addEventListener("input", () => this.setOpacity(opacity.valueAsNumber));
    const actions = {
      "red-free": this.toggleRedFree, outline: this.toggleOutline, hide: this.toggleMask, magnify: this.toggleMagnifier, plain: this.reset,
    };
    for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
    this.wear({});
    this.setOpacity(preferences.opacity);
    this.setOutline(preferences.outline);
  }

  setOpacity(percent: number): void {
    this.preferences.opacity = Math.min(100, Math.max(0, percent));
    this.stage.opacity = this.preferences.opacity / 100;
    byId<HTMLInputElement>("opacity").value = String(this.preferences.opacity);
    byId("opacity-value").textContent = `${this.preferences.opacity} %`;
    this.stage.redraw();
    keepPreferences(this.preferences);
  }

  readonly toggleMask = (): void => {
    this.stage.hidden = !this.stage.hidden;
    pressed("hide", this.stage.hidden, this.stage.hidden ? "Mask hidden" : "Mask shown");
    this.stage.redraw();
  };

  readonly toggleOutline = (): void => {
    this.setOutline(!this.preferences.outline);
    announce(this.preferences.outline ? "Borders alone" : "Filled mask");
  };

  readonly toggleRedFree = (): void => {
    this.wear({ redFree: !this.look.redFree });
    announce(this.look.redFree ? "Red-free" : "All colours");
  };

  readonly toggleMagnifier = (): void => {
    const on = byId("magnify").getAttribute("aria-pressed") !== "true";
    this.stage.magnify(on);
    pressed("magnify", on, on ? "Magnifier on" : "Magnifier off");
  };

  private readonly reset = (): void => {
    this.wear(PLAIN);
    const windows = byId<HTMLSelectElement>("window");
    if (windows.value) this.hooks.windowChanged((windows.value = ""));
  };

  private wear(changed: Partial<typeof this.look>): void {
    this.look = { ...this.look, ...changed };
    for (const name of ["contrast", "gamma"] as const) {
      byId<HTMLInputElement>(name).value = String(Math.log2(this.look[name]));
      byId(`${name}-value`).textContent = this.look[name].toFixed(2);
    }
    byId("red-free").setAttribute("aria-pressed", String(this.look.redFree));
    this.stage.wear(this.look);
  }

  private setOutline(alone: boolean): void {
    this.preferences.outline = alone;
    byId("outline").setAttribute("aria-pressed", String(alone));
    this.stage.outline(alone);
    keepPreferences(this.preferences);
  }

  private offerPalettes(): void {
    const chosen = palette(this.preferences.palette);
    byId("palettes").append(
      ...PALETTES.map((offered) => {
        const label = element("label", "palette");
        const input = element("input");
        input.type = "radio";
        input.name = "palette";
        input.checked = offered === chosen;
        input.addEventListener("change", () => this.choosePalette(offered));
        const strip = element("span", "strip");
        for (let number = 1; number <= 5; number++) {
          const swatch = element("span", "swatch");
          swatch.style.background = classColour(offered, number);
          strip.append(swatch);
        }
        label.append(input, strip, element("span", "", offered.text));
        return label;
      }),
    );
    this.stage.paint(chosen);
  }

  private choosePalette(chosen: Palette): void {
    this.preferences.palette = chosen.name;
    keepPreferences(this.preferences);
    this.stage.paint(chosen);
    this.hooks.paletteChanged(chosen);
  }
}

function pressed(id: string, on: boolean, text: string): void {
  byId(id).setAttribute("aria-pressed", String(on));
  announce(text);
}
