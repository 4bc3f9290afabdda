/** The list of images, with thumbnails and what is known of their labels. */

import type { Api, ImageEntry, LabelFacts } from "./api";
import { byId, element, whenText } from "./dom";

const THUMBNAIL = 128;
const AT_ONCE = 2;
/** Image 2 before image 10. */
const NATURAL = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

interface Row {
  entry: ImageEntry;
  item: HTMLLIElement;
  button: HTMLButtonElement;
  state: HTMLElement;
}

export class ImageList {
  entries: ImageEntry[] = [];
  drafts: ReadonlySet<string> = new Set();
  /** Who works here. */
  person: () => string = () => "";
  private current: string | null = null;
  private readonly rows = new Map<string, Row>();
  private readonly wanted: { image: string; picture: HTMLImageElement }[] = [];
  private loading = 0;
  private readonly seen: IntersectionObserver;

  constructor(
    private readonly api: Api,
    private readonly open: (entry: ImageEntry) => void,
  ) {
    this.seen = new IntersectionObserver((changes) => this.load(changes), { root: byId("images"), rootMargin: "200px" });
    byId("images-filter").addEventListener("change", () => this.show());
    byId("images-search").addEventListener("input", () => this.show());
  }

  /** Ask the server again. */
  async refresh(): Promise<void> {
    const entries = await this.api.images();
    this.entries = entries.sort((one, other) => NATURAL.compare(one.image, other.image));
    this.show();
  }

  find(image: string): ImageEntry | undefined {
    return this.entries.find((entry) => entry.image === image);
  }

  /** The image after or before the current one among those shown. */
  neighbour(step: 1 | -1): ImageEntry | undefined {
    const shown = this.shown();
    const index = shown.findIndex((entry) => entry.image === this.current);
    return shown[index < 0 ? 0 : index + step];
  }

  /** Mark the image that is open. */
  select(image: string): void {
    this.current = image;
    this.show();
    this.rows.get(image)?.item.scrollIntoView({ block: "nearest" });
  }

  show(): void {
    const shown = this.shown();
    const items = shown.map((entry) => this.row(entry).item);
    const list = byId("images");
    if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) {
      list.replaceChildren(...items);
    }
    const done = this.entries.filter((entry) => "final" in entry.labels).length;
    byId("images-none").hidden = shown.length > 0;
    byId("images-count").textContent = `${done} of ${this.entries.length} submitted`;
    byId<HTMLProgressElement>("images-progress").value = this.entries.length ? done / this.entries.length : 0;
  }

  private shown(): ImageEntry[] {
    const filter = byId<HTMLSelectElement>("images-filter").value;
    const words = byId<HTMLInputElement>("images-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    return this.entries.filter((entry) => {
      if (words.length) return words.every((word) => entry.image.toLowerCase().includes(word));
      if (filter === "mine") return entry.assigned !== null && entry.assigned === this.person();
      return filter === "all" || "final" in entry.labels === (filter === "final") || entry.image === this.current;
    });
  }

  private row(entry: ImageEntry): Row {
    const row = this.rows.get(entry.image) ?? this.made(entry);
    row.entry = entry;
    const state = stateOf(entry, this.drafts.has(entry.image));
    row.state.textContent = state.text;
    row.state.className = `state ${state.kind}`;
    row.button.title = `${entry.image}: ${state.long}`;
    if (entry.image === this.current) row.button.setAttribute("aria-current", "true");
    else row.button.removeAttribute("aria-current");
    return row;
  }

  private made(entry: ImageEntry): Row {
    const item = element("li");
    const button = element("button", "image");
    button.type = "button";
    button.dataset["image"] = entry.image;
    const picture = element("img");
    picture.alt = "";
    picture.width = picture.height = 56;
    picture.dataset["image"] = entry.image;
    const texts = element("span", "texts");
    const state = element("span", "state");
    texts.append(element("span", "name", entry.image), state);
    button.append(picture, texts);
    item.append(button);
    const row = { entry, item, button, state };
    button.addEventListener("click", () => this.open(row.entry));
    this.rows.set(entry.image, row);
    this.seen.observe(picture);
    return row;
  }

  private load(changes: IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of changes) {
      if (!isIntersecting) continue;
      this.seen.unobserve(target);
      const picture = target as HTMLImageElement;
      this.wanted.push({ image: picture.dataset["image"]!, picture });
    }
    while (this.loading < AT_ONCE && this.wanted.length) void this.thumbnail(this.wanted.shift()!);
  }

  private async thumbnail({ image, picture }: { image: string; picture: HTMLImageElement }): Promise<void> {
    this.loading++;
    try {
      picture.src = URL.createObjectURL(await this.api.picture(image, THUMBNAIL));
    } catch {
      picture.classList.add("missing");
    } finally {
      this.loading--;
      this.load([]);
    }
  }
}

/** What made a mask, in words; null where that is not known. */
export function madeBy({ model, model_version }: LabelFacts): string | null {
  return model && `Mask by ${model}${model_version ? `, version ${model_version}` : ""}`;
}

/** What is known of an image's label, in words. */
export function stateOf(entry: ImageEntry, draft: boolean): { kind: string; text: string; long: string } {
  const { final } = entry.labels;
  if (draft) return { kind: "draft", text: "Draft, not submitted", long: "Changes are kept in this browser" };
  if (final) {
    const { review } = entry;
    if (review?.verdict === "rejected" && review.version === final.version) {
      return { kind: "draft", text: "Rejected", long: review.comment || "See the review" };
    }
    const accepted = review?.verdict === "accepted" && review.version === final.version ? ", accepted" : "";
    const text = `${final.user ? `Submitted by ${final.user}` : "Submitted"}${accepted}`;
    return { kind: "final", text, long: final.time ? `${text}, ${whenText(final.time)}` : text };
  }
  const [label] = Object.values(entry.labels);
  if (label) return { kind: "made", text: madeBy(label) ?? "Labelled automatically", long: "Not submitted yet" };
  if (entry.assigned) return { kind: "none", text: `For ${entry.assigned}`, long: "No label yet" };
  return { kind: "none", text: "Unlabelled", long: "No label yet" };
}
