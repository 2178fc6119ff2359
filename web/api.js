// REST calls to the gateway, each of them also reported to `api.onCall`.
import { heardAt } from "./time.js";

export const api = { onCall: () => {} };

const TIMEOUT_MS = 20_000;

/** The JSON that the gateway answers, null for an empty body; raises an Error with `status` for all else. `key` is a session's. */
export async function call(method, path, body, { timeout = TIMEOUT_MS, key } = {}) {
  const started = performance.now();
  const headers = { ...(body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
  const options = { method, headers, signal: AbortSignal.timeout(timeout), ...(body && { body: JSON.stringify(body) }) };
  let status = 0; // no answer, or none of the gateway's (a proxy's error page)
  let answer = null;
  try {
    const response = await fetch(path, options);
    answer = JSON.parse((await response.text()) || null);
    heardAt(response.headers.get("date"));
    status = response.status;
  } catch {
    // The status says so.
  }
  api.onCall({ method, path, headers, body, status, answer, ms: Math.round(performance.now() - started) });
  if (status < 200 || status > 299) throw Object.assign(new Error(`HTTP ${status}`), { status });
  return answer;
}
