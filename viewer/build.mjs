// node build.mjs DIR: the scripts and styles of the pages, the same bytes every time.
// node build.mjs --tests DIR: the tests of what needs no browser, for node's own runner.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const tests = process.argv[2] === "--tests";
const out = process.argv[tests ? 3 : 2];
if (!out) throw new Error("build.mjs: name the folder to write to.");

const shared = { absWorkingDir: here, bundle: true, charset: "utf8", logLevel: "warning", outdir: resolve(out) };
if (tests) {
  const found = readdirSync(join(here, "test")).filter((name) => name.endsWith(".test.ts"));
  const entryPoints = found.map((name) => `test/${name}`);
  await build({ ...shared, entryPoints, platform: "node", format: "esm", outExtension: { ".js": ".mjs" } });
} else {
  const entryPoints = ["graph", "quiz"].flatMap((page) => [`src/${page}.ts`, `src/${page}.css`]);
  await build({ ...shared, entryPoints, minify: true, format: "iife", target: ["es2022"], legalComments: "none" });
  for (const page of ["graph", "quiz"]) {
    const script = readFileSync(join(shared.outdir, `${page}.js`), "utf8");
    if (/<\/script|<!--/i.test(script)) throw new Error(`${page}.js would end the script element that holds it.`);
  }
}
