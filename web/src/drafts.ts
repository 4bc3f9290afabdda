/** Changes that were not submitted, kept in the browser. */

import type { Marks } from "./history";

export interface Draft {
  key: string;
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

export class Drafts {
  private readonly opened = open();

  /** Keep a draft in the place of an older one of the same image. */
  async keep(draft: Draft): Promise<void> {
    await this.done((store) => store.put(draft), "readwrite");
  }

  /** The draft of an image. */
  async find(key: string): Promise<Draft | undefined> {
    return this.done((store) => store.get(key) as IDBRequest<Draft | undefined>, "readonly");
  }

  /** Forget a draft. */
  async forget(key: string): Promise<void> {
    await this.done((store) => store.delete(key), "readwrite");
  }

  /** Names of images that have one. */
  async images(): Promise<Set<string>> {
    const keys = await this.done((store) => store.getAllKeys(), "readonly");
    return new Set(keys.map((key) => String(key).split("\n")[0]!));
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

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("topolora", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
