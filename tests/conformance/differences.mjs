// Where Drumline differs from Centrifugo on purpose. `scripts/test.sh conformance` fails when an
// unlisted difference appears, and when a listed one is gone. The entries make docs/differences.md.
//
// An entry: section and title of the page, what each server does, the reason, the scripts it concerns
// (a regular expression of their names) and the paths in their transcripts (likewise). An entry
// without `scripts` is about something that no script can show; `why_unseen` says why.

export const SECTIONS = ["Client protocol", "HTTP API", "Proxies", "Configuration", "Commands"];

export const ENTRIES = [
];
