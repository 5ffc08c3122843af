// Runs the cases of page.mjs in headless Chromium, in a page of another origin than the
// server's: http://localhost with the port USERD_PAGE_PORT.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect, createServer as createTCPServer } from "node:net";
import { extname, normalize } from "node:path";
import puppeteer from "puppeteer-core";
import { run, token, url } from "./check.mjs";

const root = new URL("..", import.meta.url).pathname;

/** importMap names the modules of the packages that the page imports. */
function importMap() {
  const imports = { "grpc-web": "/node_modules/grpc-web/index.esm.js" };
  for (const name of ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"]) {
    const { exports } = JSON.parse(readFileSync(`${root}node_modules/${name}/package.json`, "utf8"));
    for (const [path, { import: file }] of Object.entries(exports)) {
      if (file) imports[name + path.slice(1)] = `/node_modules/${name}/${normalize(file)}`;
    }
  }
  return JSON.stringify({ imports });
}

const html = `<!doctype html><title>cases</title>
<script type="importmap">${importMap()}</script>
<script src="/node_modules/event-source-polyfill/src/eventsource.js"></script>
<script type="module">import * as cases from "/clients/page.mjs"; globalThis.cases = cases;</script>`;

/** site serves the page and the modules that it imports. */
function site() {
  return createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    try {
      if (path !== "/") {
        const file = await readFile(root + path);
        response.setHeader("content-type", extname(path).endsWith("js") ? "text/javascript" : "application/octet-stream");
        response.end(file);
        return;
      }
      response.setHeader("content-type", "text/html");
      response.end(html);
    } catch {
      response.writeHead(404).end();
    }
  });
}

/** listen resolves with the port of a server on the loopback interface. */
const listen = (server, port = 0) => new Promise((resolve, reject) => {
  server.on("error", reject);
  server.listen(port, "127.0.0.1", () => resolve(server.address().port));
});

/** cuttingProxy passes connections on to the server, and cuts them when it is told to. */
async function cuttingProxy() {
  const target = new URL(url);
  const open = new Set();
  const proxy = createTCPServer((socket) => {
    const upstream = connect(Number(target.port), target.hostname);
    for (const end of [socket, upstream]) {
      open.add(end);
      end.on("error", () => {}); // it was cut
      end.on("close", () => { open.delete(end); socket.destroy(); upstream.destroy(); });
    }
    socket.pipe(upstream).pipe(socket);
  });
  const port = await listen(proxy);
  return { url: `http://127.0.0.1:${port}`, cut: () => { for (const end of open) end.destroy(); } };
}

/** start starts what the cases share: the site, the proxy and the browser. */
async function start() {
  const [port, proxy, browser] = await Promise.all([
    listen(site(), Number(process.env.USERD_PAGE_PORT ?? 0)),
    cuttingProxy(),
    puppeteer.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true,
      args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--ignore-certificate-errors"],
    }),
  ]);
  return { port, proxy, browser };
}

let started;

async function inPage(name, ...more) {
  const { port, proxy, browser } = await (started ??= start());
  const page = await browser.newPage();
  const said = [];
  page.on("console", (line) => said.push(line.text()));
  await page.exposeFunction("cutConnections", proxy.cut);
  await page.goto(`http://localhost:${port}/`);
  await page.waitForFunction("globalThis.cases !== undefined", { timeout: 30_000 });
  const at = { url, token, cutting: proxy.url };
  const failure = await page.evaluate((name, at, more) =>
    globalThis.cases[name](at, ...more).then(() => null, (error) => `${error.stack ?? error}`), name, at, more);
  await page.close();
  if (failure !== null) assert.fail([failure, ...said].join("\n"));
}

await run({
  "connect-kinds": () => inPage("connectKinds"),
  "connect-error-item": () => inPage("connectErrorItem"),
  "connect-no-token": () => inPage("connectNoToken"),
  "google-kinds": () => inPage("googleKinds"),
  "google-no-token": () => inPage("googleNoToken"),
  "native-resume": () => inPage("resume", "native"),
  "native-foreign-epoch": () => inPage("foreignEpoch", "native"),
  "native-idle": () => inPage("idle", "native"),
  "polyfill-resume": () => inPage("resume", "polyfill"),
  "polyfill-foreign-epoch": () => inPage("foreignEpoch", "polyfill"),
  "polyfill-idle": () => inPage("idle", "polyfill"),
  rest: () => inPage("restFromPage"),
}, async () => (await started)?.browser.close());
