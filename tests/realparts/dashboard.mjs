// The dashboard in a real browser: everything an operator can do there is done once.
//   node dashboard.mjs ORIGIN ADMIN_KEY HOST DID [SCREENSHOTS]
// HOST is a connected host, DID an account of it. Exits with 1, and says why, at the first thing that is not right.
import assert from 'node:assert/strict'
import { chromium } from 'playwright-core'

const [origin, key, host, did, screenshots] = process.argv.slice(2)
const NARROW = { width: 360, height: 740 }
const WIDE = { width: 1280, height: 900 }
const WAIT_MS = Number(process.env.RELAYERED_TEST_PATIENCE_MS ?? 30_000)

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
const page = await browser.newPage({ viewport: WIDE })
page.setDefaultTimeout(WAIT_MS)

// What a browser's console complains of, without the replies that are asked for here: a wrong key, a wrong value.
const complaints = []
page.on('console', (message) => {
  const expected = /status of (400|401)/.test(message.text())
  if (['error', 'warning'].includes(message.type()) && !expected) complaints.push(message.text())
})
page.on('pageerror', (error) => complaints.push(String(error)))
page.on('request', (request) => { if (!request.url().startsWith(origin) && !request.url().startsWith('data:')) complaints.push(request.url()) })

let answer = true
page.on('dialog', (dialog) => answer ? dialog.accept() : dialog.dismiss())

const rowOf = (table, text) => page.locator(`#${table} tr`, { hasText: text }).first()
const said = (text) => page.waitForFunction((text) => document.getElementById('message').textContent.includes(text), text)
const shot = (name) => screenshots && page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true })
async function number(term) {
  const text = await page.locator('dl div', { hasText: term }).first().locator('dd').textContent()
  return Number(text.replaceAll(',', ''))
}

async function signIn() {
  await page.goto(`${origin}/dash/`)
  await said('Enter an admin key')
  assert.equal(await page.locator('#health').textContent(), 'healthy')
  await page.fill('#key', 'wrong')
  await page.click('#login button')
  await said('not one of the relay')
  assert.equal(await page.locator('main').isVisible(), false)
  await page.fill('#key', key)
  await page.click('#login button')
  await page.locator('main').waitFor()
  assert.equal(await page.inputValue('#key'), '')
  // The key lasts over a reload.
  await page.reload()
  await page.locator('main').waitFor()
}

async function numbers() {
  await page.locator('#stats dd').first().waitFor()
  assert.ok(await number('Newest event') > 0 && await number('Hosts connected') > 0)
  assert.equal(await page.locator('#alarm').isVisible(), false)
  // They come by themselves, second by second.
  await page.waitForFunction(() => /^\d/.test(document.querySelector('#stats dd').textContent))
}

async function hosts() {
  await page.fill('#filter', 'no such host')
  await page.waitForFunction(() => document.getElementById('count').textContent === '0')
  await page.fill('#filter', 'active')
  await rowOf('hosts', host).waitFor()
  await page.fill('#filter', host)
  await page.waitForFunction(() => document.getElementById('count').textContent === '1')
  const button = (name) => rowOf('hosts', host).getByRole('button', { name, exact: true })
  answer = false
  await button('Block').click()
  await said('not done')
  answer = true
  await button('Block').click()
  await button('Unblock').click()
  await button('Block').waitFor()
  await button('Refusals').click()
  await page.locator('#refused-host', { hasText: host }).waitFor()
  await page.fill('#hostname', 'not a name')
  await page.click('#add button')
  await said('not a name: ')
  await page.fill('#hostname', host)
  await page.click('#add button')
  await said(`${host}: done`)
}

async function consumers() {
  const markup = await rowOf('consumers', '<img src=x').textContent()
  assert.ok(markup.includes('onerror'), 'what a consumer calls itself is text')
  await rowOf('consumers', '<img src=x').getByRole('button', { name: 'Kick' }).click()
  await page.waitForFunction(() => document.getElementById('consumers').rows.length === 0)
}

async function takedowns() {
  await page.fill('#did', did)
  await page.click('#takedown button')
  await rowOf('takedowns', did).waitFor()
  await rowOf('takedowns', did).getByRole('button', { name: 'Reverse' }).click()
  await page.waitForFunction(() => document.getElementById('takedowns').rows.length === 0)
}

async function settings() {
  await page.selectOption('#setting', 'new_hosts_per_day')
  await page.fill('#value', 'many')
  await page.click('#change button')
  await said('must be a number')
  await page.fill('#value', '123')
  await page.click('#change button')
  await said('new_hosts_per_day: done')
  // The table is fetched anew behind the answer.
  await rowOf('settings', 'new_hosts_per_day').filter({ hasText: '123' }).waitFor()
}

async function auditLog() {
  await page.reload()
  await rowOf('audit', did).waitFor()
  const text = await page.locator('#audit').textContent()
  for (const action of ['pds/block', 'pds/unblock', 'repo/takeDown', 'repo/reverseTakedown', 'consumers/kick', 'settings']) {
    assert.ok(text.includes(action), `${action} is in the audit log`)
  }
}

// On a telephone tables scroll within their sections, and nothing else does sideways.
async function narrow() {
  await shot('wide')
  await page.setViewportSize(NARROW)
  const width = await page.evaluate(() => document.documentElement.scrollWidth)
  assert.ok(width <= NARROW.width, `the page is ${width} wide`)
  const small = await page.locator('button:visible').evaluateAll((buttons) => buttons.filter((button) => button.getBoundingClientRect().height < 24).length)
  assert.equal(small, 0, 'buttons can be hit with a finger')
  await shot('narrow')
  await page.setViewportSize(WIDE)
}

async function forget() {
  await page.click('#forget')
  await said('Key forgotten')
  assert.equal(await page.locator('main').isVisible(), false)
  await page.reload()
  await said('Enter an admin key')
}

try {
  for (const step of [signIn, numbers, hosts, consumers, takedowns, settings, auditLog, narrow, forget]) {
    await step()
    console.log(`${step.name}: right`)
  }
  assert.deepEqual(complaints, [])
} catch (error) {
  console.error(error, complaints)
  await shot('failed')
  process.exitCode = 1
}
await browser.close()
