// The table and the bars of what the transports cost.

const number = (digits) => {
  const format = new Intl.NumberFormat("en", {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
  return (value) => format.format(value);
};
const [whole, tenths] = [number(0), number(1)];

const LINES = [
  ["prices", "Prices per second", ({ prices }) => tenths(prices)],
  ["requests", "Requests per second", ({ requests }) => tenths(requests)],
  ["wire", "On the wire, kB/s", ({ wire }) => tenths(wire / 1000)],
  ["overhead", "Headers and framing, kB/s", ({ overhead }) => tenths(overhead / 1000)],
  ["per-price", "Headers and framing per price, bytes",
    ({ overheadPerPrice: bytes }) => bytes && (bytes < 100 ? tenths : whole)(bytes)],
  ["median", "Latency, ms (median)", ({ median }) => median && tenths(median)],
  ["p99", "Latency, ms (99 %)", ({ p99 }) => p99 && tenths(p99)],
  ["age", "Age on screen, ms", ({ age }) => age && whole(age)],
];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The table of figures, with a column for each transport, and the bars. */
export class Costs {
  #cells = new Map();
  #heads = new Map();
  #bars = new Map();
  #figures = new Map();

  constructor(table, bars, transports) {
    const heads = transports.map(({ id, name, short }) => {
      const head = element("th", { scope: "col", abbr: name, title: name });
      this.#heads.set(id, { head, short });
      return head;
    });
    table.tHead.replaceChildren(element("tr", {}, element("td"), ...heads));
    table.tBodies[0].replaceChildren(...LINES.map(([key, label]) => {
      const cells = transports.map(({ id }) => {
        const cell = element("td", { textContent: "–" });
        cell.dataset.figure = `${id} ${key}`;
        this.#cells.set(`${id} ${key}`, cell);
        return cell;
      });
      return element("tr", {}, element("th", { scope: "row", textContent: label }), ...cells);
    }));
    bars.replaceChildren(...transports.map(({ id, name }) => {
      const overhead = element("span", { className: "overhead" });
      const body = element("span", { className: "body" });
      const text = element("span", { className: "text", textContent: "not measured yet" });
      this.#bars.set(id, { overhead, body, text });
      return element("li", {}, element("span", { textContent: name }),
        element("span", { className: "bar", ariaHidden: "true" }, overhead, body), text);
    }));
  }

  /** Marks the transport in use. */
  activate(active) {
    for (const [id, { head, short }] of this.#heads) {
      head.textContent = id === active ? `● ${short}` : short;
      head.classList.toggle("active", id === active);
    }
    for (const [key, cell] of this.#cells) {
      cell.classList.toggle("active", key.startsWith(`${active} `));
    }
  }

  /** Shows the figures of a transport. */
  show(id, figures) {
    if (!figures) return;
    for (const [key, , format] of LINES) {
      this.#cells.get(`${id} ${key}`).textContent = format(figures) || "–";
    }
    if (figures.overheadPerPrice === undefined) return;
    this.#figures.set(id, figures);
    const all = (one) => one.overheadPerPrice + one.bodyPerPrice;
    const longest = Math.max(...[...this.#figures.values()].map(all));
    for (const [each, found] of this.#figures) {
      const { overhead, body, text } = this.#bars.get(each);
      overhead.style.width = `${(100 * found.overheadPerPrice) / longest}%`;
      body.style.width = `${(100 * found.bodyPerPrice) / longest}%`;
      const digits = found.overheadPerPrice < 100 ? tenths : whole;
      text.textContent =
        `${digits(found.overheadPerPrice)} headers and framing + ${whole(found.bodyPerPrice)} messages`;
    }
  }
}
