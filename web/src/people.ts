/** Who works here: signing in and out, and what their roles allow. */

import type { Api, May, User } from "./api";
import { byId } from "./dom";
import { keepPreferences, type Preferences } from "./preferences";

const WORDS: Record<keyof May, string> = {
  submit: "submit labels", score: "score images", review: "review", train: "train and pre-annotate",
};
/** Buttons that need a role; who lacks it is told so before trying. */
const NEEDED: Record<string, keyof May> = { submit: "submit", score: "score", batch: "train", train: "train" };

export class People {
  private user: User | null = null;

  /**
   * @param leave called before another person, or nobody, goes on; the page is loaded again then.
   */
  constructor(
    private readonly api: Api,
    preferences: Preferences,
    private readonly leave: () => Promise<boolean>,
  ) {
    const name = byId<HTMLInputElement>("user");
    name.value = preferences.user;
    name.addEventListener("input", () => {
      preferences.user = name.value;
      keepPreferences(preferences);
    });
    byId("sign-out").addEventListener("click", () => void this.signOut());
  }

  /** Name of who is signed in; empty where nobody has to. */
  get signedIn(): string {
    return this.user?.username ?? "";
  }

  /** Name of who works here, as far as it is known. */
  get name(): string {
    return this.signedIn || byId<HTMLInputElement>("user").value.trim();
  }

  /** Whether the roles allow something; where nobody has to sign in, everything is. */
  may(what: keyof May): boolean {
    return this.user?.may[what] ?? true;
  }

  /** Find out who is there. */
  async start(): Promise<void> {
    if (!(await this.api.needsToken())) return;
    this.user = await this.api.user();
    const name = byId<HTMLInputElement>("user");
    name.value = this.user.username;
    name.disabled = true;
    byId("sign-out").hidden = false;
    const allowed = (Object.keys(WORDS) as (keyof May)[]).filter((what) => this.may(what)).map((what) => WORDS[what]);
    byId("roles").textContent = `Your roles let you look${allowed.map((text) => `, ${text}`).join("")}.`;
    for (const [id, what] of Object.entries(NEEDED)) this.mark(id, what);
  }

  /** Ask for name and password until they are right. */
  async signIn(): Promise<void> {
    const dialog = byId<HTMLDialogElement>("sign-in");
    const form = byId<HTMLFormElement>("sign-in-form");
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
    await new Promise<void>((resolve) => {
      form.onsubmit = async (event) => {
        event.preventDefault();
        const password = byId<HTMLInputElement>("sign-in-password");
        try {
          await this.api.authenticate(byId<HTMLInputElement>("sign-in-name").value, password.value);
          password.value = byId("sign-in-error").textContent = "";
          resolve();
        } catch (error) {
          byId("sign-in-error").textContent = error instanceof Error ? error.message : String(error);
        }
      };
    });
    dialog.close();
    // Somebody else than before begins with a page of their own.
    if (this.user && (await this.api.user()).username !== this.user.username && (await this.leave())) location.reload();
  }

  private async signOut(): Promise<void> {
    if (!(await this.leave())) return;
    await this.api.signOut();
    location.reload();
  }

  private mark(id: string, what: keyof May): void {
    if (!this.may(what)) byId(id).title = `Your role does not allow you to ${WORDS[what]}.`;
  }
}
