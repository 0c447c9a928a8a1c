// Runs the public HTTP cache test suite (npm package `http-cache-tests`) against a reverse proxy
// whose upstream is 127.0.0.1:<origin-port>, and writes the judged results as JSON.
//
//   node run.mjs --suite DIR --proxy-url http://127.0.0.1:8080 --origin-port 8000 --out results.json
//                [--timeout 180] [--id TEST-ID] [--watch-stdin]
//
// --suite        the package's directory, one it was installed into with `npm install --prefix`, or a checkout of
//                the suite's repository with its packages installed
// --timeout      seconds; tests that have no result by then are reported as "timeout"
// --id           run one test and print what client and origin saw (nothing is judged but that test, no file)
// --watch-stdin  end when standard input is closed (for a parent process that may be killed)
//
// Exit status: 0 the suite ran to its end (whatever the results), 1 it did not, 2 bad arguments.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const here = path.dirname(fileURLToPath(import.meta.url))
const preload = pathToFileURL(path.join(here, 'preload.mjs')).href

function parse () {
  const { values } = parseArgs({
    options: {
      suite: { type: 'string' },
      'proxy-url': { type: 'string' },
      'origin-port': { type: 'string' },
      out: { type: 'string' },
      timeout: { type: 'string', default: '180' },
      id: { type: 'string', default: '' },
      'watch-stdin': { type: 'boolean', default: false }
    }
  })
  for (const name of ['suite', 'proxy-url', 'origin-port', ...(values.id ? [] : ['out'])]) {
    if (!values[name]) throw new Error(`--${name} is missing`)
  }
  const installed = path.join(values.suite, 'node_modules', 'http-cache-tests')
  const root = path.resolve(fs.existsSync(installed) ? installed : values.suite)
  // The repository's edition keeps its programs in a folder of their own.
  const inFolder = fs.existsSync(path.join(root, 'test-engine', 'cli.mjs'))
  const dir = inFolder ? path.join(root, 'test-engine') : root
  if (!fs.existsSync(path.join(dir, 'cli.mjs'))) throw new Error(`no http-cache-tests in ${values.suite}`)
  const timeout = Number(values.timeout)
  if (!(timeout > 0)) throw new Error('--timeout is not a number of seconds')
  return {
    root,
    dir,
    inFolder,
    proxyUrl: values['proxy-url'].replace(/\/+$/, ''),
    originPort: values['origin-port'],
    out: values.out,
    timeout: timeout * 1000,
    id: values.id,
    watchStdin: values['watch-stdin']
  }
}

const children = new Set()

function start (args, script, env) {
  const inherited = Object.entries(process.env)
    .filter(([name]) => !/^npm_/i.test(name) && name !== 'NODE_OPTIONS')
  const child = spawn(process.execPath, ['--no-warnings', '--import', preload, script], {
    cwd: args.dir,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['pipe', 'pipe', 'pipe']
  })
  child.stdin.on('error', () => {})
  child.output = { out: '', err: '' }
  for (const [stream, key] of [[child.stdout, 'out'], [child.stderr, 'err']]) {
    stream.setEncoding('utf8')
    stream.on('data', text => {
      child.output[key] += text
      if (args.id) process.stdout.write(text)
    })
  }
  children.add(child)
  child.ended = new Promise(resolve => {
    child.on('error', error => { children.delete(child); resolve({ error }) })
    child.on('close', (code, signal) => { children.delete(child); resolve({ code, signal }) })
  })
  return child
}

function stopAll (signal = 'SIGKILL') {
  for (const child of children) child.kill(signal)
}

function after (ms, value) {
  return new Promise(resolve => setTimeout(resolve, ms, value).unref())
}

async function startOrigin (args, tmp) {
  const origin = start(args, 'server/server.mjs', {
    npm_config_protocol: 'http',
    npm_config_port: args.originPort,
    npm_config_pidfile: path.join(tmp, 'server.pid')
  })
  const listening = new Promise(resolve => {
    origin.stdout.on('data', () => {
      if (origin.output.out.includes('Listening on')) resolve('listening')
    })
  })
  const state = await Promise.race([listening, origin.ended, after(10000, 'late')])
  if (state !== 'listening') {
    throw new Error(`the suite's origin server did not start on port ${args.originPort}: ${origin.output.err.trim()}`)
  }
}

async function runClient (args) {
  const client = start(args, 'cli.mjs', {
    npm_config_base: args.proxyUrl,
    npm_config_id: args.id,
    npm_package_config_id: args.id,
    OUTRIGGER_SUITE_RESULTS: pathToFileURL(path.join(args.dir, args.inFolder ? 'client/runner.mjs' : 'client/test.mjs')).href
  })
  let timedOut = false
  let ended = await Promise.race([client.ended, after(args.timeout, null)])
  if (ended === null) {
    timedOut = true
    client.kill('SIGTERM')
    ended = await Promise.race([client.ended, after(5000, null)])
  }
  if (args.id) return { timedOut, raw: {} }
  const begin = client.output.out.indexOf('{')
  if (begin < 0) {
    throw new Error(`the suite's client printed no results (${JSON.stringify(ended)}): ${client.output.err.trim()}`)
  }
  return { timedOut, raw: JSON.parse(client.output.out.slice(begin)) }
}

// The symbols of the suite's own judgement. "Y" and "N" are the answers of tests of kind "check".
const classes = {
  '✅': ['pass', 'pass'],
  '⛔️': ['fail', 'fail'],
  '⚠️': ['fail', 'fail'],
  Y: ['yes', 'pass'],
  N: ['no', 'fail'],
  '🔹': ['setup-fail', 'setup'],
  '↻': ['retry', 'setup'],
  '⁉️': ['harness-fail', 'setup'],
  '-': ['timeout', 'setup'],
  '⚪️': ['dependency', 'dependency']
}

async function judge (args, { raw, timedOut }) {
  const load = (folder, file) => import(pathToFileURL(path.join(folder, file)).href)
  const { determineTestResult } = await load(args.dir, args.inFolder ? 'lib/results.mjs' : 'lib/display.mjs')
  const suites = [...(await load(args.root, 'tests/index.mjs')).default]
  if (!args.inFolder) suites.push((await load(args.root, 'tests/surrogate-control.mjs')).default)
  const counts = () => ({ pass: 0, fail: 0, setup: 0, dependency: 0, total: 0 })
  const report = {
    suite: JSON.parse(fs.readFileSync(path.join(args.root, 'package.json'), 'utf8')).version,
    timed_out: timedOut,
    required: counts(),
    optimal: counts(),
    check: counts(),
    tests: {},
    kinds: {},
    details: {}
  }
  for (const suite of suites) {
    for (const test of suite.tests) {
      if (test.browser_only === true) continue
      const kind = test.kind ?? 'required'
      const symbol = determineTestResult(suites, test.id, raw)[2]
      if (!(symbol in classes)) throw new Error(`unknown judgement ${symbol} of ${test.id}`)
      const [name, column] = classes[symbol]
      report[kind][column]++
      report[kind].total++
      report.tests[test.id] = name
      report.kinds[test.id] = kind
      if (Array.isArray(raw[test.id])) report.details[test.id] = raw[test.id].join(': ')
    }
  }
  return report
}

function summary (report) {
  const part = kind => {
    const c = report[kind]
    const words = kind === 'check' ? ['yes', 'no'] : ['pass', 'fail']
    return `${kind} ${c.pass}/${c.total} ${words[0]} (${c.fail} ${words[1]}, ${c.setup} setup, ${c.dependency} dependency)`
  }
  const late = report.timed_out ? '; TIMED OUT' : ''
  return `http-cache-tests ${report.suite}: ${['required', 'optimal', 'check'].map(part).join('; ')}${late}`
}

async function main () {
  let args
  try {
    args = parse()
  } catch (error) {
    console.error(`run.mjs: ${error.message}`)
    return 2
  }
  if (args.watchStdin) {
    process.stdin.on('end', () => { stopAll(); process.exit(1) })
    process.stdin.resume()
    process.stdin.unref()
  }
  const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'outrigger-conformance-'))
  const clean = () => { stopAll(); fs.rmSync(tmp, { recursive: true, force: true }) }
  process.on('exit', clean)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))
  try {
    await startOrigin(args, tmp)
    const outcome = await runClient(args)
    if (args.id) return outcome.timedOut ? 1 : 0
    const report = await judge(args, outcome)
    fs.writeFileSync(args.out, JSON.stringify(report, null, 1) + '\n')
    console.log(summary(report))
    return outcome.timedOut ? 1 : 0
  } catch (error) {
    console.error(`run.mjs: ${error.message}`)
    return 1
  }
}

process.exit(await main())
