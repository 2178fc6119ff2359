// The server's time in the visitor's zone, whatever the visitor's own clock says.

const COARSE_MS = 2_000; // what the header of a reply cannot tell
let ahead = 0; // the server's clock, beside this one

/** Takes note of the time at which the server sent something. */
export function heardAt(date) {
  const difference = Date.parse(date) - Date.now();
  if (Math.abs(difference - ahead) > COARSE_MS) ahead = Math.abs(difference) > COARSE_MS ? difference : 0;
}

/** Takes note of a time of the server that has passed, as that of an answer. */
export function notBefore(timestamp) {
  if (Date.parse(timestamp) > now() + COARSE_MS) ahead = Date.parse(timestamp) - Date.now();
}

/** The server's time now, in milliseconds. */
export const now = () => Date.now() + ahead;

const formats = {};

/** Hours and minutes of an ISO 8601 timestamp. */
export function hours(timestamp, language) {
  const date = new Date(timestamp);
  formats[language] ??= new Intl.DateTimeFormat(language, { hour: "numeric", minute: "2-digit" });
  return Number.isNaN(date.getTime()) ? "" : formats[language].format(date);
}
