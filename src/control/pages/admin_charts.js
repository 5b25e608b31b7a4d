// Line charts over time, drawn as SVG. The colours come from the style sheet, so they follow the
// theme. A chart has a cursor for the pointer and for the arrow keys.

const SVG = "http://www.w3.org/2000/svg";
const MINUTE = 60_000;
const HEIGHT = 150, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 20;

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// A round number of at least this size, of which the half is round, too.
function ceiling(value) {
  if (value <= 0) return 2;
  const power = 10 ** Math.floor(Math.log10(value));
  return [2, 4, 6, 8, 10, 20].map((step) => step * power).find((most) => most >= value * 0.999);
}

// A duration before now, as the axis of time shows it.
function before(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  return seconds % 60 === 0 ? `−${seconds / 60} min` : `−${seconds} s`;
}

function clock(at) { return new Date(at).toTimeString().slice(0, 8); }

export class Chart {
  // `series`: a list of { label, value(point), show(number) }.
  constructor(title, series, seconds) {
    this.title = title;
    this.series = series;
    this.most = seconds * 1000;
    this.span = MINUTE;
    this.points = [];
    this.cursor = null;
    this.figure = document.createElement("figure");
    this.figure.className = "chart";
    const caption = document.createElement("figcaption");
    const name = document.createElement("b");
    name.textContent = title;
    caption.append(name);
    this.readings = series.map(({ label }, nth) => {
      const key = element("svg", { class: "key", viewBox: "0 0 26 8", "aria-hidden": "true" });
      key.append(element("line", { x1: 0, y1: 4, x2: 26, y2: 4, class: `s${nth}` }));
      const reading = document.createElement("span");
      const text = document.createTextNode(label);
      reading.append(key, text);
      caption.append(reading);
      return text;
    });
    this.moment = document.createElement("span");
    caption.append(this.moment);
    this.svg = element("svg", { role: "img", tabindex: "0" });
    this.figure.append(caption, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.figure);
  }

  show(points) {
    // The cursor stays at its moment while the points move.
    this.points = points;
    // The axis grows by whole minutes with the samples.
    const age = points.length ? points.at(-1).at - points[0].at : 0;
    this.span = Math.min(this.most, Math.max(1, Math.ceil(age / MINUTE)) * MINUTE);
    this.draw();
  }

  left() { return (this.points.at(-1)?.at ?? Date.now()) - this.span; }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const at = this.left() + share * this.span;
    const near = (one, other) => (Math.abs(one.at - at) <= Math.abs(other.at - at) ? one : other);
    this.move(this.points.length && share >= 0 ? this.points.reduce(near).at : null);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return this.move(null);
    if (!(event.key in steps) || !this.points.length) return;
    event.preventDefault();
    const found = this.points.findIndex((point) => point.at === this.cursor);
    const from = found < 0 ? this.points.length : found;
    const to = Math.min(Math.max(from + steps[event.key], 0), this.points.length - 1);
    this.move(this.points[to].at);
  }

  move(cursor) {
    this.cursor = cursor;
    this.draw();
  }

  draw() {
    const width = Math.max(this.svg.clientWidth, 160);
    const right = width - RIGHT, bottom = HEIGHT - BOTTOM, left = this.left();
    const values = this.series.map(({ value }) => this.points.map(value));
    const most = ceiling(Math.max(0, ...values.flat().filter((one) => one !== null)));
    const x = (at) => LEFT + ((at - left) / this.span) * (right - LEFT);
    const y = (value) => bottom - (value / most) * (bottom - TOP);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const at = y(most * share);
      parts.push(element("line", { class: "grid", x1: LEFT, x2: right, y1: at, y2: at }));
      const text = this.series[0].show(most * share);
      parts.push(element("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, text));
    }
    for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const at = left + this.span * share;
      const place = { x: x(at), y: HEIGHT - 5, "text-anchor": anchor };
      parts.push(element("text", place, share === 1 ? "now" : before(this.span * (1 - share))));
    }
    values.forEach((line, nth) => {
      let path = "", pen = "M";
      line.forEach((value, at) => {
        if (value === null) return void (pen = "M");
        path += `${pen}${x(this.points[at].at).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      });
      parts.push(element("path", { class: `s${nth}`, d: path }));
    });
    const shown = this.points.find((point) => point.at === this.cursor) ?? this.points.at(-1);
    const isPast = shown && shown.at === this.cursor;
    if (isPast) {
      parts.push(element("line", { class: "cursor", x1: x(shown.at), x2: x(shown.at), y1: TOP, y2: bottom }));
    }
    const texts = this.series.map(({ label, value, show }) => {
      const number = shown ? value(shown) : null;
      return `${label} ${number === null ? "–" : show(number)}`;
    });
    texts.forEach((text, nth) => { this.readings[nth].data = text; });
    this.moment.textContent = isPast ? clock(shown.at) : "";
    const when = isPast ? `at ${clock(shown.at)}` : "now";
    this.svg.setAttribute("aria-label", `${this.title}, ${when}: ${texts.join(", ")}. Arrow keys move through time.`);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
  }
}
