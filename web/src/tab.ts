/** Which tab of the browser this is, and which others are open. */

const KEY = "topolora.tab";
const LOCK = "topolora.tab.";

export class Tab {
  /** A name that stays when the tab is loaded again. */
  readonly name = named();

  /** Names of the other tabs that are open. */
  async others(): Promise<Set<string>> {
    const own = await this.name;
    const held = (await locks()?.query())?.held ?? [];
    const names = held.map(({ name }) => name ?? "").filter((name) => name.startsWith(LOCK));
    return new Set(names.map((name) => name.slice(LOCK.length)).filter((name) => name !== own));
  }
}

async function named(): Promise<string> {
  const kept = sessionStorage.getItem(KEY);
  if (kept && (await hold(kept))) return kept;
  const made = crypto.getRandomValues(new Uint32Array(2)).join("-"); // also in a copy of a tab, which begins with its name
  sessionStorage.setItem(KEY, made);
  await hold(made);
  return made;
}

/** Hold a name as long as the tab is open; false if another tab has it. */
async function hold(name: string): Promise<boolean> {
  const manager = locks();
  if (!manager) return true;
  return new Promise((resolve) => {
    void manager.request(LOCK + name, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock ? new Promise(() => undefined) : undefined;
    });
  });
}

/** Browsers have it for https and for this machine alone. */
function locks(): LockManager | undefined {
  return (navigator as { locks?: LockManager }).locks;
}
