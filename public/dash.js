// The dashboard: what the admin API tells, with the few actions that operators need in a hurry. No build step, no dependencies.
const REFRESH_MS = 10_000
const STREAM_RETRY_MS = 5_000
const TYPING_MS = 300
const HOSTS_SHOWN_MAX = 500
const TAKEDOWNS_SHOWN_MAX = 100
const AUDIT_SHOWN_MAX = 50
const STATUSES = ['active', 'idle', 'offline', 'throttled', 'banned']
const KEY = 'relayered-admin-key'

const element = (id) => document.getElementById(id)
const say = (text) => { element('message').textContent = text }
let refusalsOf

// Without the browser's own credentials: it would ask for a password of its own where a key is wrong.
const send = (method, path, headers, body) => fetch(path, {
  method, body, credentials: 'omit', headers: { authorization: `Bearer ${localStorage.getItem(KEY)}`, ...headers },
})

async function call(method, path, body) {
  const reply = await send(method, path, body && { 'content-type': 'application/json' }, body && JSON.stringify(body))
  const json = await reply.json().catch(() => ({}))
  if (reply.status === 401) {
    signOut('This key is not one of the relay\'s admin keys.')
    throw new Error(element('message').textContent)
  }
  if (!reply.ok) throw new Error(json.message ?? json.error ?? `HTTP ${reply.status}`)
  return json
}

function signOut(reason) {
  localStorage.removeItem(KEY)
  document.querySelector('main').hidden = true
  element('alarm').hidden = true
  say(reason)
}

const shown = (value) => typeof value === 'number' ? value.toLocaleString('en') : String(value ?? '')

// A row of the values.
function addRow(id, values) {
  const row = element(id).insertRow()
  for (const value of values) {
    const td = row.insertCell()
    td.textContent = shown(value)
    if (typeof value === 'number') td.className = 'number'
  }
  return row
}

async function attempt(label, run) {
  try {
    await run()
    say(`${label}: done`)
  } catch (error) {
    return say(`${label}: ${error.message}`)
  }
  await refresh()
}

function action(row, label, run) {
  const button = document.createElement('button')
  button.type = 'button'
  button.textContent = label
  button.onclick = async () => {
    button.disabled = true
    await attempt(label, run)
    button.disabled = false
  }
  const actions = row.querySelector('.actions') ?? row.insertCell()
  actions.className = 'actions'
  actions.append(button)
}

function showAlarms(log, signatures) {
  const alarms = []
  if (!log.writable) alarms.push(`No events are taken from hosts: ${log.why ?? 'the event log can\'t be written'}.`)
  if (signatures.alarm) alarms.push(`Signatures are verified by ${signatures.in_use}: ${signatures.first_difference ?? 'the self-test failed'}`)
  if (log.segments_damaged) alarms.push(`${shown(log.segments_damaged)} damaged segments in the event log.`)
  element('alarm').hidden = alarms.length === 0
  element('alarm').textContent = alarms.join(' ')
}

function showNumbers(id, numbers) {
  element(id).replaceChildren()
  for (const [name, value] of Object.entries(numbers)) {
    const [group, term, detail] = ['div', 'dt', 'dd'].map((tag) => document.createElement(tag))
    term.textContent = name
    detail.textContent = shown(value ?? '–')
    group.append(term, detail)
    element(id).append(group)
  }
}

const showLog = (log, signatures) => showNumbers('log', {
  'Log, bytes': log.bytes, 'Free on its disk, bytes': log.free_bytes, Segments: log.segments, 'Erasures pending': log.erasures_pending,
  'Verified by': signatures.in_use,
})

function showStats(stats, before) {
  const seconds = before ? (stats.at - before.at) / 1000 : 0
  const rate = (name) => seconds > 0 ? Math.round((stats[name] - before[name]) / seconds) : undefined
  showNumbers('stats', {
    'Received a second': rate('events_received'), 'Forwarded a second': rate('events_forwarded'), 'Bytes in a second': rate('bytes_received'),
    'Bytes out a second': rate('bytes_sent'), 'Newest event': stats.newest_seq, 'Oldest event': stats.oldest_seq,
    Received: stats.events_received, Forwarded: stats.events_forwarded, Refused: stats.events_refused, Parked: stats.events_parked,
    'Accounts in memory': stats.accounts_loaded, Consumers: stats.consumers, 'Hosts connected': stats.hosts.connected,
    Idle: stats.hosts.idle, Offline: stats.hosts.offline, Throttled: stats.hosts.throttled, Banned: stats.hosts.banned,
  })
}

// The numbers of each second, for as long as the relay and the key last.
async function followStats() {
  const reply = await send('GET', '/admin/stats/stream')
  if (!reply.ok) return
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader()
  let [text, before] = ['']
  for (;;) {
    const { value, done } = await reader.read()
    if (done || !localStorage.getItem(KEY)) return reader.cancel()
    text += value
    const events = text.split('\n\n')
    text = events.pop()
    for (const event of events.filter((event) => event.startsWith('data:'))) {
      const stats = { ...JSON.parse(event.slice('data:'.length)), at: performance.now() }
      showStats(stats, before)
      before = stats
    }
  }
}

let following = false
async function keepFollowing() {
  if (following || !localStorage.getItem(KEY)) return
  following = true
  try { await followStats() } catch { /* The relay went; the next refresh says so. */ }
  setTimeout(() => { following = false }, STREAM_RETRY_MS)
}

function hostsPath() {
  const filter = element('filter').value.trim().toLowerCase()
  const query = new URLSearchParams({ limit: HOSTS_SHOWN_MAX + 1 })
  if (filter) query.set(STATUSES.includes(filter) ? 'status' : 'q', filter)
  return `/admin/pds/list?${query}`
}

function showHosts(chosen) {
  const more = chosen.length > HOSTS_SHOWN_MAX
  element('count').textContent = more ? `the first ${HOSTS_SHOWN_MAX}` : `${chosen.length}`
  element('hosts').replaceChildren()
  for (const host of chosen.slice(0, HOSTS_SHOWN_MAX)) {
    const slowed = host.SlowedBy && `slowed: ${host.SlowedBy}`
    const row = addRow('hosts', [host.Host, host.Status, [host.StatusReason, slowed].filter(Boolean).join('; '),
      host.StatusUntil ?? host.SlowedUntil, host.HasActiveConnection ? 'yes' : host.Phase, host.EventsSeenSinceStartup,
      host.EventsRefusedSinceStartup, host.Cursor, host.RepoCount, host.RepoLimit, host.LastError])
    const query = `?host=${encodeURIComponent(host.Host)}`
    action(row, 'Refusals', () => { refusalsOf = host.Host })
    if (host.Blocked) action(row, 'Unblock', () => call('POST', `/admin/pds/unblock${query}`))
    else action(row, 'Block', () => sure(`Block ${host.Host}?`, 'POST', `/admin/pds/block${query}`))
    if (!host.HasActiveConnection && !host.Blocked) action(row, 'Connect', () => call('POST', '/admin/pds/requestCrawl', { hostname: host.Host }))
  }
}

function sure(question, ...request) {
  if (!confirm(question)) throw new Error('not done')
  return call(...request)
}

async function showRefusals() {
  element('refused-host').textContent = refusalsOf ? `of ${refusalsOf}` : ''
  element('refusals').replaceChildren()
  if (!refusalsOf) return
  const host = await call('GET', `/admin/pds/get?host=${encodeURIComponent(refusalsOf)}`)
  element('refusals').replaceChildren()
  for (const refusal of host.Refusals) addRow('refusals', [refusal.at, refusal.reason, refusal.kind, refusal.did, refusal.seq])
}

function showConsumers(consumers) {
  element('consumers').replaceChildren()
  for (const consumer of consumers) {
    const row = addRow('consumers', [consumer.id, consumer.remote_addr, consumer.user_agent, consumer.lag,
      consumer.events_consumed, consumer.bytes_consumed, consumer.connected_at])
    action(row, 'Kick', () => sure(`Close the connection of consumer ${consumer.id}?`, 'POST', `/admin/consumers/kick?id=${consumer.id}`))
  }
}

function showTakedowns({ dids, cursor }) {
  element('takedowns').replaceChildren()
  for (const did of dids) action(addRow('takedowns', [did]), 'Reverse', () => call('POST', '/admin/repo/reverseTakedown', { did }))
  element('takedowns-more').textContent = cursor ? `The first ${dids.length}; relayered admin account list shows all.` : `${dids.length} in all`
}

function showSettings(settings) {
  element('settings').replaceChildren()
  for (const [name, value] of Object.entries(settings)) addRow('settings', [name, value])
  if (element('setting').options.length) return
  for (const name of Object.keys(settings)) element('setting').add(new Option(name))
}

function showAudit({ entries }) {
  element('audit').replaceChildren()
  for (const entry of entries) addRow('audit', [entry.at, entry.actor, entry.remote, entry.action, entry.subject || entry.detail, entry.outcome])
}

async function showHealth() {
  const reply = await fetch('/xrpc/_health').catch(() => undefined)
  element('health').textContent = reply?.ok ? 'healthy' : 'not healthy'
}

async function refresh() {
  await showHealth()
  if (!localStorage.getItem(KEY)) return say('Enter an admin key.')
  const paths = ['/admin/signatures', hostsPath(), '/admin/consumers/list',
    `/admin/repo/takedowns?size=${TAKEDOWNS_SHOWN_MAX}`, '/admin/settings', `/admin/audit?limit=${AUDIT_SHOWN_MAX}`]
  try {
    // Alone: a wrong key is looked at only so often.
    const log = await call('GET', '/admin/log')
    const [signatures, hosts, consumers, takedowns, settings, audit] = await Promise.all(paths.map((path) => call('GET', path)))
    showAlarms(log, signatures)
    showLog(log, signatures)
    showHosts(hosts)
    showConsumers(consumers)
    showTakedowns(takedowns)
    showSettings(settings)
    showAudit(audit)
    await showRefusals()
    document.querySelector('main').hidden = false
    keepFollowing()
  } catch (error) {
    say(error.message)
  }
}

function onSubmit(id, run) {
  element(id).onsubmit = (event) => {
    event.preventDefault()
    return run()
  }
}

onSubmit('login', () => {
  localStorage.setItem(KEY, element('key').value)
  element('key').value = ''
  say('')
  return refresh()
})
onSubmit('add', () => {
  const hostname = element('hostname').value.trim()
  return attempt(hostname, () => call('POST', '/admin/pds/requestCrawl', { hostname }))
})
onSubmit('takedown', () => {
  const did = element('did').value.trim()
  return attempt(did, () => sure(`Take down ${did}? Its older events are erased for good.`, 'POST', '/admin/repo/takeDown', { did }))
})
onSubmit('change', () => {
  const name = element('setting').value
  return attempt(name, () => call('POST', '/admin/settings', { [name]: element('value').value.trim() }))
})
element('forget').onclick = () => signOut('Key forgotten.')
let typing
element('filter').oninput = () => {
  clearTimeout(typing)
  typing = setTimeout(refresh, TYPING_MS)
}
refresh()
setInterval(refresh, REFRESH_MS)
