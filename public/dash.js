// The dashboard: what the admin API tells, with the few actions that hosts need. No build step, no dependencies.
const HOSTS_REFRESH_MS = 10_000
const HOSTS_SHOWN_MAX = 500
const KEY = 'relayered-admin-key'

const element = (id) => document.getElementById(id)
const say = (text) => { element('message').textContent = text }

async function call(method, path, body) {
  const headers = { authorization: `Bearer ${localStorage.getItem(KEY)}` }
  if (body) headers['content-type'] = 'application/json'
  const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body) })
  const json = await reply.json().catch(() => ({}))
  if (reply.status === 401) signOut('This key is not one of the relay\'s admin keys.')
  if (!reply.ok) throw new Error(json.message ?? json.error ?? `HTTP ${reply.status}`)
  return json
}

function signOut(reason) {
  localStorage.removeItem(KEY)
  document.querySelector('main').hidden = true
  say(reason)
}

function cell(row, value) {
  const td = row.insertCell()
  td.textContent = value ?? ''
  if (typeof value === 'number') { td.className = 'number'; td.textContent = value.toLocaleString('en') }
}

function action(row, label, run) {
  const button = document.createElement('button')
  button.textContent = label
  button.onclick = async () => {
    button.disabled = true
    try { await run(); say(`${label}: done`); await refresh() } catch (error) { say(`${label}: ${error.message}`) }
    button.disabled = false
  }
  row.lastElementChild.append(button)
}

function showHosts(hosts) {
  const filter = element('filter').value.trim().toLowerCase()
  const chosen = hosts.filter((host) => host.Host.includes(filter))
  element('count').textContent = `${Math.min(chosen.length, HOSTS_SHOWN_MAX)} of ${hosts.length}`
  element('hosts').replaceChildren()
  for (const host of chosen.slice(0, HOSTS_SHOWN_MAX)) {
    const row = element('hosts').insertRow()
    for (const value of [host.Host, host.Status, host.HasActiveConnection ? 'yes' : 'no', host.EventsSeenSinceStartup,
      host.Cursor, host.RepoCount, host.RepoLimit, host.LastError]) cell(row, value)
    row.insertCell()
    const query = `?host=${encodeURIComponent(host.Host)}`
    if (host.Blocked) action(row, 'Unblock', () => call('POST', `/admin/pds/unblock${query}`))
    else action(row, 'Block', () => confirm(`Block ${host.Host}?`) && call('POST', `/admin/pds/block${query}`))
    if (!host.HasActiveConnection && !host.Blocked) action(row, 'Connect', () => call('POST', '/admin/pds/requestCrawl', { hostname: host.Host }))
  }
}

function showConsumers(consumers) {
  element('consumers').replaceChildren()
  for (const consumer of consumers) {
    const row = element('consumers').insertRow()
    for (const value of [consumer.id, consumer.remote_addr, consumer.user_agent, consumer.events_consumed, consumer.connected_at]) cell(row, value)
  }
}

async function showHealth() {
  const reply = await fetch('/xrpc/_health').catch(() => undefined)
  element('health').textContent = reply?.ok ? 'healthy' : 'not healthy'
}

async function refresh() {
  await showHealth()
  if (!localStorage.getItem(KEY)) return say('Enter an admin key.')
  try {
    const [hosts, consumers] = await Promise.all([call('GET', '/admin/pds/list'), call('GET', '/admin/consumers/list')])
    showHosts(hosts)
    showConsumers(consumers)
    document.querySelector('main').hidden = false
  } catch (error) {
    say(error.message)
  }
}

element('login').onsubmit = (event) => {
  event.preventDefault()
  localStorage.setItem(KEY, element('key').value)
  element('key').value = ''
  say('')
  refresh()
}
element('forget').onclick = () => signOut('Key forgotten.')
element('filter').oninput = refresh
element('add').onsubmit = async (event) => {
  event.preventDefault()
  const hostname = element('hostname').value.trim()
  try {
    await call('POST', '/admin/pds/requestCrawl', { hostname })
    say(`${hostname}: subscribed`)
    element('hostname').value = ''
  } catch (error) {
    say(`${hostname}: ${error.message}`)
  }
  refresh()
}
refresh()
setInterval(refresh, HOSTS_REFRESH_MS)
