// The table of scripts: groups of a configuration and the scripts that run with it.

import { readdirSync } from "node:fs";

/**
 * Every group of the files in scripts/, each {name, config, env, flags, backend, scripts}. A script is
 * [NAME, ...STEPS]. Throws when two scripts share a name, or their configuration and steps.
 */
export async function load() {
  const folder = new URL("scripts/", import.meta.url);
  const groups = [];
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".mjs")).sort()) {
    const { default: list } = await import(new URL(file, folder));
    groups.push(...list.map((group) => ({ file, ...group })));
  }
  const names = new Map();
  const contents = new Map();
  for (const group of groups) {
    for (const [name, ...steps] of group.scripts) {
      if (names.has(name)) throw new Error(`two scripts are called "${name}"`);
      names.set(name, group);
      const content = JSON.stringify([group.name, steps], (_, value) =>
        (typeof value === "function" ? (value.of ?? String(value)) : value));
      if (contents.has(content)) {
        throw new Error(`scripts "${contents.get(content)}" and "${name}" do the same`);
      }
      contents.set(content, name);
    }
  }
  return groups;
}
