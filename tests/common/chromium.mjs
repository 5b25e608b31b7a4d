// Starts a headless Chromium that talks to nobody but the tests' own servers.

import { join } from "node:path";
import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** A browser with its profile in `folder`. `options` are playwright's; its `args` are added to ours. */
export function startChromium(folder, { args = [], ...options } = {}) {
  return chromium.launchPersistentContext(join(folder, "profile"), {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [...ARGUMENTS, ...args],
    ...options,
  });
}
