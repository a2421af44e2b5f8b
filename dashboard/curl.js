// A job as a command for a terminal.

import { address } from "./api.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The command that submits such a job again. The key is named, never written out.
export function curl(job) {
  const body = {};
  for (const name of ["workflow", "parameters", "targets", "options", "cores", "name", "labels", "priority", "timeout_s", "memory_mb", "max_retries", "retry_lost"]) {
    const value = job[name];
    if (value === null || value === undefined || value === false || (typeof value === "object" && !Object.keys(value).length)) continue;
    body[name] = value;
  }
  return `curl ${quoted(address("jobs"))} -H "Authorization: Bearer $SNAKELINE_API_KEY" -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))}`;
}
