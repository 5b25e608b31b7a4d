// Plants faults into the answers of one server, so that a run proves that it would find them.

/** Changes the first number under `key` in a value; true when there was one. */
function changeNumber(value, key) {
  if (value === null || typeof value !== "object") return false;
  if (typeof value[key] === "number") {
    value[key] += 1;
    return true;
  }
  return Object.values(value).some((inner) => changeNumber(inner, key));
}

/** Removes the first field of the innermost first object; true when there was one. */
function removeField(value) {
  const keys = Object.keys(value).filter((key) => key !== "id");
  const inner = keys.find((key) => value[key] !== null && typeof value[key] === "object"
    && Object.keys(value[key]).length > 0);
  if (inner !== undefined) return removeField(value[inner]);
  if (keys.length === 0) return false;
  delete value[keys.at(-1)];
  return true;
}

/** Each kind: what it does to the first message, end or answer that it can change. */
const KINDS = {
  "error code": { message: (message) => message.error && changeNumber(message.error, "code") },
  "error message": {
    message: (message) => {
      if (message.error === undefined) return false;
      message.error.message += "!";
      return true;
    },
  },
  "missing field": { message: (message) => message.id !== undefined && removeField(message) },
  "missing field of a push": {
    message: (message) => message.push !== undefined && removeField(message.push),
  },
  "dropped push": { message: (message) => (message.push === undefined ? false : "dropped") },
  "dropped reply": { message: (message) => (message.id === undefined ? false : "dropped") },
  "reply after what follows it": {
    message: (message) => (message.subscribe === undefined ? false : "late"),
  },
  "push twice": { message: (message) => (message.push === undefined ? false : "twice") },
  "wrong offset": { message: (message) => changeNumber(message, "offset") },
  "close code": { end: (end) => changeNumber(end, "code") },
  "close reason": {
    end: (end) => {
      if (end.reason === undefined) return false;
      end.reason += "!";
      return true;
    },
  },
  "HTTP status": { answer: (answer) => changeNumber(answer, "status") },
  "field of an answer": {
    answer: (answer) => answer.body !== null && typeof answer.body === "object"
      && removeField(answer.body),
  },
  "request to the backend dropped": { requests: (requests) => requests.shift() !== undefined },
  "request to the backend twice": {
    requests: (requests) => requests.length > 0 && requests.push(structuredClone(requests[0])) > 0,
  },
  "field of a request to the backend": {
    requests: (requests) => requests.some(({ body }) => typeof body === "object" && removeField(body)),
  },
  "header of a request to the backend": {
    requests: (requests) => requests.some(({ headers }) => removeField(headers)),
  },
};

/** The kinds of faults for scripts with a backend, and for those without. */
export const plantedIn = (backend) =>
  Object.keys(KINDS).filter((kind) => backend || KINDS[kind].requests === undefined);

/** A fault of this kind, planted once. `done` tells whether it was. */
export class Plant {
  constructor(kind) {
    if (KINDS[kind] === undefined) {
      throw new Error(`there is no fault "${kind}" to plant; there are ${Object.keys(KINDS).join(", ")}`);
    }
    this.kind = kind;
    this.done = false;
  }

  #apply(where, value, client) {
    if (this.done || KINDS[this.kind][where] === undefined) return value;
    const result = KINDS[this.kind][where](value);
    if (result) this.done = true;
    if (result === "twice") client.pushes.push(structuredClone(value.push));
    if (result === "late") client.late = [value];
    return result === "dropped" || result === "late" ? "dropped" : value;
  }

  message(message, client) { return this.#apply("message", message, client); }
  end(end) { return this.#apply("end", end); }
  answer(answer) { return this.#apply("answer", answer); }
  requests(requests) { return this.#apply("requests", requests); }
}
