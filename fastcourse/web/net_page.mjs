// The page of a small network: its layers as lines and as a table, letters that can be moved, weights that can be changed, training
import { Adam, outputs, softmax, train } from './net.mjs'

const $ = id => document.getElementById(id)
const korean = /^ko\b/.test(navigator.language)
const about = JSON.parse($('about').textContent)
const TEXTS = {
  table: ['What each layer gives', '각 층의 출력'], lines: ['The same as lines', '선으로 보기'], letters: ['The embedding: move a letter', '임베딩: 글자를 끌어 보세요'],
  howto: ['Drag a letter, or choose it with Tab and move it with the arrow keys.', '글자를 끌거나, Tab으로 고른 뒤 화살표 키로 옮기세요.'],
  weights: ['The weights: change a number', '가중치: 숫자를 바꿔 보세요'], train: ['Train 50 more epochs', '50 에포크 더 학습'], back: ['Back to the start', '처음으로'],
  training: ['Training', '학습'], loss: ['loss', '손실'], epoch: ['epoch', '에포크'], input: ['input', '입력'], bias: ['bias', '편향'],
  cut: ['Layers with more outputs show the first 40.', '출력이 더 많은 층은 처음 40개만 보입니다.'],
  many: ['Layers with more than 400 weights are not listed: ', '가중치가 400개를 넘는 층은 싣지 않았습니다: '],
  untrained: ['Training goes on in Python only. A page trains with a plain loss, all weights, no dropout, and data that it can hold.',
              '학습은 파이썬에서만 이어 할 수 있습니다. 페이지는 기본 손실 함수를 쓰고, 고정한 가중치와 드롭아웃이 없고, 데이터가 작을 때만 학습합니다.'],
  diverged: ['The loss is no number any more: go back to the start.', '손실이 더는 숫자가 아닙니다. 처음으로 돌아가세요.'],
  heading: ['A network, taken apart', '신경망 들여다보기'],
  facts: [`A network with ${about.facts.weights} weights and ${about.facts.rows} rows of data, made with fastcourse ${about.facts.version}. Training is Adam, lr ${about.adam.lr}. Everything happens in this page.`,
          `가중치 ${about.facts.weights}개, 데이터 ${about.facts.rows}행의 신경망. fastcourse ${about.facts.version}로 만들었습니다. 학습은 Adam, lr ${about.adam.lr}. 모든 계산은 이 페이지 안에서 합니다.`],
}
const copy = o => JSON.parse(JSON.stringify(o))
const text = key => TEXTS[key][korean ? 1 : 0]
const colour = k => `var(--c${k % 7})`, MOST = 40   // outputs of a layer that are shown

let layers = copy(about.layers), adam = new Adam(layers, about.adam), history = [], left = 0   // epochs that are still to train

function put(parent, name, attributes = {}, ...children) {
  const svg = ['svg', 'line', 'polyline', 'circle', 'text', 'g', 'title'].includes(name)
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name)
  for (const [k, v] of Object.entries(attributes)) !svg && k in e ? e[k] = v : e.setAttribute(k, v)
  e.append(...children)
  parent?.append(e)
  return e
}

const finite = v => Number.isFinite(v) ? v : 0
const plain = v => v.toFixed(Math.abs(v) >= 1000 ? 0 : 2).replace(/^-(0\.?0*)$/, '$1')

// What is shown of each layer: its outputs for the shown rows, and P where the loss is a softmax's
function blocks() {
  const outs = outputs(layers, about.rows).slice(1).map((m, l) => ({ name: about.layers[l].name, m, units: m[0].map((_, k) => `${k + 1}`) }))
  if (about.loss === 'CrossEntropyLoss') outs.push({ name: 'P', m: outs.at(-1).m.map(softmax), units: about.outputs })
  const last = layers.findLastIndex(o => o.w)
  for (const b of outs.slice(last)) b.units = about.outputs
  return outs.map(({ name, m, units }) => ({ name, m: m.map(row => row.slice(0, MOST)), units: units.slice(0, MOST) }))
}

const largest = m => m.reduce((a, row) => row.reduce((b, v) => Math.max(b, Math.abs(v)), a), 1e-9)

function drawTable(all) {
  const table = put(null, 'table'), head = put(table, 'tr'), second = put(table, 'tr')
  put(head, 'th', { scope: 'col', rowSpan: 2 }, text('input'))
  for (const { name, m, units } of all) {
    put(head, 'td', { className: 'gap' }), put(second, 'td', { className: 'gap' })
    put(head, 'th', { scope: 'colgroup', colSpan: m[0].length, style: `text-align:${m[0].length > 8 ? 'left' : 'center'}` }, name)
    for (const unit of units) put(second, 'th', { scope: 'col' }, unit)
  }
  const scales = all.map(({ m }) => largest(m))
  about.labels.forEach((label, r) => {
    const row = put(table, 'tr')
    put(row, 'th', { scope: 'row' }, label)
    all.forEach(({ m }, b) => {
      put(row, 'td', { className: 'gap' })
      for (const v of m[r]) {
        const part = Math.round(100 * Math.abs(v) / scales[b]), sign = v < 0 ? 'minus' : 'plus'
        put(row, 'td', { className: 'cell', style: `background:color-mix(in srgb, var(--${sign}) ${part}%, transparent)` }, plain(v))
      }
    })
  })
  $('table').replaceChildren(table)
}

function chart(width, height, low, high, n, right = 20) {
  const svg = put(null, 'svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img' })
  const span = high - low || 1, left = 52, top = 18, bottom = 26
  const x = k => left + (width - left - right) * (n < 2 ? .5 : k / (n - 1)), y = v => top + (height - top - bottom) * (high - v) / span
  put(svg, 'line', { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, style: 'stroke:var(--line)' })
  put(svg, 'line', { x1: left, x2: left, y1: top, y2: height - bottom, style: 'stroke:var(--line)' })
  for (const v of low < high ? [low, high] : [low]) put(svg, 'text', { x: left - 5, y: y(v) + 4, 'text-anchor': 'end' }, plain(v))
  return { svg, x, y, width, height, right }
}

const polyline = (svg, points, k) => put(svg, 'polyline', { points: points.map(p => p.join()).join(' '), style: `fill:none;stroke:${colour(k)};stroke-width:2` })

function drawLines(all) {
  $('lines').replaceChildren(...all.map(({ name, m, units }) => {
    const low = m.reduce((a, row) => Math.min(a, ...row.map(finite)), 0), high = m.reduce((a, row) => Math.max(a, ...row.map(finite)), 0)
    const named = units.length <= 8, c = chart(300, 190, low, high, m.length, named ? 84 : 20)
    c.svg.setAttribute('aria-label', name)
    put(c.svg, 'text', { x: 58, y: 13, 'font-weight': 'bold' }, name)
    units.forEach((unit, k) => {
      polyline(c.svg, m.map((row, r) => [c.x(r), c.y(finite(row[k]))]), k)
      if (!named) return
      const x = c.width - c.right + 8, y = 20 + 17 * k
      put(c.svg, 'line', { x1: x, x2: x + 14, y1: y, y2: y, style: `stroke:${colour(k)};stroke-width:3` })
      put(c.svg, 'text', { x: x + 18, y: y + 4 }, unit.slice(0, 7))
    })
    const shown = about.labels.map(o => o.slice(0, 6)), room = 9 * Math.max(...shown.map(o => o.length)) + 6
    const every = Math.max(1, Math.ceil(shown.length * room / (c.x(shown.length - 1) - c.x(0) + room)))
    shown.forEach((label, r) => { if (r % every === 0) put(c.svg, 'text', { x: c.x(r), y: c.height - 8, 'text-anchor': 'middle' }, label) })
    return c.svg
  }))
}

const hasPlane = about.layers[0].kind === 'Embedding' && about.layers[0].w[0].length <= 2 && about.layers[0].w.length <= 40

function drawLetters() {
  if (!hasPlane) return
  const w = layers[0].w, flat = w.flat(), reach = 1.15 * Math.max(1, ...flat.map(Math.abs)), line = w[0].length === 1
  const width = 520, height = line ? 120 : 420, x = v => width / 2 + v / reach * width / 2, y = v => line ? 60 : height / 2 - v / reach * height / 2
  const svg = put(null, 'svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': text('letters') })
  put(svg, 'line', { x1: 0, x2: width, y1: y(0), y2: y(0), style: 'stroke:var(--grid)' })
  if (!line) put(svg, 'line', { x1: x(0), x2: x(0), y1: 0, y2: height, style: 'stroke:var(--grid)' })
  const marks = w.map((row, code) => {
    const g = put(svg, 'g', { tabindex: 0, role: 'slider', 'aria-label': about.codes[code], 'aria-valuenow': plain(row[0]), 'aria-valuetext': row.map(plain).join(', ') })
    put(g, 'circle', { r: 15, style: `fill:${colour(code)};fill-opacity:.25;stroke:${colour(code)}` })
    put(g, 'text', { 'text-anchor': 'middle', dy: 5, 'font-weight': 'bold' }, about.codes[code].slice(0, 4))
    const place = () => g.setAttribute('transform', `translate(${x(row[0])},${y(row[1] ?? 0)})`)
    const moved = () => {
      place()
      g.setAttribute('aria-valuenow', plain(row[0])), g.setAttribute('aria-valuetext', row.map(plain).join(', '))
      layers[0].w[code] = row
      drawOutputs(), drawWeights()
    }
    place()
    g.onpointerdown = e => {
      g.setPointerCapture(e.pointerId)
      g.onpointermove = m => {
        const p = new DOMPoint(m.clientX, m.clientY).matrixTransform(svg.getScreenCTM().inverse())
        row[0] = (p.x - width / 2) / (width / 2) * reach
        if (!line) row[1] = (height / 2 - p.y) / (height / 2) * reach
        moved()
      }
      e.preventDefault()
      g.focus()
    }
    g.onpointerup = () => { g.onpointermove = null }
    g.onkeydown = e => {
      const step = reach / (e.shiftKey ? 10 : 50), by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[e.key]
      if (!by) return
      e.preventDefault()
      row.forEach((_, k) => { row[k] += line ? by[0] || by[1] : by[k] })
      moved()
    }
    return g
  })
  $('letters').replaceChildren(svg)
  return marks
}

function drawWeights() {
  const open = document.activeElement?.dataset?.at
  const last = layers.findLastIndex(o => o.w), hidden = []
  const out = layers.flatMap(({ kind, w, b }, l) => {
    if (!w) return []
    const name = about.layers[l].name, table = put(null, 'table'), head = put(table, 'tr', {}, put(null, 'td'))
    if (w.length * w[0].length > 400) { hidden.push(name); return [] }
    put(table, 'caption', {}, name)
    const columns = w[0].map((_, k) => `${k + 1}`)
    for (const o of b ? [...columns, text('bias')] : columns) put(head, 'th', { scope: 'col' }, o)
    w.forEach((row, r) => {
      const label = kind === 'Embedding' ? about.codes[r] : l === last ? about.outputs[r] : `${r + 1}`
      const tr = put(table, 'tr', {}, put(null, 'th', { scope: 'row' }, label))
      const cell = (numbers, k, column) => {
        const field = put(put(tr, 'td'), 'input', { type: 'number', step: 'any', value: +numbers[k].toFixed(4), 'aria-label': `${name} ${label} ${column}`,
          onchange: () => { if (Math.abs(field.valueAsNumber) <= 1e6) { numbers[k] = field.valueAsNumber; drawOutputs(); drawLetters() } else field.value = +numbers[k].toFixed(4) } })
        field.dataset.at = `${l} ${r} ${column}`
      }
      columns.forEach((column, k) => cell(row, k, column))
      if (b) cell(b, r, text('bias'))
    })
    return [put(null, 'div', { className: 'scroll' }, table)]
  })
  if (hidden.length) out.push(put(null, 'p', { className: 'note' }, text('many') + hidden.join(', ')))
  $('weights').replaceChildren(...out)
  if (open) $('weights').querySelector(`[data-at="${open}"]`)?.focus()
}

function drawLoss() {
  const n = history.length
  $('lossnow').textContent = n ? `${text('epoch')} ${n}, ${text('loss')} ${history.at(-1).toFixed(4)}` : ''
  if (!n) return $('loss').replaceChildren()
  const c = chart(520, 170, 0, history.reduce((a, b) => Math.max(a, b)), n), every = Math.ceil(n / 500)
  c.svg.setAttribute('aria-label', $('lossnow').textContent)
  polyline(c.svg, history.map((v, k) => [c.x(k), c.y(v)]).filter((_, k) => k % every === 0), 0)
  put(c.svg, 'text', { x: c.width - c.right, y: c.height - 8, 'text-anchor': 'end' }, `${text('epoch')} ${n}`)
  $('loss').replaceChildren(c.svg)
}

function drawOutputs() { const all = blocks(); drawTable(all); drawLines(all) }
function drawAll() { drawOutputs(); drawLetters(); drawWeights(); drawLoss() }

$('train').onclick = () => {
  $('train').disabled = true
  left = 50
  let good = structuredClone(layers)   // weights whose loss was a number
  const more = () => {
    const end = performance.now() + 20
    for (; left > 0 && performance.now() < end; left--) {
      const before = structuredClone(layers), [loss] = train(layers, about.x, about.y, about.loss, adam, 1)
      if (!Number.isFinite(loss)) {
        layers = good
        adam = new Adam(layers, about.adam)
        left = -1
        break
      }
      good = before
      history.push(loss)
    }
    drawOutputs(), drawLoss()
    if (left > 0) return requestAnimationFrame(more)
    drawAll()
    if (left < 0) $('lossnow').textContent = text('diverged')
    $('train').disabled = false
  }
  more()
}
$('back').onclick = () => { layers = copy(about.layers); adam = new Adam(layers, about.adam); history = []; left = 0; drawAll() }
document.documentElement.lang = korean ? 'ko' : 'en'
for (const key of ['facts', 'cut', 'untrained']) $(key).textContent = text(key)
if (!about.titled) document.querySelector('h1').textContent = document.title = text('heading')
for (const e of document.querySelectorAll('[data-text]')) e.prepend(text(e.dataset.text))
$('training').hidden = !about.x
$('untrained').hidden = !!about.x
$('cut').hidden = !about.layers.some(({ kind, w }) => w && (kind === 'Embedding' ? w[0] : w).length > MOST)
$('plane').hidden = !hasPlane
drawAll()
