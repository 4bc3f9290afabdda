/** Choice of the model, active learning, training and versions. */

import type { Adapter, Api, ImageEntry, Info, TaskState, TrainingState } from "./api";
import type { ModelChoice } from "./annotation";
import { announce, ask, byId, element, say, sayError, whenText } from "./dom";
import type { People } from "./people";
import { keepPreferences, type Preferences } from "./preferences";

const INTERVAL = 1000;
const STRATEGIES: Record<string, string> = {
  random: "random order",
  topology: "uncertainty about topology",
  entropy: "uncertainty by entropy",
  dropout: "uncertainty by dropout",
};

export interface LearningHooks {
  modelChanged(): void;
  versionChanged(adapter: string, version: number): void;
  /** The list of images, asked for again. */
  images(): Promise<ImageEntry[]>;
}

export class Learning {
  private info: Info | null = null;
  private adapters: Adapter[] = [];
  private watching = false;
  private people: People | null = null;

  constructor(
    private readonly api: Api,
    private readonly preferences: Preferences,
    private readonly hooks: LearningHooks,
  ) {
    byId("model").addEventListener("change", () => this.chooseModel());
    byId("strategy").addEventListener("change", () => this.chooseStrategy());
    byId("score").addEventListener("click", () => void this.score());
    byId("batch").addEventListener("click", () => void this.batch());
    byId("score-stop").addEventListener("click", () => void this.api.stop("scoring").catch(sayError));
    byId("batch-stop").addEventListener("click", () => void this.api.stop("batch/infer").catch(sayError));
    byId("train").addEventListener("click", () => void this.train());
    byId("stop").addEventListener("click", () => void this.stop());
  }

  /** The model that was chosen. */
  get model(): ModelChoice | null {
    const name = byId<HTMLSelectElement>("model").value;
    if (!name || !this.info) return null;
    const clicks = `${name}_clicks`;
    return { automatic: name, clicks: clicks in this.info.models ? clicks : null };
  }

  /** Names of the chosen model's classes by number. */
  get classes(): [string, number][] {
    const name = this.model?.automatic;
    const labels = name ? this.info?.models[name]?.labels : undefined;
    return Object.entries(labels ?? {}).sort((one, other) => one[1] - other[1]);
  }

  get strategy(): string {
    return byId<HTMLSelectElement>("strategy").value;
  }

  get needsScores(): boolean {
    return this.strategy in (this.info?.scoring ?? {});
  }

  /** Ask the server what it has. */
  async start(people: People): Promise<void> {
    this.people = people;
    this.info = await this.api.info();
    const models = Object.entries(this.info.models).filter(([, told]) => told.type === "segmentation");
    fill(byId("model"), models.map(([name, told]) => [name, told.description || name]), this.preferences.model);
    const strategies = Object.keys(this.info.strategies);
    const preferred = this.preferences.strategy || (strategies.includes("topology") ? "topology" : "random");
    fill(byId("strategy"), strategies.map((name) => [name, strategyText(name)]), preferred);
    this.chooseStrategy();
    await this.refresh();
    this.chooseModel();
    const states = await this.api.training();
    if (states.some(({ state }) => state === "running")) void this.watch(null);
  }

  /** Ask for the adapters' versions again. */
  async refresh(): Promise<void> {
    this.adapters = await this.api.adapters();
    this.showVersions();
  }

  private get adapter(): Adapter | undefined {
    return this.adapters.find(({ adapter }) => adapter === this.model?.automatic);
  }

  private chooseModel(): void {
    const name = byId<HTMLSelectElement>("model").value;
    this.preferences.model = name;
    keepPreferences(this.preferences);
    this.showVersions();
    this.hooks.modelChanged();
    void this.showTraining().catch(sayError);
  }

  private chooseStrategy(): void {
    if (this.strategy !== this.preferences.strategy) {
      this.preferences.strategy = this.strategy;
      keepPreferences(this.preferences);
    }
    byId("scoring").hidden = !this.needsScores;
  }

  private showVersions(): void {
    const { adapter } = this;
    const version = adapter ? `Version ${adapter.current} is in use.` : "A released bundle: it does not change.";
    const clicks = this.model && !this.model.clicks ? " It takes no clicks." : "";
    byId("model-about").textContent = this.model ? version + clicks : "The server has no model.";
    const mayTrain = this.people?.may("train") ?? true;
    byId("train").toggleAttribute("disabled", !adapter || !mayTrain);
    byId("batch").toggleAttribute("disabled", !mayTrain);
    byId("score").toggleAttribute("disabled", !(this.people?.may("score") ?? true));
    byId("train-about").textContent = adapter
      ? "Learns from all submitted labels, in minutes. A new version is used for everybody only if it is better on enough images that it did not see; otherwise you can choose it below."
      : "Adapters can be trained, bundles cannot.";
    const items = (adapter?.versions ?? []).map((told) => this.versionItem(adapter!, told)).reverse();
    byId("versions").replaceChildren(...(items.length ? items : [element("li", "quiet", "None.")]));
  }

  private versionItem(adapter: Adapter, told: Adapter["versions"][number]): HTMLLIElement {
    const item = element("li", told.number === adapter.current ? "in-use" : "");
    const head = element("div", "row");
    head.append(element("strong", "", `Version ${told.number}`));
    const dice = told.scores["validation_dice"];
    if (typeof dice === "number") head.append(element("span", "chip", `Dice ${dice.toFixed(3)}`));
    if (told.number === adapter.current) head.append(element("span", "chip strong", "in use"));
    item.append(head, element("span", "quiet", `${whenText(told.time)} · ${told.author}`));
    if (told.note) item.append(element("span", "quiet", told.note));
    if (told.number !== adapter.current && this.people?.may("train")) {
      const button = element("button", "button small", "Use this version");
      button.type = "button";
      button.setAttribute("aria-label", `Use version ${told.number}`);
      button.addEventListener("click", () => void this.restore(adapter.adapter, told.number));
      item.append(button);
    }
    return item;
  }

  private async restore(adapter: string, version: number): Promise<void> {
    if (!(await ask(`Use version ${version} of ${adapter} for everybody from now on? All versions stay.`, "Use it"))) return;
    try {
      await this.api.restoreAdapter(adapter, version, this.preferences.user);
      await this.refresh();
      say(`Version ${version} of ${adapter} is in use.`);
      this.hooks.versionChanged(adapter, version);
    } catch (error) {
      sayError(error);
    }
  }

  private async train(): Promise<void> {
    const name = this.model?.automatic;
    const epochs = byId<HTMLInputElement>("epochs");
    if (!name || !epochs.reportValidity()) return;
    try {
      const before = (await this.api.training()).find(({ adapter }) => adapter === name)?.started;
      await this.api.train(name, epochs.valueAsNumber, this.preferences.user);
      this.showState({ adapter: name, state: "running" });
      await this.watch({ adapter: name, before });
    } catch (error) {
      sayError(error);
    }
  }

  private async stop(): Promise<void> {
    try {
      await this.api.stop("train");
      say("Training was stopped; the version in use stays.");
    } catch (error) {
      sayError(error);
    }
  }

  /** Follow training until it ends; `asked` is one whose process has not said anything yet. */
  private async watch(asked: { adapter: string; before: string | undefined } | null): Promise<void> {
    if (this.watching) return;
    this.watching = true;
    try {
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, INTERVAL));
        const states = await this.api.training().catch(() => null);
        if (!states) continue; // the server may be back in a moment
        const awaited = asked && states.find(({ adapter }) => adapter === asked.adapter);
        if (awaited && awaited.started === asked.before) {
          const task = await this.api.task("train");
          if (!goesOn(task)) {
            this.showState({ adapter: awaited.adapter, state: "failed", error: "Training ended before it began." });
            return;
          }
          continue;
        }
        const running = states.find(({ state }) => state === "running");
        if (running) {
          this.showState(running);
          continue;
        }
        const ended = awaited ?? states.find(({ adapter }) => adapter === this.model?.automatic);
        if (ended) await this.finish(ended);
        return;
      }
    } finally {
      this.watching = false;
    }
  }

  private async finish(state: TrainingState): Promise<void> {
    this.showState(state);
    const text = byId("train-state").textContent ?? "";
    announce(text);
    await this.refresh();
    const version = state.result?.in_use && state.result.version;
    if (state.state === "finished" && version) this.hooks.versionChanged(state.adapter, version);
    else say(text, state.state === "failed" ? "error" : "info");
  }

  private async showTraining(): Promise<void> {
    if (this.watching) return;
    const state = (await this.api.training()).find(({ adapter }) => adapter === this.model?.automatic);
    if (state) this.showState(state);
    else byId("train-state").textContent = "";
  }

  private showState(state: TrainingState): void {
    const running = state.state === "running";
    const bar = byId<HTMLProgressElement>("train-progress");
    bar.hidden = byId("stop").hidden = !running;
    byId("train").hidden = running;
    if (state.fraction) bar.value = state.fraction;
    else bar.removeAttribute("value");
    byId("train-state").className = state.state;
    byId("train-state").textContent = trainingText(state);
  }

  private async score(): Promise<void> {
    const adapter = this.adapter?.adapter ?? this.adapters[0]?.adapter;
    const kind = this.strategy;
    if (!adapter) return;
    const stamp = ({ scores }: ImageEntry) => scores[kind]?.ts;
    await this.follow("scoring", "score", () => this.api.score(kind, adapter), stamp, "All images are scored.");
  }

  private async batch(): Promise<void> {
    const name = this.model?.automatic;
    if (!name) return;
    const stamp = ({ labels }: ImageEntry) => labels["original"]?.version;
    await this.follow("batch/infer", "batch", () => this.api.batch(name), stamp, "All images have a mask.");
  }

  /** Start a job over all images without submitted label and show how far it is; it changes an image's `stamp`. */
  private async follow(
    kind: "scoring" | "batch/infer",
    id: "score" | "batch",
    begin: () => Promise<TaskState>,
    stamp: (entry: ImageEntry) => unknown,
    text: string,
  ): Promise<void> {
    const line = byId(`${id}-state`);
    const bar = byId<HTMLProgressElement>(`${id}-progress`);
    const running = (on: boolean) => {
      bar.hidden = byId(`${id}-stop`).hidden = !on;
      byId(id).hidden = on;
    };
    try {
      line.textContent = "Starting …";
      bar.removeAttribute("value");
      running(true);
      const before = new Map((await this.hooks.images()).map((entry) => [entry.image, stamp(entry)]));
      await begin();
      let task = await this.api.task(kind);
      for (; goesOn(task); task = await this.api.task(kind)) {
        await new Promise((resolve) => setTimeout(resolve, 2 * INTERVAL));
        const open = (await this.hooks.images()).filter(({ labels }) => !("final" in labels));
        const count = open.filter((entry) => stamp(entry) !== before.get(entry.image)).length;
        if (!count) continue;
        bar.value = count / open.length;
        line.textContent = `${count} of ${open.length} images; you can go on meanwhile.`;
      }
      await this.hooks.images();
      if (task?.status === "STOPPED") line.textContent = "Stopped; what was done stays.";
      else line.textContent = task?.status === "DONE" ? text : "It failed; the server's log says why.";
    } catch (error) {
      line.textContent = "";
      sayError(error);
    } finally {
      running(false);
    }
  }
}

/** A way of choosing the next image, in words. */
export function strategyText(name: string): string {
  return STRATEGIES[name] ?? name;
}

function goesOn(task: TaskState | null): boolean {
  return task?.status === "SUBMITTED" || task?.status === "RUNNING";
}

/** How far training is, in words. */
export function trainingText(state: TrainingState): string {
  const { result } = state;
  switch (state.state) {
    case "never":
      return "";
    case "running": {
      if (!state.fraction) return "Starting …";
      const left = state.seconds_left === undefined ? "" : `, ${duration(state.seconds_left)} left`;
      return `${Math.round(100 * state.fraction)} %${left}`;
    }
    case "failed":
      return `Training failed: ${state.error ?? "the server's log says why"}`;
    case "stopped":
      return "The last training was stopped.";
    case "finished": {
      if (!result) return "Training has finished.";
      const before = result.before.toFixed(3);
      if (result.version) {
        const gain = `Dice ${before} → ${(result.after ?? 0).toFixed(3)} on ${count(result.validation.length, "image")}`;
        if (result.in_use) return `Version ${result.version} is better: ${gain}.`;
        return `Version ${result.version} was kept, and the old one stays in use: ${gain}, ${result.reason}.`;
      }
      return `Not better than before (Dice ${before}): the old version stays.`;
    }
  }
}

/** Seconds as people say them. */
export function duration(seconds: number): string {
  if (seconds < 90) return count(Math.max(1, Math.round(seconds)), "second");
  return count(Math.round(seconds / 60), "minute");
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function fill(select: HTMLSelectElement, entries: [string, string][], chosen: string): void {
  select.replaceChildren(
    ...entries.map(([value, text]) => {
      const option = element("option", "", text);
      option.value = value;
      return option;
    }),
  );
  if (entries.some(([value]) => value === chosen)) select.value = chosen;
}
