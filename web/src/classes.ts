/** The classes that can be drawn, with their colours and keys. */

import { classColour, type Palette } from "./colours";
import { announce, byId, element } from "./dom";

export class Classes {
  private names: [string, number][] = [];
  private number = 1;

  constructor(private colours: Palette) {}

  /** Number of the class that is drawn. */
  get chosen(): number {
    return this.number;
  }

  /** Names of the model's classes by number. */
  offer(names: [string, number][]): void {
    this.names = names;
    if (!names.some(([, number]) => number === this.number)) this.number = names[0]?.[1] ?? 1;
    this.show();
  }

  paint(colours: Palette): void {
    this.colours = colours;
    this.show();
  }

  /** Draw the class at a place in the list from now on. */
  choose(index: number): void {
    const entry = this.names[index];
    if (!entry) return;
    this.number = entry[1];
    this.show();
    announce(`Class ${entry[0]}`);
  }

  step(by: 1 | -1): void {
    const { length } = this.names;
    const index = this.names.findIndex(([, number]) => number === this.number);
    if (length) this.choose((index + by + length) % length);
  }

  private show(): void {
    byId("classes").hidden = this.names.length < 2;
    byId("classes").replaceChildren(
      ...this.names.map(([name, number], index) => {
        const button = element("button", "class", name);
        button.type = "button";
        button.title = index < 9 ? `Draw ${name} (Shift ${index + 1})` : `Draw ${name}`;
        button.setAttribute("aria-pressed", String(number === this.number));
        const swatch = element("span", "swatch");
        swatch.style.background = classColour(this.colours, number);
        button.prepend(swatch);
        button.addEventListener("click", () => this.choose(index));
        return button;
      }),
    );
  }
}
