// Loaded with `node --import` before the suite's server and client. The suite itself stays untouched.
//
// - Its server listens on every interface: bind it to the loopback address instead.
// - Both processes end when the runner that holds their standard input goes away.
// - With OUTRIGGER_SUITE_RESULTS set to the suite's client/test.mjs, SIGTERM makes the client print
//   the results it has so far: the client has no time limit, and prints only when everything is over.

import net from 'node:net'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  const port = args[0]
  const isPort = typeof port === 'number' || (typeof port === 'string' && /^\d+$/.test(port))
  if (isPort && typeof args[1] !== 'string') args.splice(1, 0, '127.0.0.1')
  return listen.apply(this, args)
}

process.stdin.on('end', () => process.exit(3))
process.stdin.on('error', () => process.exit(3))
process.stdin.resume()
process.stdin.unref()

const results = process.env.OUTRIGGER_SUITE_RESULTS
if (results) {
  const { testResults } = await import(results)
  process.on('SIGTERM', () => {
    process.stdout.write(JSON.stringify(testResults) + '\n', () => process.exit(4))
  })
}
