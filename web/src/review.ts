/** What people think of each other's labels, who is to draw one, and labels to take along. */

import type { Annotation } from "./annotation";
import type { Api, Review as Told } from "./api";
import { byId, element, say, sayError, whenText } from "./dom";
import type { People } from "./people";

const VERDICTS: Record<Told["verdict"], string> = { accepted: "Accepted", rejected: "Rejected", comment: "Comment" };

export class Review {
  private image = "";

  /**
   * @param changed called after something was noted.
   */
  constructor(
    private readonly api: Api,
    private readonly annotation: Annotation,
    private readonly people: People,
    private readonly changed: () => Promise<void>,
  ) {
    const assigned = byId<HTMLInputElement>("assigned");
    assigned.addEventListener("change", () => void this.doing(() => api.assign(this.image, assigned.value.trim())));
    byId("accept").addEventListener("click", () => void this.judge("accepted"));
    byId("reject").addEventListener("click", () => void this.judge("rejected"));
    byId("say-comment").addEventListener("click", () => void this.judge("comment"));
    byId("agree").addEventListener("click", () => void this.showAgreement());
    byId("consensus").addEventListener("click", () => void this.makeConsensus());
    byId("download").addEventListener("click", () => void this.download());
  }

  /** Bring the card up to date with the open image. */
  show(): void {
    const { entry } = this.annotation;
    const labelled = entry !== null && "final" in entry.labels;
    const may = this.people.may("review");
    if (entry?.image !== this.image) {
      this.image = entry?.image ?? "";
      byId<HTMLInputElement>("comment").value = "";
      byId<HTMLInputElement>("assigned").value = entry?.assigned ?? "";
      byId("agreement").replaceChildren();
    }
    byId<HTMLInputElement>("assigned").disabled = !entry || !may;
    for (const id of ["accept", "reject", "say-comment", "consensus"]) byId<HTMLButtonElement>(id).disabled = !labelled || !may;
    byId<HTMLButtonElement>("agree").disabled = !labelled;
    byId("verdict").textContent = entry?.review ? reviewText(entry.review) : "Nobody has reviewed it.";
  }

  private async judge(verdict: Told["verdict"]): Promise<void> {
    const version = this.annotation.entry?.labels["final"]?.version;
    const comment = byId<HTMLInputElement>("comment");
    if (!version) return;
    await this.doing(() => this.api.review(this.image, version, verdict, comment.value.trim(), this.people.name));
    comment.value = "";
  }

  private async showAgreement(): Promise<void> {
    await this.doing(async () => {
      const pairs = await this.api.agreement(this.image);
      const texts = pairs.map(({ one, other, dice, cldice, kappa }) => {
        const scores = Object.entries({ Dice: dice, clDice: cldice, kappa });
        const shown = scores.map(([name, value]) => `${name} ${value === null ? "none" : value.toFixed(3)}`);
        return `Versions ${one} and ${other}: ${shown.join(", ")}`;
      });
      byId("agreement").replaceChildren(
        ...(texts.length ? texts : ["One person alone has labelled it."]).map((text) => element("li", "quiet", text)),
      );
    });
  }

  private async makeConsensus(): Promise<void> {
    await this.doing(async () => {
      const { of } = await this.api.consensus(this.image);
      await this.annotation.loadVersion(null, "consensus");
      say(`This is what versions ${of.join(", ")} make likely; submit it to keep it as the label.`);
    });
  }

  private async download(): Promise<void> {
    const form = byId<HTMLSelectElement>("form").value;
    await this.doing(async () => {
      const link = element("a");
      link.href = URL.createObjectURL(await this.api.archive(form));
      link.download = `labels-${form}.zip`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
  }

  private async doing(act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
      await this.changed();
    } catch (error) {
      sayError(error);
    }
  }
}

function reviewText({ verdict, user, version, comment, time }: Told): string {
  const who = user ? ` by ${user}` : "";
  return `${VERDICTS[verdict]}${who}, version ${version}, ${whenText(time)}${comment ? `: ${comment}` : ""}`;
}
