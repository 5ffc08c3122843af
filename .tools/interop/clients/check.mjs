// What the cases of the JavaScript clients share.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";

export const url = process.env.USERD_URL;
export const token = process.env.USERD_TOKEN ?? "";
export const authority = process.env.USERD_CA ? readFileSync(process.env.USERD_CA) : undefined;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** newUser returns the fields of a user that there is not yet. */
export function newUser(client) {
  const name = `${client} ${randomUUID().slice(0, 13)}`;
  return { username: name, email: `${name.replaceAll(" ", ".")}@example.org` };
}

/** within fails a promise that is not settled in time. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * run carries out the cases that the command line names, reports each in a line of JSON
 * with its error, and ends the program.
 */
export async function run(cases, after = async () => {}) {
  for (const name of process.argv.slice(2)) {
    const began = Date.now();
    let failure;
    try {
      if (!cases[name]) throw new assert.AssertionError({ message: `unknown case: expected one of ${Object.keys(cases).join(", ")}` });
      await cases[name]();
    } catch (error) {
      failure = error instanceof assert.AssertionError ? error.message : `${error?.stack ?? error}`;
    }
    console.log(JSON.stringify({ case: name, seconds: (Date.now() - began) / 1000, error: failure }));
  }
  await after();
  process.exit(0);
}
