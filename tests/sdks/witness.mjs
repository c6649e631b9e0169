// Watches a client library at work: it must finish without a complaint, a refused request or a retry.
//
// It is imported before the library. Node itself tells of every request that is made, whatever makes it: `fetch` and
// `http` report the status of each answer on their diagnostics channels, and what the libraries do not raise they write
// to the console. Calls over gRPC name no status there; their exporter says by its callback how they ended.

import { subscribe } from "node:diagnostics_channel";

export const URL = process.env.FLEETLOG_URL;
export const GRPC_URL = process.env.FLEETLOG_GRPC_URL;
export const KEY = process.env.FLEETLOG_KEY;
export const SESSION = process.env.FLEETLOG_SESSION;
export const WAY = process.argv[2];

const complaints = [];
const statuses = [];
const RETRY = /\bretrying\b|\bretry attempt\b|\bbacking off\b/i;

export function complain(...words) {
  complaints.push(words.map((word) => (word instanceof Error ? word.stack : String(word))).join(" "));
}

subscribe("undici:request:headers", ({ response }) => statuses.push(response.statusCode));
subscribe("undici:request:error", ({ error }) => complain(error));
subscribe("http.client.response.finish", ({ response }) => statuses.push(response.statusCode));
subscribe("http.client.request.error", ({ error }) => complain(error));
console.warn = complain;
console.error = complain;
for (const level of ["log", "info", "debug"]) {
  const write = console[level];
  console[level] = (...words) => (RETRY.test(words.join(" ")) ? complain(...words) : write(...words));
}
process.on("warning", (warning) => complain(warning));
process.on("unhandledRejection", (error) => complain("unhandled:", error));
process.on("uncaughtException", (error) => complain("uncaught:", error));

// Says what was seen, and fails when anything went wrong. A transport that names no statuses passes false.
export async function finish(requests = true) {
  // A last word of what runs beside.
  await new Promise((resolve) => setImmediate(resolve));
  const refused = statuses.filter((status) => status >= 400);
  process.stdout.write(JSON.stringify({ statuses, complaints }) + "\n");
  process.exit(refused.length || complaints.length || (requests && !statuses.length) ? 1 : 0);
}
