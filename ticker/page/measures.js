// What a transport costs: rates over the last seconds, latencies, ages.

/** Number of samples. */
const WINDOW = 10;

/** The difference between the generator's clock and this page's, from the quickest answers. */
export class Clock {
  #answers = [];

  /** An answer that was asked for and came at these times, with the time that it carries. */
  compare(asked, came, micros) {
    this.#answers.push({ took: came - asked, offset: micros / 1000 - (asked + came) / 2 });
    if (this.#answers.length > 30) this.#answers.shift();
  }

  /** The generator's time in milliseconds. */
  now() {
    if (this.#answers.length === 0) return performance.timeOrigin + performance.now();
    const best = this.#answers.reduce((one, other) => (other.took < one.took ? other : one));
    return performance.now() + best.offset;
  }
}

const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);

/** What one transport costs: samples of a second each, the latest ones. */
export class Measures {
  #samples = [];
  #latencies = [];
  #ages = [];
  #last;

  /** Forgets everything: the transport begins anew, with these counters. */
  begin(counters) {
    this.#samples = [];
    this.#next(performance.now(), counters);
  }

  /** Begins the next sample. */
  #next(at, counters) {
    this.#latencies = [];
    this.#ages = [];
    this.#last = { at, counters };
  }

  /** A price came. */
  price(latency) {
    this.#latencies.push(latency);
  }

  /** The prices on the screen are this old. */
  age(milliseconds) {
    this.#ages.push(milliseconds);
  }

  /** Ends a sample: what happened since the counters before. */
  sample(counters) {
    const at = performance.now();
    const before = this.#last;
    const grown = (of) => of(counters) - of(before.counters);
    this.#samples.push({
      seconds: (at - before.at) / 1000,
      requests: grown((one) => one.requests),
      overhead: grown((one) => one.up[0] + one.down[0]),
      body: grown((one) => one.up[1] + one.down[1]),
      latencies: this.#latencies,
      ages: this.#ages,
    });
    if (this.#samples.length > WINDOW) this.#samples.shift();
    this.#next(at, counters);
  }

  /** The figures; undefined before the first sample. */
  read() {
    if (this.#samples.length === 0) return undefined;
    const total = (name) => sum(this.#samples, (one) => one[name]);
    const all = (name) => this.#samples.flatMap((one) => one[name]);
    const [seconds, overhead, body] = ["seconds", "overhead", "body"].map(total);
    const latencies = all("latencies").sort((one, other) => one - other);
    const ages = all("ages");
    const prices = latencies.length;
    const at = (part) => latencies[Math.min(prices - 1, Math.floor(prices * part))];
    return {
      prices: prices / seconds,
      requests: total("requests") / seconds,
      wire: (overhead + body) / seconds,
      overhead: overhead / seconds,
      overheadPerPrice: prices ? overhead / prices : undefined,
      bodyPerPrice: prices ? body / prices : undefined,
      median: at(0.5),
      p99: at(0.99),
      age: ages.length ? sum(ages, (age) => age) / ages.length : undefined,
    };
  }
}
