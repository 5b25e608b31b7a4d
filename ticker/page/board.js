// The table of prices.

const SPAN_MS = 30_000;
const POINT_MS = 200;
const FRESH_MS = 350;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [100, 30];

const direction = (change) => (change > 0 ? "up" : change < 0 ? "down" : "");
const arrow = (change) => (change > 0 ? "▲" : change < 0 ? "▼" : "=");
const percent = new Intl.NumberFormat("en", {
  style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: "exceptZero",
});
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

class Row {
  #points = [];
  #price;
  #shown;
  #moved = 0;
  #fresh = 0;

  constructor({ name, company }) {
    this.time = undefined;
    this.price = element("span", { textContent: "–" });
    this.change = element("span", { textContent: "–" });
    this.line = document.createElementNS(SVG, "polyline");
    const chart = document.createElementNS(SVG, "svg");
    chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    chart.setAttribute("preserveAspectRatio", "none");
    chart.setAttribute("aria-hidden", "true");
    chart.append(this.line);
    this.element = element("tr", {},
      element("th", { scope: "row" }, name, element("small", { textContent: company })),
      element("td", { className: "number" }, this.price),
      element("td", { className: "number" }, this.change),
      element("td", { className: "line" }, chart));
  }

  take({ p, o, t }, now) {
    if (this.#price !== undefined && p !== this.#price.p) {
      this.#moved = p - this.#price.p;
      this.#fresh = now;
    }
    this.#price = { p, o };
    this.time = t / 1000;
    const last = this.#points.at(-1);
    if (!last || now - last.at >= POINT_MS) this.#points.push({ at: now, p });
    else last.p = p;
  }

  /** Draws what has changed. */
  draw(now) {
    while (this.#points.length > 1 && this.#points[1].at < now - SPAN_MS) this.#points.shift();
    if (this.#price === undefined) return;
    const { p, o } = this.#price;
    if (this.#shown !== p) {
      this.#shown = p;
      const change = p / o - 1;
      this.price.textContent = `${arrow(this.#moved)} ${money.format(p)}`;
      this.change.textContent = `${arrow(change)} ${percent.format(change)}`;
      this.change.className = direction(change);
    }
    const fresh = now - this.#fresh < FRESH_MS ? "fresh " : "";
    const look = `${fresh}${direction(this.#moved)}`;
    if (this.price.className !== look) this.price.className = look;
    this.#drawLine(now);
  }

  #drawLine(now) {
    const prices = this.#points.map((point) => point.p);
    const [low, high] = [Math.min(...prices), Math.max(...prices)];
    const x = (at) => Math.max(0, WIDTH * (1 - (now - at) / SPAN_MS)).toFixed(1);
    const y = (p) => (high > low ? HEIGHT - (HEIGHT * (p - low)) / (high - low) : HEIGHT / 2).toFixed(1);
    const points = this.#points.map(({ at, p }) => `${x(at)},${y(p)}`);
    points.push(`${WIDTH},${y(prices.at(-1))}`);
    this.line.setAttribute("points", points.join(" "));
    this.line.setAttribute("class", direction(prices.at(-1) - prices[0]));
  }
}

/** The table: a row for each symbol. */
export class Board {
  #rows;

  constructor(body, symbols) {
    this.#rows = new Map(symbols.map((symbol) => [symbol.name, new Row(symbol)]));
    body.replaceChildren(...[...this.#rows.values()].map((row) => row.element));
  }

  take(symbol, data) {
    this.#rows.get(symbol)?.take(data, performance.now());
  }

  draw() {
    const now = performance.now();
    for (const row of this.#rows.values()) row.draw(now);
  }

  /** The mean age of the prices in the table, at this time of the generator. */
  age(now) {
    const times = [...this.#rows.values()].map((row) => row.time).filter((time) => time !== undefined);
    if (times.length === 0) return undefined;
    return times.reduce((total, time) => total + now - time, 0) / times.length;
  }
}
