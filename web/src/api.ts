/** MONAI Label's REST interface, and the app's own endpoints beside it. */

import { decodePng, encodePng, type Plane } from "./png";

export interface ModelInfo {
  type: string;
  labels: Record<string, number>;
  description: string;
}

export interface Info {
  name: string;
  models: Record<string, ModelInfo>;
  trainers: Record<string, { description: string; config: Record<string, unknown> }>;
  strategies: Record<string, { description: string }>;
  scoring: Record<string, { description: string }>;
}

export interface ImageEntry {
  image: string;
  file: string;
  labels: Record<string, LabelFacts>;
}

export interface LabelFacts {
  version: number | null;
  time: string | null;
  user: string | null;
  /** What made it, or what it began with. */
  model: string | null;
  model_version: number | null;
}

export interface ImageFacts {
  path?: string;
  ts?: number;
  shape?: number[];
  error?: string;
}

export interface LabelVersion {
  version: number;
  time: string;
  user: string | null;
  client_id: string | null;
  file: string | null;
}

export interface Adapter {
  adapter: string;
  current: number;
  versions: { number: number; time: string; author: string; note: string; parent: number | null; scores: Record<string, unknown> }[];
}

export interface TrainingState {
  adapter: string;
  state: "never" | "running" | "finished" | "failed" | "stopped";
  fraction?: number;
  loss?: number;
  seconds_left?: number;
  started?: string;
  result?: {
    /** Null if it is not better than before. */
    version: number | null;
    /** Whether it is in use now, and if not, why. */
    in_use: boolean;
    reason: string;
    before: number;
    after: number | null;
    training: string[];
    validation: string[];
  };
  error?: string;
}

export interface TaskState {
  id: string;
  status: string;
  details?: unknown;
}

export interface Answer {
  mask: Plane;
  breaks: [number, number][];
  adapter?: string;
  version?: number;
  seconds: number;
}

/** What went wrong, in words for the annotator. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const TOKEN = "topolora.token";

export class Api {
  private token = sessionStorage.getItem(TOKEN);
  private signingIn: Promise<void> | null = null;

  /**
   * @param root address of the server.
   * @param clientId tells this browser from others.
   * @param signIn called when the server wants a token; ends once there is one.
   */
  constructor(
    private readonly root: string,
    readonly clientId: string,
    private readonly signIn: () => Promise<void>,
  ) {}

  info(): Promise<Info> {
    return this.json("/info/");
  }

  images(): Promise<ImageEntry[]> {
    return this.json("/topolora/api/images");
  }

  facts(image: string): Promise<ImageFacts> {
    return this.json(`/datastore/image/info?${query({ image })}`);
  }

  async picture(image: string, size = 0): Promise<Blob> {
    return (await this.request(`/topolora/api/picture?${query({ image, size })}`)).blob();
  }

  async label(image: string, tag: string, version?: number): Promise<Plane> {
    const asked = query({ image, tag, ...(version === undefined ? {} : { version }) });
    return decodePng(await (await this.request(`/topolora/api/label?${asked}`)).blob());
  }

  async labels(image: string, tag: string): Promise<LabelVersion[]> {
    const told: { labels: Record<string, LabelVersion[]> } = await this.json(`/topolora/api/labels?${query({ image })}`);
    return told.labels[tag] ?? [];
  }

  /** Ask a model for a mask; `previous` is what it goes on from. */
  async infer(model: string, image: string, params: Record<string, unknown>, previous?: Plane): Promise<Answer> {
    const started = performance.now();
    const form = new FormData();
    form.set("params", JSON.stringify({ ...params, hints: true, result_extension: ".png" }));
    if (previous) form.set("label", await encodePng(previous), "previous.png");
    const path = `/infer/${encodeURIComponent(model)}?${query({ image, output: "all" })}`;
    const answer = await (await this.request(path, { method: "POST", body: form })).formData();
    const told = JSON.parse(String(answer.get("params"))) as Partial<Answer>;
    const file = answer.get("image");
    if (!(file instanceof Blob)) throw new ApiError("The server answered without a mask.", 200);
    return {
      mask: await decodePng(file),
      breaks: told.breaks ?? [],
      ...(told.adapter === undefined ? {} : { adapter: told.adapter }),
      ...(told.version === undefined ? {} : { version: told.version }),
      seconds: (performance.now() - started) / 1000,
    };
  }

  async submit(image: string, mask: Plane, params: Record<string, unknown>): Promise<LabelVersion> {
    const form = new FormData();
    form.set("params", JSON.stringify({ ...params, client_id: this.clientId }));
    form.set("label", await encodePng(mask), `${image}.png`);
    return this.json(`/datastore/label?${query({ image, tag: "final" })}`, { method: "PUT", body: form });
  }

  next(strategy: string): Promise<{ id?: string; score?: number | null }> {
    return this.post(`/activelearning/${encodeURIComponent(strategy)}`, { client_id: this.clientId });
  }

  score(method: string, adapter: string): Promise<TaskState> {
    return this.post(`/scoring/${encodeURIComponent(method)}`, { adapter });
  }

  batch(model: string): Promise<TaskState> {
    return this.post(`/batch/infer/${encodeURIComponent(model)}?images=unlabeled`, {
      save_label: true,
      label_tag: "original",
      result_extension: ".png",
      multi_gpu: false,
    });
  }

  train(adapter: string, epochs: number, user: string): Promise<TaskState> {
    return this.post(`/train/${encodeURIComponent(adapter)}`, { max_epochs: epochs, client_id: this.clientId, user });
  }

  stopTraining(): Promise<unknown> {
    return this.json("/train/", { method: "DELETE" });
  }

  /** State of the latest task of a kind; null if there was none. */
  async task(kind: "train" | "scoring" | "batch/infer"): Promise<TaskState | null> {
    try {
      return await this.json(kind === "batch/infer" ? "/batch/infer" : `/${kind}/`);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    }
  }

  training(): Promise<TrainingState[]> {
    return this.json("/topolora/api/training");
  }

  adapters(): Promise<Adapter[]> {
    return this.json("/topolora/api/adapters");
  }

  restoreAdapter(adapter: string, version: number, user: string): Promise<Adapter> {
    return this.post("/topolora/api/adapters/restore", { adapter, version, user });
  }

  /** Whether people have to sign in. */
  async needsToken(): Promise<boolean> {
    return (await this.json<{ enabled: boolean }>("/auth/")).enabled;
  }

  /** Who is signed in. */
  async user(): Promise<string> {
    return (await this.json<{ username: string }>("/auth/token/valid")).username;
  }

  /** Get a token for a name and a password. */
  async authenticate(username: string, password: string): Promise<void> {
    const body = new URLSearchParams({ username, password, grant_type: "password" });
    const told: { access_token: string } = await (await this.fetched("/auth/token", { method: "POST", body })).json();
    this.token = told.access_token;
    sessionStorage.setItem(TOKEN, this.token);
  }

  private post<T>(path: string, content: unknown): Promise<T> {
    const headers = { "Content-Type": "application/json" };
    return this.json(path, { method: "POST", body: JSON.stringify(content), headers });
  }

  private async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return (await this.request(path, init)).json() as Promise<T>;
  }

  private async request(path: string, init: RequestInit = {}): Promise<Response> {
    try {
      return await this.fetched(path, init);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      this.signingIn ??= this.signIn().finally(() => (this.signingIn = null));
      await this.signingIn;
      return this.fetched(path, init);
    }
  }

  private async fetched(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.token) headers.set("Authorization", `Bearer ${this.token}`);
    let response: Response;
    try {
      response = await fetch(this.root + path, { ...init, headers });
    } catch {
      throw new ApiError("The server cannot be reached. Your changes are kept in this browser.", 0);
    }
    if (!response.ok) throw new ApiError(await words(response), response.status);
    return response;
  }
}

function query(entries: Record<string, string | number>): string {
  return new URLSearchParams(Object.entries(entries).map(([name, value]) => [name, String(value)])).toString();
}

async function words(response: Response): Promise<string> {
  const told = (await response.json().catch(() => null)) as { detail?: unknown } | null;
  const detail = told?.detail;
  if (response.status === 403) return `You may not do this: ${typeof detail === "string" ? detail : "your role does not allow it"}.`;
  if (response.status === 429) return `The server is busy with this already. ${typeof detail === "string" ? detail : ""}`;
  if (typeof detail === "string") return detail.slice(0, 1).toUpperCase() + detail.slice(1);
  if (Array.isArray(detail)) return detail.map((entry: { msg?: string }) => entry.msg ?? "").join("; ");
  return `The server answered with status ${response.status}.`;
}
