// The page "What differs from Centrifugo", made from the entries.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

import { ENTRIES, SECTIONS } from "./differences.mjs";

const FILE = fileURLToPath(new URL("../../docs/src/differences.md", import.meta.url));

export function text() {
  const lines = [
    "# What differs from Centrifugo",
    "",
    "Drumline speaks Centrifugo's protocols and reads its configuration. `scripts/test.sh conformance`",
    "runs the same scripts against Drumline and Centrifugo 6.9.1 and compares each reply, push, code,",
    "close frame and status. Each deliberate difference is an entry below; any other difference fails",
    "the run. This page is generated from `tests/conformance/differences.mjs`: edit the entries there and",
    "run `node tests/conformance/run.mjs --page`.",
  ];
  for (const section of SECTIONS) {
    const entries = ENTRIES.filter((entry) => entry.section === section);
    if (entries.length === 0) continue;
    lines.push("", `## ${section}`);
    for (const entry of entries) {
      lines.push("", `### ${entry.title}`, "", `- **Centrifugo**: ${entry.centrifugo}`,
        `- **Drumline**: ${entry.drumline}`, `- **Reason**: ${entry.reason}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

export function writePage() {
  mkdirSync(dirname(FILE), { recursive: true });
  writeFileSync(FILE, text());
}

/** An error when the committed page is not what the entries make. */
export function checkPage() {
  const problems = [];
  const committed = existsSync(FILE) ? readFileSync(FILE, "utf8") : "";
  if (committed !== text()) {
    problems.push("docs/src/differences.md is stale: run node tests/conformance/run.mjs --page");
  }
  for (const entry of ENTRIES) {
    if (!SECTIONS.includes(entry.section)) problems.push(`"${entry.title}": no section ${entry.section}`);
    for (const field of ["title", "centrifugo", "drumline", "reason"]) {
      if (!entry[field]) problems.push(`"${entry.title}": ${field} is missing`);
    }
    if (!entry.scripts === !entry.why_unseen) {
      problems.push(`"${entry.title}": needs scripts, or why_unseen`);
    }
  }
  return problems;
}
