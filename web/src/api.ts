/** MONAI Label's REST interface, and the app's own endpoints beside it. */

import type { Break } from "./history";
import { decodePng, encodePng, type Plane } from "./png";
import { type Probabilities, probabilities } from "./threshold";
import type { Part, Way } from "./wire";

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

export interface Score {
  score: number;
  adapter: string;
  version: number;
  /** Seconds since 1970. */
  ts: number;
}

/** What somebody thinks of a version of a label. */
export interface Review {
  verdict: "accepted" | "rejected" | "comment";
  version: number;
  comment: string;
  user: string;
  time: string;
}

/** How far two versions agree; null where a score is not defined. */
export interface Agreement {
  one: number;
  other: number;
  dice: number | null;
  cldice: number | null;
  kappa: number | null;
}

export interface ImageEntry {
  image: string;
  /** Who is to annotate it. */
  assigned: string | null;
  /** The latest one. */
  review: Review | null;
  file: string;
  /** By the method. */
  scores: Record<string, Score>;
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

/** An image that is not shown, and why. */
export interface LeftOut {
  file: string;
  reason: string;
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

export type TaskKind = "train" | "scoring" | "batch/infer";

export interface TaskState {
  id: string;
  status: string;
  details?: unknown;
}

export interface Answer {
  mask: Plane;
  breaks: Break[];
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

/** What somebody's roles allow. */
export interface May {
  submit: boolean;
  score: boolean;
  review: boolean;
  /** And pre-annotate all images, and choose versions for everybody. */
  train: boolean;
}

export interface User {
  username: string;
  roles: string[];
  may: May;
}

const TOKEN = "topolora.token";
const REFRESH = "topolora.refresh";

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

  leftOut(): Promise<LeftOut[]> {
    return this.json("/topolora/api/left_out");
  }

  facts(image: string): Promise<ImageFacts> {
    return this.json(`/datastore/image/info?${query({ image })}`);
  }

  /** @param window percentiles that become black and white, such as "1,99"; empty leaves the values. */
  async picture(image: string, size = 0, window = ""): Promise<Blob> {
    return (await this.request(`/topolora/api/picture?${query({ image, size, ...(window ? { window } : {}) })}`)).blob();
  }

  /** What a model thinks of each pixel; null if its classes exclude one another, so that no threshold makes its mask. */
  async probabilities(model: string, image: string): Promise<Probabilities | null> {
    const response = await this.request(`/topolora/api/probability?${query({ model, image })}`);
    const threshold = Number(response.headers.get("X-Threshold"));
    const plane = await decodePng(await response.blob());
    return threshold ? probabilities(plane, Number(response.headers.get("X-Classes")), threshold) : null;
  }

  /** Where a mask may break one structure, by what a model thinks. */
  async breaks(model: string, image: string, mask: Plane): Promise<Break[]> {
    const body = new FormData();
    body.set("label", await encodePng(mask), "mask.png");
    return asBreaks(await this.json(`/topolora/api/breaks?${query({ model, image })}`, { method: "POST", body }));
  }

  /** The way of a live-wire along a class. */
  trace(adapter: string, image: string, { from, to }: Part, label: number, signal: AbortSignal): Promise<Way> {
    const asked = query({ adapter, image, label, x0: from.x, y0: from.y, x1: to.x, y1: to.y });
    return this.json(`/topolora/api/trace?${asked}`, { signal });
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
  async infer(
    model: string, image: string, params: Record<string, unknown>, signal: AbortSignal, previous?: Plane,
  ): Promise<Answer> {
    const started = performance.now();
    const form = new FormData();
    form.set("params", JSON.stringify({ ...params, hints: true, result_extension: ".png" }));
    if (previous) form.set("label", await encodePng(previous), "previous.png");
    const path = `/infer/${encodeURIComponent(model)}?${query({ image, output: "all" })}`;
    const answer = await (await this.request(path, { method: "POST", body: form, signal })).formData();
    const told = JSON.parse(String(answer.get("params"))) as Partial<Omit<Answer, "breaks">> & { breaks?: [number, number, number][] };
    const file = answer.get("image");
    if (!(file instanceof Blob)) throw new ApiError("The server answered without a mask.", 200);
    return {
      mask: await decodePng(file),
      breaks: asBreaks(told.breaks ?? []),
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

  review(image: string, version: number, verdict: Review["verdict"], comment: string, user: string): Promise<Review> {
    return this.post("/topolora/api/review", { image, version, verdict, comment, user });
  }

  assign(image: string, to: string): Promise<unknown> {
    return this.post("/topolora/api/assign", { image, to });
  }

  agreement(image: string): Promise<Agreement[]> {
    return this.json(`/topolora/api/agreement?${query({ image })}`);
  }

  /** Make the mask that all people's labels make likely; tells of which versions. */
  consensus(image: string): Promise<{ version: number; of: number[] }> {
    return this.post("/topolora/api/consensus", { image });
  }

  /** All submitted labels in one file. */
  async archive(form: string): Promise<Blob> {
    return (await this.request(`/topolora/api/archive?${query({ form })}`)).blob();
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

  /** End the task of a kind that is running. */
  stop(kind: TaskKind): Promise<unknown> {
    return this.json(taskPath(kind), { method: "DELETE" });
  }

  /** State of the latest task of a kind; null if there was none. */
  async task(kind: TaskKind): Promise<TaskState | null> {
    try {
      return await this.json(taskPath(kind));
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
  user(): Promise<User> {
    return this.json("/auth/token/valid");
  }

  /** Get a token for a name and a password. */
  authenticate(username: string, password: string): Promise<void> {
    return this.fetchToken({ username, password, grant_type: "password" });
  }

  /** Forget who is signed in, here and at the issuer. */
  async signOut(): Promise<void> {
    const body = new URLSearchParams({ refresh_token: sessionStorage.getItem(REFRESH) ?? "" });
    await this.fetched("/auth/sign_out", { method: "POST", body }).catch(() => undefined);
    this.token = null;
    for (const key of [TOKEN, REFRESH]) sessionStorage.removeItem(key);
  }

  private async fetchToken(grant: Record<string, string>): Promise<void> {
    const response = await this.fetched("/auth/token", { method: "POST", body: new URLSearchParams(grant) });
    const told = (await response.json()) as { access_token: string; refresh_token?: string };
    this.token = told.access_token;
    sessionStorage.setItem(TOKEN, told.access_token);
    if (told.refresh_token) sessionStorage.setItem(REFRESH, told.refresh_token);
  }

  /** A new token in the place of one that has run out, without asking anybody if the issuer gives one. */
  private async renew(): Promise<void> {
    const refresh_token = sessionStorage.getItem(REFRESH);
    if (refresh_token) {
      try {
        return await this.fetchToken({ refresh_token, grant_type: "refresh_token" });
      } catch {
        sessionStorage.removeItem(REFRESH);
      }
    }
    await this.signIn();
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
      this.signingIn ??= this.renew().finally(() => (this.signingIn = null));
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
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError("The server cannot be reached. Your changes are kept in this browser.", 0);
    }
    if (!response.ok) throw new ApiError(await words(response), response.status);
    return response;
  }
}

function asBreaks(told: [number, number, number][]): Break[] {
  return told.map(([x, y, probability]) => ({ x, y, probability }));
}

function taskPath(kind: TaskKind): string {
  return kind === "batch/infer" ? "/batch/infer" : `/${kind}/`;
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
