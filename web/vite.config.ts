import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const root = import.meta.dirname;
const built = join(root, "../topolora_monai/label_app/static");
const sources = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src"];

/** Paths of files below a path, relative to it. */
function filesBelow(path: string): string[] {
  try {
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(path, join(entry.parentPath, entry.name)));
  } catch {
    return [""];
  }
}

/** Digests of files, as lines that `sha256sum` writes, in order of their names. */
function digests(folder: string, names: string[]): Record<string, string> {
  const digest = (name: string) => createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");
  return Object.fromEntries(names.sort().map((name) => [name, digest(name)]));
}

/** Writes what was built from what, so that a test can tell without building. */
function record(): Plugin {
  return {
    name: "record",
    apply: "build",
    closeBundle() {
      const names = sources.flatMap((source) => filesBelow(join(root, source)).map((name) => join(source, name)));
      const files = filesBelow(built).filter((name) => name !== "build.json");
      const content = { sources: digests(root, names), files: digests(built, files) };
      writeFileSync(join(built, "build.json"), `${JSON.stringify(content, null, 1)}\n`);
    },
  };
}

export default defineConfig({
  root,
  base: "./",
  plugins: [record()],
  build: {
    outDir: built,
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0,
    sourcemap: false,
    modulePreload: { polyfill: false },
    license: { fileName: "licences.md" },
    chunkSizeWarningLimit: 1000,
  },
  server: { proxy: { "^/(?!src|node_modules|@|index.html|$)": "http://127.0.0.1:8000" } },
  test: { include: ["tests/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
