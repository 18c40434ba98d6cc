// A real consumer, npm @skyware/firehose: prints one JSON line for each event until it is killed.
// usage: node consume-skyware.mjs ws://127.0.0.1:2470 CURSOR
import { Firehose } from '@skyware/firehose'
import { WebSocket } from 'ws'
const [relay, cursor] = process.argv.slice(2)
const firehose = new Firehose({ relay, cursor, ws: WebSocket, autoReconnect: false })
for (const kind of ['commit', 'identity', 'account', 'sync']) {
  firehose.on(kind, (m) => console.log(JSON.stringify({ kind, seq: m.seq, did: m.repo ?? m.did, rev: m.rev, active: m.active, status: m.status })))
}
for (const kind of ['error', 'websocketError']) firehose.on(kind, (e) => console.error(kind, e))
firehose.start()
