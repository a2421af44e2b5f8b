// The jobs that are selected in a list, and what can be done to all of them at once.

import { Problem, send } from "./api.js";
import { failed, tell } from "./app.js";
import { button, confirmed, el, replace } from "./dom.js";
import { ENDED, plural } from "./words.js";

export class Selection {
  #ids = new Set();
  #isBusy = false;

  // `list` has the `jobs` that are shown, the `rowOf(id)` of each, and `refresh()`.
  constructor(list) {
    this.list = list;
    this.bar = el("div.bulk", { "aria-live": "polite" });
    this.all = el("input", { type: "checkbox", "aria-label": "Select every job of this page", on: { change: () => this.#setAll(this.all.checked) } });
  }

  has(id) {
    return this.#ids.has(id);
  }

  set(id, isOn) {
    if (isOn) this.#ids.add(id);
    else this.#ids.delete(id);
    this.draw();
  }

  #setAll(isOn) {
    for (const job of this.list.jobs) this.#check(job.id, isOn);
    this.draw();
  }

  #check(id, isOn) {
    if (isOn) this.#ids.add(id);
    else this.#ids.delete(id);
    const box = this.list.rowOf(id)?.querySelector("input");
    if (box) box.checked = isOn;
  }

  draw() {
    const jobs = this.list.jobs.filter((job) => this.#ids.has(job.id));
    const active = jobs.filter((job) => !ENDED.has(job.status));
    const again = jobs.filter((job) => job.status === "failed" || job.status === "cancelled");
    this.all.checked = jobs.length > 0 && jobs.length === this.list.jobs.length;
    const state = `${jobs.length} ${active.length} ${again.length} ${this.#isBusy}`;
    if (this.bar.dataset.state === state) return;
    this.bar.dataset.state = state;
    const act = (label, on, action, more) => button(`${label} ${on.length}`, () => this.#each(action), { disabled: this.#isBusy, ...more });
    replace(this.bar, jobs.length > 0 && [
      el("span", null, `${plural(jobs.length, "job")} selected`),
      active.length > 0 && act("Cancel", active, "cancel", { class: "danger" }),
      again.length > 0 && act("Retry", again, "retry"),
      button("Select none", () => { this.#ids.clear(); this.#setAll(false); }),
    ]);
  }

  // What is selected may have changed since the button was drawn: it is looked at now.
  async #each(action) {
    const fits = action === "cancel" ? (job) => !ENDED.has(job.status) : (job) => job.status === "failed" || job.status === "cancelled";
    const jobs = this.list.jobs.filter((job) => this.#ids.has(job.id) && fits(job));
    if (!jobs.length) return;
    if (action === "cancel" && !await confirmed(`Cancel ${plural(jobs.length, "job")}?`, "Running ones are ended; what they have finished stays.", "Cancel them")) return;
    let done = 0;
    const refused = [];
    this.#isBusy = true;
    this.draw();
    try {
      for (const job of jobs) {
        try {
          await send("POST", `jobs/${job.id}/${action}`);
          done += 1;
          this.#check(job.id, false);
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          refused.push(`${job.name ?? job.id}: ${error.message}`);
        }
      }
      tell([done > 0 && `${action === "cancel" ? "Cancelling" : "Retrying"} ${plural(done, "job")}.`, ...refused.slice(0, 5), refused.length > 5 && `${refused.length - 5} more were refused.`].filter(Boolean).join(" "), refused.length ? "bad" : "good");
    } catch (error) {
      failed(error);
    } finally {
      this.#isBusy = false;
      this.draw();
    }
    this.list.refresh();
  }
}
