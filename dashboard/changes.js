// The changes of all jobs, for as long as the page is looked at: one stream, which comes back by itself.

import { Problem, request, setLost } from "./api.js";

const SILENT_MS = 40_000; // the service says something every 15 s; who says nothing has gone without a word
const HIDDEN_MS = 60_000; // a browser has six connections for all tabs of a service: those behind give theirs back

// Events of a response as {event, id, data}; `heard` is called with whatever comes.
async function* eventsOf(answer, heard) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let now = { event: "message", id: null, data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (now.data.length) yield { event: now.event, id: now.id, data: now.data.join("\n") };
        now = { event: "message", id: null, data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const name = colon < 0 ? line : line.slice(0, colon);
      const told = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "data") now.data.push(told);
      else if (name === "event") now.event = told;
      else if (name === "id") now.id = told;
    }
  }
}

export class Changes {
  #listeners = new Set();
  #isWanted = false;
  #abort = null;
  #seen = null;
  #hasMissed = false; // what happened while nobody looked

  constructor() {
    let hiding = null;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hiding);
      if (document.hidden) hiding = setTimeout(() => this.#pause(), HIDDEN_MS);
      else this.#go();
    });
  }

  // A listener hears of each change as the events tell it, and null where everything may be another.
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start() {
    this.#isWanted = true;
    this.#go();
  }

  stop() {
    this.#isWanted = false;
    this.#pause();
    this.#hasMissed = false;
  }

  #go() {
    if (!this.#isWanted || this.#abort) return;
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  #pause() {
    this.#abort?.abort();
    this.#abort = null;
    this.#seen = null; // there may be very many by the time somebody looks again
    this.#hasMissed = true;
  }

  #tell(change) {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        reportError(error); // a view's trouble is not the stream's
      }
    }
  }

  async #run(signal) {
    let pauseMs = 500;
    while (!signal.aborted) {
      const silence = new AbortController();
      let timer = null;
      const heard = () => {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT_MS);
      };
      try {
        heard();
        const more = this.#seen === null ? {} : { "Last-Event-ID": this.#seen };
        const answer = await request("events", { accept: "text/event-stream", signal: AbortSignal.any([signal, silence.signal]), more });
        pauseMs = 500;
        const told = () => {
          heard();
          setLost(false); // if something else could not be fetched: it can now
        };
        for await (const event of eventsOf(answer, told)) {
          if (signal.aborted) return;
          if (event.id !== null) this.#seen = event.id;
          if (event.event === "gap") this.#tell(null); // a store that was replaced: look at everything again
          else if (event.event !== "start") this.#tell(JSON.parse(event.data));
          else if (this.#hasMissed) this.#tell(null);
          this.#hasMissed = false;
        }
        setLost(true); // ended by the service or by what is between
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem) {
          if (error.status === 401 || error.status === 403) return;
          if (error.status === 422) this.#seen = null; // an id that the service does not know any more
          if (error.status < 500 && error.status !== 429) pauseMs = 5000;
        } else {
          setLost(true);
        }
      } finally {
        clearTimeout(timer);
      }
      this.#hasMissed ||= this.#seen === null; // what happens until the stream begins
      await new Promise((resolve) => { setTimeout(resolve, pauseMs * (0.75 + Math.random() / 2)); });
      pauseMs = Math.min(pauseMs * 1.7, 8000);
    }
  }
}
