// The page of a language model: a prompt, words that come one by one, and for each the ten that could have stood there
import { Voice, goOn, onwards, pieces, read, twister, unpack } from './speak.mjs'

const $ = id => document.getElementById(id)
const korean = /^ko\b/.test(navigator.language)
const about = JSON.parse($('about').textContent), vocab = about.vocab
const TEXTS = {
  prompt: ['Go on from', '이어 쓸 글'], go: ['Go on', '이어 쓰기'], stop: ['Stop', '멈추기'], words: ['words', '단어 수'],
  temperature: ['temperature', '온도'], topk: ['top-k', 'top-k'], topp: ['top-p', 'top-p'], minp: ['min-p', 'min-p'], seed: ['seed', '시드'],
  settings: ['Temperature 0 always takes the likeliest word. With the same seed the same words come again.',
             '온도(temperature)가 0이면 항상 가장 그럴듯한 단어를 고릅니다. 시드가 같으면 같은 단어가 다시 나옵니다.'],
  hint: ['The more orange a word, the less sure the model was. Choose a word to see what could have stood there.',
         '주황색이 진할수록 모델이 자신 없던 단어입니다. 단어를 누르면 그 자리에 올 수 있었던 단어가 보입니다.'],
  instead: ['What could have stood here: choose a word to go on from it', '이 자리에 올 수 있었던 단어: 고르면 거기서 이어 씁니다'],
  close: ['Close', '닫기'], word: ['word', '단어'], p: ['probability', '확률'],
  empty: ['Write at least one word.', '단어를 하나 이상 쓰세요.'],
  long: ['Only the last 2,000 words of the text are read.', '글의 마지막 2,000 단어만 읽습니다.'],
  unknown: ['The model does not know these words and reads “xxunk” instead: ', '모델이 모르는 단어라서 “xxunk”로 읽습니다: '],
  wrong: ['This value makes no sense: ', '쓸 수 없는 값입니다: '],
  heading: ['A language model', '언어 모델'],
  facts: [`An AWD_LSTM with ${about.facts.weights} weights of ${about.facts.bits} bits and ${about.facts.words} words, made with fastcourse ${about.facts.version}. Nothing of what you write leaves this page.`,
          `AWD_LSTM, ${about.facts.bits}비트 가중치 ${about.facts.weights}개, 단어 ${about.facts.words}개. fastcourse ${about.facts.version}로 만들었습니다. 여기에 쓴 글은 이 페이지를 떠나지 않습니다.`],
}
const text = key => TEXTS[key][korean ? 1 : 0]

const voice = new Voice(unpack(about, $('weights').textContent.trim()))
const silent = new Set(about.silent)
let running = 0, steps = []

function put(parent, name, attributes = {}, ...children) {
  const e = document.createElement(name)
  for (const [k, v] of Object.entries(attributes)) k in e ? e[k] = v : e.setAttribute(k, v)
  e.append(...children)
  parent?.append(e)
  return e
}

function number(id, least, most, whole = false) {
  const field = $(id), value = field.value.trim()
  if (value === '') return null
  const n = Number(value)
  if (!Number.isFinite(n) || n < least || n > most || whole && !Number.isInteger(n)) {
    field.focus()
    throw new RangeError(text('wrong') + `${field.labels[0].textContent.trim()} = ${value} (${least} … ${most})`)
  }
  return n
}

const settings = () => ({ words: number('words', 1, 5000, true) ?? 50, temperature: number('temperature', 0, 1000) ?? 1,
  topK: number('topk', 1, vocab.length, true), topP: number('topp', 1e-9, 1), minP: number('minp', 1e-9, 1),
  seed: number('seed', 0, Number.MAX_SAFE_INTEGER, true) })

function tell(message) { $('message').textContent = message; $('message').hidden = !message }

// The words so far, as they read: a mark and its word are one button
function show(from = 0) {
  const box = $('said')
  if (!from) box.replaceChildren(put(null, 'span', {}, $('prompt').value.trim()))
  const last = () => box.children.length > 1 ? Number(box.lastElementChild.dataset.last) : -1
  while (last() >= from) box.lastElementChild.remove()
  const first = last() + 1
  let at = first
  for (const [word, taken] of pieces(steps.slice(first).map(s => vocab[s.word]))) {
    const p = steps.slice(at, at + taken).reduce((a, s) => a * s.p, 1)
    at += taken
    const place = put(box, 'span', {}, about.sep), mine = at - 1
    const b = put(place, 'button', { type: 'button', title: probability(p), onclick: () => choose(b, mine) }, word || '¶')
    b.style.setProperty('--doubt', `${Math.round(100 * (1 - p))}%`)
    b.setAttribute('aria-pressed', false)
    place.dataset.last = mine
  }
}

const probability = p => p < 0.00005 ? '< 0.0001' : p.toFixed(4)

function choose(button, at) {
  for (const b of $('said').querySelectorAll('[aria-pressed=true]')) b.setAttribute('aria-pressed', false)
  button.setAttribute('aria-pressed', true)
  const step = steps[at], panel = $('instead'), close = put(null, 'button', { type: 'button', onclick: () => shut(button) }, text('close'))
  panel.hidden = false
  panel.onkeydown = e => { if (e.key === 'Escape') shut(button) }
  panel.replaceChildren(put(null, 'h2', {}, put(null, 'span', { id: 'which' }, text('instead')), close))
  const table = put(panel, 'table')
  put(table, 'tr', {}, put(null, 'th', { scope: 'col' }, text('word')), put(null, 'th', { scope: 'col' }, text('p')), put(null, 'td'))
  for (const [i, p] of step.top) {
    const bar = put(null, 'span', { className: 'bar' })
    bar.style.width = `${100 * p}%`
    const word = put(null, 'button', { type: 'button', onclick: () => branch(at, i, p) }, i === step.word ? put(null, 'b', {}, vocab[i]) : vocab[i])
    put(table, 'tr', {}, put(null, 'td', {}, word), put(null, 'td', {}, probability(p)), put(null, 'td', {}, bar))
  }
  button.scrollIntoView({ block: 'nearest' })   // not behind the table
  table.querySelector('button').focus({ preventScroll: true })
}

function shut(button) {
  $('instead').hidden = true
  button.setAttribute('aria-pressed', false)
  button.focus()
}

function branch(at, word, p) {
  const how = ask()
  if (!how) return
  const step = steps[at]
  steps = [...steps.slice(0, at), { ...step, word, p }]
  voice.goTo(step.before)
  voice.hear(step.after)
  $('instead').hidden = true
  run(onwards(voice, word, silent, { ...how, uniform: how.seed === null ? Math.random : twister(how.seed) }), at)
  const place = [...$('said').children].find(o => o.dataset.last >= at)   // the button that had the focus has gone
  place?.querySelector('button').focus({ preventScroll: true })
}

function ask() {
  tell('')
  try { return settings() } catch (e) { tell(e.message); return null }
}

function begin() {
  const how = ask(), prompt = $('prompt').value
  if (!how) return
  if (!prompt.trim()) return tell(text('empty'))
  const { ids, unknown } = read(prompt.slice(-60000), about), most = 2000
  const notes = unknown.length ? [text('unknown') + unknown.slice(0, 5).join(', ') + (unknown.length > 5 ? ' …' : '')] : []
  if (ids.length > most || prompt.length > 60000) notes.push(text('long'))
  tell(notes.join(' '))
  steps = []
  $('instead').hidden = true
  run(goOn(voice, ids.length > most ? [ids[0], ...ids.slice(-most)] : ids, silent, how), 0)
}

// Some milliseconds of words, then the page again, so that words can be read and stopped as they come
function run(words, from) {
  const mine = ++running
  show(from)
  $('stop').disabled = false
  const more = () => {
    if (mine !== running) return
    const end = performance.now() + 24, first = steps.length
    let next
    do {
      next = words.next()
      if (next.value) steps.push(next.value)
    } while (!next.done && performance.now() < end)
    show(first || 1)
    if (next.done) halt()
    else requestAnimationFrame(more)
  }
  more()
}

function halt() { running++; $('stop').disabled = true }

document.documentElement.lang = korean ? 'ko' : 'en'
$('facts').textContent = text('facts')
if (!about.titled) document.querySelector('h1').textContent = document.title = text('heading')
for (const e of document.querySelectorAll('[data-text]')) e.prepend(text(e.dataset.text) + (e.tagName === 'LABEL' ? ' ' : ''))
$('ask').onsubmit = e => { e.preventDefault(); begin() }
$('prompt').onkeydown = e => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); begin() } }
$('stop').onclick = halt
