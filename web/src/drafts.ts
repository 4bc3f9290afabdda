/** Changes that were not submitted, kept in the browser. */

import type { Marks } from "./history";
import type { Tab } from "./tab";

export interface Draft {
  key: string;
  /** Version of the submitted label that it began from; 0 without one. */
  base: number;
  image: string;
  width: number;
  height: number;
  values: Uint8Array;
  marks: Marks;
  origin: string;
  /** Milliseconds since 1970. */
  time: number;
}

const STORE = "drafts";

/** Drafts of one person, of which each tab of the browser has its own. */
export class Drafts {
  /** Who is signed in; empty where nobody has to. */
  owner = "";
  private readonly opened = open();

  constructor(private readonly tab: Tab) {}

  /** What this tab's draft of a file is kept under; a file's text holds its image's name, its path and its time. */
  async key(file: string): Promise<string> {
    return [file, this.owner, await this.tab.name].join("\n");
  }

  /** Keep a draft in the place of an older one of the same key. */
  async keep(draft: Draft): Promise<void> {
    await this.done((store) => store.put(draft), "readwrite");
  }

  /** Drafts of a file that this tab can go on with, its own first, then the newest; and whether another tab has one. */
  async find(file: string): Promise<{ drafts: Draft[]; elsewhere: boolean }> {
    // Earlier versions of the page knew neither persons nor tabs.
    const first = this.owner ? `${file}\n${this.owner}\n` : file;
    const range = IDBKeyRange.bound(first, `${file}\n${this.owner}\n\uffff`);
    const found = await this.done((store) => store.getAll(range) as IDBRequest<Draft[]>, "readonly");
    const own = await this.key(file);
    const others = await this.tab.others();
    const free = found.filter(({ key }) => !others.has(tabOf(key)));
    const drafts = free.sort((one, other) => Number(other.key === own) - Number(one.key === own) || other.time - one.time);
    return { drafts, elsewhere: free.length < found.length };
  }

  /** Forget a draft. */
  async forget(key: string): Promise<void> {
    await this.done((store) => store.delete(key), "readwrite");
  }

  /** Names of images that have one. */
  async images(): Promise<Set<string>> {
    const keys = (await this.done((store) => store.getAllKeys(), "readonly")).map((key) => String(key).split("\n"));
    return new Set(keys.filter((parts) => (parts[3] ?? "") === this.owner).map((parts) => parts[0]!));
  }

  private async done<T>(act: (store: IDBObjectStore) => IDBRequest<T>, mode: IDBTransactionMode): Promise<T> {
    const transaction = (await this.opened).transaction(STORE, mode);
    const request = act(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  }
}

function tabOf(key: string): string {
  return key.slice(key.lastIndexOf("\n") + 1);
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("topolora", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
