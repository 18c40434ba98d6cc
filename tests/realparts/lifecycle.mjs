// Drives real account life cycles: handle change, deactivate/activate, takedown/untakedown, migration A->B, PLC tombstone, delete.
// usage: node lifecycle.mjs plcUrl pdsA pdsB rotationKeyHexA
import { createRequire } from 'node:module'; import path from 'node:path'; import fs from 'node:fs'; import { pathToFileURL } from 'node:url'
const NM = process.env.NM
const req = createRequire(path.join(NM, 'package.json'))
const esm = (name) => { const dir = path.join(NM, 'node_modules', name); const pj = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'))); return import(pathToFileURL(path.join(dir, pj.exports?.['.']?.default || pj.main)).href) }
const [plcUrl, A, B, rotHex] = process.argv.slice(2)
const { Secp256k1Keypair } = await esm('@atproto/crypto')
const { Client: PlcClient } = req('@did-plc/lib')
const admin = 'Basic ' + Buffer.from('admin:admin-pass').toString('base64')
async function call(base, nsid, { body, query, token, auth, bytes, raw } = {}) {
  const u = new URL(`/xrpc/${nsid}`, base); for (const [k, v] of Object.entries(query || {})) u.searchParams.set(k, v)
  const headers = {}; if (body) headers['content-type'] = 'application/json'; if (bytes) headers['content-type'] = 'application/vnd.ipld.car'
  if (token) headers.authorization = `Bearer ${token}`; if (auth) headers.authorization = auth
  const r = await fetch(u, { method: body || bytes ? 'POST' : (nsid.match(/activateAccount|deactivateAccount$/) ? 'POST' : 'GET'), headers, body: bytes || (body && JSON.stringify(body)) })
  if (raw) return Buffer.from(await r.arrayBuffer())
  const t = await r.text(); if (!r.ok) throw new Error(`${nsid} ${r.status} ${t}`); try { return JSON.parse(t) } catch { return t }
}
const step = (s, x) => console.log('STEP', s, x === undefined ? '' : JSON.stringify(x))
// Waits for a line from the test, which has seen what it was waiting for.
const lines = (await import('node:readline')).createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const barrier = async (name) => { step('barrier', name); await lines.next() }
const rnd = Math.random().toString(36).slice(2, 7)
const acc = await call(A, 'com.atproto.server.createAccount', { body: { handle: `carol${rnd}.test`, email: `carol${rnd}@example.com`, password: 'pw' } })
const did = acc.did, token = acc.accessJwt
const post = (tok, base, text) => call(base, 'com.atproto.repo.createRecord', { token: tok, body: { repo: did, collection: 'app.bsky.feed.post', record: { $type: 'app.bsky.feed.post', text, createdAt: new Date().toISOString() } } })
step('created', { did }); for (let i = 0; i < 3; i++) await post(token, A, 'p' + i)
await call(A, 'com.atproto.identity.updateHandle', { token, body: { handle: `carolx${rnd}.test` } }); step('handle changed')
await call(A, 'com.atproto.server.deactivateAccount', { token, body: {} }); step('deactivated', await call(A, 'com.atproto.sync.getRepoStatus', { query: { did } }))
await call(A, 'com.atproto.server.activateAccount', { token }); step('activated')
const td = (applied) => call(A, 'com.atproto.admin.updateSubjectStatus', { auth: admin, body: { subject: { $type: 'com.atproto.admin.defs#repoRef', did }, takedown: applied ? { applied: true, ref: 'x' } : { applied: false } } })
await td(true); step('takendown', await call(A, 'com.atproto.sync.getRepoStatus', { query: { did } })); await td(false); step('untakedown')
// migration A -> B: a relay that is still at the events before it would find the new document too early
await barrier('migrate')
const dsB = await call(B, 'com.atproto.server.describeServer')
const sa = await call(A, 'com.atproto.server.getServiceAuth', { token, query: { aud: dsB.did, lxm: 'com.atproto.server.createAccount' } })
const accB = await call(B, 'com.atproto.server.createAccount', { auth: `Bearer ${sa.token}`, body: { did, handle: `carolb${rnd}.test`, email: `carolb${rnd}@example.com`, password: 'pw' } })
const tokB = accB.accessJwt
const car = await call(A, 'com.atproto.sync.getRepo', { query: { did }, raw: true })
await call(B, 'com.atproto.repo.importRepo', { token: tokB, bytes: car }); step('imported on B', { bytes: car.length })
const rec = await call(B, 'com.atproto.identity.getRecommendedDidCredentials', { token: tokB })
const rot = await Secp256k1Keypair.import(rotHex)
const plc = new PlcClient(plcUrl)
await plc.updateData(did, rot, (d) => ({ ...d, ...(rec.rotationKeys ? { rotationKeys: [...new Set([rot.did(), ...rec.rotationKeys])] } : {}), verificationMethods: rec.verificationMethods, services: rec.services, alsoKnownAs: rec.alsoKnownAs }))
step('plc updated')
await call(B, 'com.atproto.server.activateAccount', { token: tokB }); step('active on B')
// Hosts are not ordered among each other: A's goodbye must come after B's welcome.
await barrier('leave A')
await call(A, 'com.atproto.server.deactivateAccount', { token, body: {} }); step('deactivated on A')
await post(tokB, B, 'from B'); step('posted on B', await call(B, 'com.atproto.sync.getLatestCommit', { query: { did } }))
// The real PDS takes an account's earlier events out of its stream when it is deleted.
await barrier('delete')
await call(B, 'com.atproto.admin.deleteAccount', { auth: admin, body: { did } }); step('deleted on B')
try { step('status after delete', await call(B, 'com.atproto.sync.getRepoStatus', { query: { did } })) } catch (e) { step('status after delete', e.message) }
await plc.tombstone(did, rot); const r = await fetch(`${plcUrl}/${did}`); step('tombstone resolve', { status: r.status, body: await r.text() })
process.exit(0)
