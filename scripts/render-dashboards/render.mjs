// Draws dashboards as Grafana would, into PNG files: see README.md.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { build } from 'esbuild';

import { loadDashboard } from './prometheus.mjs';

const { values: options, positionals: files } = parseArgs({
  allowPositionals: true,
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
    out: { type: 'string', default: 'docs/images' },
    minutes: { type: 'string', default: '60' },
    to: { type: 'string' },
    'scrape-seconds': { type: 'string', default: '15' },
    var: { type: 'string', multiple: true, default: [] },
    width: { type: 'string', default: '1600' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
});
if (files.length === 0) {
  console.error('usage: node render.mjs [--prometheus URL] [--minutes N] [--var NAME=VALUE]... DASHBOARD.json...');
  process.exit(64);
}

const here = import.meta.dirname;
const work = mkdtempSync(join(tmpdir(), 'render-dashboards-'));
try {
  const script = await bundle();
  mkdirSync(options.out, { recursive: true });
  for (const file of files) {
    const dashboard = JSON.parse(readFileSync(file, 'utf8'));
    const data = await loadDashboard(dashboard, {
      prometheus: options.prometheus,
      to: options.to ? Number(options.to) : Math.floor(Date.now() / 1000),
      range: Number(options.minutes) * 60,
      scrape: Number(options['scrape-seconds']),
      width: Number(options.width),
      variables: Object.fromEntries(options.var.map((pair) => pair.split(/=(.*)/s).slice(0, 2))),
    });
    for (const problem of data.problems) {
      console.error(`${file}: ${problem}`);
    }
    const picture = join(options.out, `${basename(file, '.json')}.png`);
    screenshot(script, data, picture);
    console.log(`${picture}: ${Math.round(statSync(picture).size / 1000)} kB`);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}

// One script with the components, their styles and fonts.
async function bundle() {
  const outfile = join(work, 'page.js');
  const inlined = ['.ttf', '.svg', '.woff', '.woff2', '.png', '.gif'].map((ending) => [ending, 'dataurl']);
  await build({
    entryPoints: [join(here, 'page.jsx')],
    bundle: true,
    outfile,
    format: 'iife',
    jsx: 'automatic',
    minify: true,
    loader: Object.fromEntries(inlined),
    define: { global: 'window', 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  return outfile;
}

function screenshot(script, data, picture) {
  const page = join(work, 'page.html');
  const styles = readdirSync(work).includes('page.css') ? '<link rel="stylesheet" href="page.css">' : '';
  const json = JSON.stringify(data).replaceAll('<', '\\u003c');
  writeFileSync(
    page,
    `<!doctype html><meta charset="utf-8">${styles}<body><div id="root"></div>` +
      `<script>window.DASHBOARD = ${json};</script><script src="${basename(script)}"></script></body>`
  );
  const profile = mkdtempSync(join(work, 'profile-'));
  execFileSync(
    options.chromium,
    [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--hide-scrollbars',
      '--allow-file-access-from-files',
      '--enable-logging=stderr',
      `--user-data-dir=${profile}`,
      `--window-size=${options.width},${data.height}`,
      '--virtual-time-budget=20000',
      `--screenshot=${picture}`,
      `file://${page}`,
    ],
    { stdio: process.env.RENDER_DEBUG ? 'inherit' : 'ignore', timeout: 240_000 }
  );
}
