// A real consumer, npm @atcute/firehose: prints one JSON line for each event until it is killed.
// usage: node consume-atcute.mjs ws://127.0.0.1:2470 CURSOR
import { FirehoseSubscription } from '@atcute/firehose'
import { WebSocket as WS } from 'ws'
globalThis.WebSocket ??= WS
const [service, cursor] = process.argv.slice(2)
const subscription = new FirehoseSubscription({
  service,
  nsid: { nsid: 'com.atproto.sync.subscribeRepos', message: null },
  params: { cursor: Number(cursor) },
  validateEvents: false,
  onConnectionError(error) { console.error('connection error', error?.message) },
  onError(error) { console.error('error', error) },
})
for await (const message of subscription) {
  const kind = message.$type.split('#').pop()
  console.log(JSON.stringify({ kind, seq: message.seq, did: message.repo ?? message.did, rev: message.rev, active: message.active, status: message.status }))
}
