// Where Drumline differs from Centrifugo on purpose. `scripts/test.sh conformance` fails when an
// unlisted difference appears, and when a listed one is gone. The entries make docs/differences.md.
//
// An entry: section and title of the page, what each server does, the reason, the scripts it concerns
// (a regular expression of their names) and the paths in their transcripts (likewise). An entry
// without `scripts` is about something that no script can show; `why_unseen` says why.

export const SECTIONS = ["Client protocol", "HTTP API", "Proxies", "Configuration", "Commands"];

export const ENTRIES = [
  {
    section: "Client protocol",
    title: "Blank lines between commands",
    centrifugo: "ends the connection with 3501 when a frame holds an empty line before a command.",
    drumline: "skips empty lines.",
    reason: "an empty line holds no command, and a client that joins commands with newlines may add one.",
    scripts: /^JSON text: (newline at the start|two newlines between)$/,
  },
  {
    section: "Client protocol",
    title: "Keys in another case",
    centrifugo: "accepts JSON keys in any case, as Go's decoder does.",
    drumline: "accepts keys as the protocol spells them; another spelling is an unknown field.",
    reason: "no SDK sends them, and comparing without regard to case costs time for each key.",
    scripts: /^JSON text: upper-case key$/,
  },
];
