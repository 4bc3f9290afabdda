/** The menu of changes to the whole mask: another threshold, holes filled, islands removed. */

import type { Annotation } from "./annotation";
import { announce, byId, sayError } from "./dom";
import { merged } from "./mask";
import { withoutHoles, withoutIslands } from "./regions";
import { levelProbability, maskAt, type Probabilities } from "./threshold";

export class Refine {
  /** What is needed while the slider moves: probabilities, and the mask and its level before. */
  private dragged: { told: Probabilities; start: Uint8Array; own: Uint8Array } | null = null;

  constructor(
    private readonly annotation: Annotation,
    private readonly label: () => number,
  ) {
    const slider = byId<HTMLInputElement>("threshold");
    slider.addEventListener("input", () => void this.drag(slider.valueAsNumber));
    slider.addEventListener("change", () => void this.drop(slider.valueAsNumber));
    byId("fill-holes").addEventListener("click", () => this.fillHoles());
    byId("remove-islands").addEventListener("click", () => this.removeIslands());
  }

  /** Bring the slider up to date with the mask. */
  show(): void {
    const { editor, readOnly } = this.annotation;
    const slider = byId<HTMLInputElement>("threshold");
    slider.disabled = !editor || Boolean(readOnly);
    for (const id of ["fill-holes", "remove-islands"]) byId<HTMLButtonElement>(id).disabled = slider.disabled;
    if (!this.dragged && editor) slider.value = String(editor.marks.level);
  }

  fillHoles(): void {
    this.change("holes filled", withoutHoles);
  }

  removeIslands(): void {
    this.change("islands removed", withoutIslands);
  }

  private change(name: string, make: typeof withoutHoles): void {
    const { editor, readOnly } = this.annotation;
    const most = byId<HTMLInputElement>("most-pixels");
    if (!editor || readOnly || !most.reportValidity()) return;
    const before = editor.undoable;
    editor.preview(make(editor.mask, this.label(), most.valueAsNumber));
    editor.end(name);
    announce(editor.undoable === before ? "Nothing changed" : name);
  }

  private async drag(level: number): Promise<void> {
    const { editor } = this.annotation;
    if (!editor) return;
    try {
      const told = this.dragged?.told ?? (await this.annotation.probabilities());
      if (!told || editor !== this.annotation.editor) {
        byId("threshold-value").textContent = told === null ? "has none" : "";
        return;
      }
      // What differs from the mask of the old threshold was drawn or clicked, and stays.
      this.dragged ??= { told, start: Uint8Array.from(editor.mask.values), own: maskAt(told, editor.marks.level) };
      const { start, own } = this.dragged;
      editor.preview(merged(own, maskAt(told, level), start));
      byId("threshold-value").textContent = levelProbability(level, told.threshold).toFixed(2);
    } catch (error) {
      sayError(error);
    }
  }

  private async drop(level: number): Promise<void> {
    const { editor } = this.annotation;
    await this.drag(level);
    if (!this.dragged || !editor) return;
    const text = levelProbability(level, this.dragged.told.threshold).toFixed(2);
    this.dragged = null;
    editor.end(`threshold ${text}`, level);
    announce(`Threshold ${text}`);
    await this.annotation.findBreaks();
  }
}
