/** What the annotator chose, kept in the browser. */

export interface Preferences {
  user: string;
  model: string;
  strategy: string;
  automatic: boolean;
  singleKeys: boolean;
  opacity: number;
  /** Whether borders of the mask are shown alone. */
  outline: boolean;
  palette: string;
  /** Whether possible breaks are looked for and shown. */
  breaks: boolean;
  size: number;
  theme: "auto" | "light" | "dark";
  clientId: string;
}

const KEY = "topolora.preferences";

/** Preferences as they were kept, or the defaults. */
export function loadPreferences(): Preferences {
  const random = [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const defaults: Preferences = {
    user: "",
    model: "",
    strategy: "",
    automatic: true,
    singleKeys: true,
    opacity: 70,
    outline: false,
    palette: "okabe",
    breaks: true,
    size: 6,
    theme: "auto",
    clientId: `topolora-web-${random}`,
  };
  try {
    return { ...defaults, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return defaults;
  }
}

/** Keep preferences; a browser that keeps nothing goes on without. */
export function keepPreferences(preferences: Preferences): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(preferences));
  } catch {
    // private windows of some browsers
  }
}
