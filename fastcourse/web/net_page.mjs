// The page of a small network: its layers as lines and as a table, letters that can be moved, weights that can be changed, training
import { Adam, outputs, softmax, train } from './net.mjs'

const $ = id => document.getElementById(id)
const korean = /^ko\b/.test(navigator.language)
const TEXTS = {
  table: ['What each layer gives', '각 층의 출력'], lines: ['The same as lines', '선으로 보기'], letters: ['The embedding: move a letter', '임베딩: 글자를 끌어 보세요'],
  howto: ['Drag a letter, or choose it with Tab and move it with the arrow keys.', '글자를 끌거나, Tab으로 고른 뒤 화살표 키로 옮기세요.'],
  weights: ['The weights: change a number', '가중치: 숫자를 바꿔 보세요'], train: ['Train 50 more epochs', '50 에포크 더 학습'], back: ['Back to the start', '처음으로'],
  loss: ['Loss', '손실'], epoch: ['epoch', '에포크'], input: ['input', '입력'], bias: ['bias', '편향'],
}
const text = key => TEXTS[key][korean ? 1 : 0]
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']   // Okabe and Ito's, legible on white

const about = JSON.parse($('about').textContent), copy = o => JSON.parse(JSON.stringify(o))
let layers = copy(about.layers), adam = new Adam(layers, about.adam), history = []

function put(parent, name, attributes = {}, ...children) {
  const svg = ['svg', 'line', 'polyline', 'circle', 'text', 'g', 'title'].includes(name)
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name)
  for (const [k, v] of Object.entries(attributes)) !svg && k in e ? e[k] = v : e.setAttribute(k, v)
  e.append(...children)
  parent?.append(e)
  return e
}

const plain = v => v.toFixed(Math.abs(v) >= 1000 ? 0 : 2).replace(/^-(0\.?0*)$/, '$1')

// Blocks of the table: each layer's outputs for the shown rows, and P where the loss is a softmax's
function blocks() {
  const outs = outputs(layers, about.rows).slice(1).map((m, l) => ({ name: about.layers[l].name, m }))
  if (about.loss === 'CrossEntropyLoss') outs.push({ name: 'P', m: outs.at(-1).m.map(softmax) })
  return outs
}

function drawTable(all) {
  const table = put(null, 'table'), head = put(table, 'tr'), units = put(table, 'tr')
  put(head, 'th', { scope: 'col', rowSpan: 2 }, text('input'))
  for (const { name, m } of all) {
    put(head, 'td', { className: 'gap' }), put(units, 'td', { className: 'gap' })
    put(head, 'th', { scope: 'colgroup', colSpan: m[0].length, style: 'text-align:center' }, name)
    m[0].forEach((_, k) => put(units, 'th', { scope: 'col' }, name === 'P' || name === all.at(-1).name || all.at(-2)?.name === name && all.at(-1).name === 'P' ? about.outputs[k] : `${k + 1}`))
  }
  const scales = all.map(({ m }) => Math.max(1e-9, ...m.flat().map(Math.abs)))
  about.labels.forEach((label, r) => {
    const row = put(table, 'tr')
    put(row, 'th', { scope: 'row' }, label)
    all.forEach(({ m }, b) => {
      put(row, 'td', { className: 'gap' })
      for (const v of m[r]) {
        const part = Math.min(1, Math.abs(v) / scales[b]), light = 97 - 42 * part
        put(row, 'td', { className: 'cell', style: `background:hsl(${v < 0 ? 210 : 20} 75% ${light}%);color:#111` }, plain(v))
      }
    })
  })
  $('table').replaceChildren(table)
}

function chart(width, height, low, high, n) {
  const svg = put(null, 'svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img' })
  const span = high - low || 1, left = 52, right = 96, top = 14, bottom = 26
  const x = k => left + (width - left - right) * (n < 2 ? .5 : k / (n - 1)), y = v => top + (height - top - bottom) * (high - v) / span
  put(svg, 'line', { x1: left, x2: width - right, y1: height - bottom, y2: height - bottom, stroke: '#555' })
  put(svg, 'line', { x1: left, x2: left, y1: top, y2: height - bottom, stroke: '#555' })
  for (const v of [low, high]) put(svg, 'text', { x: left - 5, y: y(v) + 4, 'text-anchor': 'end' }, plain(v))
  return { svg, x, y, width, height, right }
}

function drawLines(all) {
  $('lines').replaceChildren(...all.map(({ name, m }) => {
    const flat = m.flat(), c = chart(300, 190, Math.min(...flat, 0), Math.max(...flat, 0), m.length)
    c.svg.setAttribute('aria-label', `${name}: ${m[0].length}`)
    put(c.svg, 'text', { x: 60, y: 12, 'font-weight': 'bold' }, name)
    m[0].forEach((_, k) => {
      const colour = COLOURS[k % COLOURS.length]
      put(c.svg, 'polyline', { points: m.map((row, r) => `${c.x(r)},${c.y(row[k])}`).join(' '), fill: 'none', stroke: colour, 'stroke-width': 2 })
      const unit = m[0].length === about.outputs.length && (name === 'P' || name === about.layers.at(-1).name) ? about.outputs[k] : `${k + 1}`
      if (m[0].length <= 8) put(c.svg, 'text', { x: c.width - c.right + 6 + 30 * (k % 3), y: Math.min(c.height - 30, 24 + 16 * Math.floor(k / 3)), style: `fill:${colour};font-weight:bold` }, unit)
    })
    const every = Math.ceil(about.labels.length / 8)
    about.labels.forEach((label, r) => { if (r % every === 0) put(c.svg, 'text', { x: c.x(r), y: c.height - 8, 'text-anchor': 'middle' }, label.slice(0, 6)) })
    return c.svg
  }))
}

const hasPlane = about.layers[0].kind === 'Embedding' && about.layers[0].w[0].length <= 2 && about.layers[0].w.length <= 40

function drawLetters() {
  if (!hasPlane) return
  const w = layers[0].w, flat = w.flat(), reach = 1.15 * Math.max(1, ...flat.map(Math.abs)), line = w[0].length === 1
  const width = 520, height = line ? 120 : 420, x = v => width / 2 + v / reach * width / 2, y = v => line ? 60 : height / 2 - v / reach * height / 2
  const svg = put(null, 'svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': text('letters') })
  put(svg, 'line', { x1: 0, x2: width, y1: y(0), y2: y(0), stroke: '#bbb' })
  if (!line) put(svg, 'line', { x1: x(0), x2: x(0), y1: 0, y2: height, stroke: '#bbb' })
  const marks = w.map((row, code) => {
    const g = put(svg, 'g', { tabindex: 0, role: 'slider', 'aria-label': about.codes[code], 'aria-valuenow': plain(row[0]), 'aria-valuetext': row.map(plain).join(', ') })
    put(g, 'circle', { r: 15, fill: COLOURS[code % 6], 'fill-opacity': .25, stroke: COLOURS[code % 6] })
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
  const out = layers.flatMap(({ w, b }, l) => {
    if (!w || w.length * w[0].length > 400) return []
    const name = about.layers[l].name, rows = [...w, ...(b ? [b] : [])], table = put(null, 'table')
    put(table, 'caption', {}, name)
    rows.forEach((row, r) => {
      const tr = put(table, 'tr'), label = r === w.length ? text('bias') : layers[l].kind === 'Embedding' ? about.codes[r] : `${r + 1}`
      put(tr, 'th', { scope: 'row' }, label)
      row.forEach((v, k) => {
        const field = put(put(tr, 'td'), 'input', { type: 'number', step: 'any', value: +v.toFixed(4), 'aria-label': `${name} ${label} ${k + 1}`,
          onchange: () => { if (Number.isFinite(field.valueAsNumber)) { row[k] = field.valueAsNumber; drawOutputs(); drawLetters() } else field.value = +row[k].toFixed(4) } })
        field.dataset.at = `${l} ${r} ${k}`
      })
    })
    return [put(null, 'div', { className: 'scroll' }, table)]
  })
  $('weights').replaceChildren(...out)
  if (open) $('weights').querySelector(`[data-at="${open}"]`)?.focus()
}

function drawLoss() {
  const n = history.length
  $('lossnow').textContent = n ? `${text('epoch')} ${n}, ${text('loss')} ${history.at(-1).toFixed(4)}` : ''
  if (!n) return $('loss').replaceChildren()
  const c = chart(520, 170, 0, Math.max(...history), n), every = Math.ceil(n / 500)
  c.svg.setAttribute('aria-label', $('lossnow').textContent)
  put(c.svg, 'polyline', { points: history.map((v, k) => [v, k]).filter(([, k]) => k % every === 0).map(([v, k]) => `${c.x(k)},${c.y(v)}`).join(' '), fill: 'none', stroke: COLOURS[0], 'stroke-width': 2 })
  put(c.svg, 'text', { x: c.width - c.right, y: c.height - 8, 'text-anchor': 'end' }, `${text('epoch')} ${n}`)
  $('loss').replaceChildren(c.svg)
}

function drawOutputs() { const all = blocks(); drawTable(all); drawLines(all) }
function drawAll() { drawOutputs(); drawLetters(); drawWeights(); drawLoss() }

$('train').onclick = () => {
  $('train').disabled = true
  let left = 50
  const more = () => {
    const end = performance.now() + 20
    while (left > 0 && performance.now() < end) { history.push(...train(layers, about.x, about.y, about.loss, adam, 1)); left-- }
    drawOutputs(), drawLoss()
    if (left > 0) return requestAnimationFrame(more)
    drawAll()
    $('train').disabled = false
  }
  more()
}
$('back').onclick = () => { layers = copy(about.layers); adam = new Adam(layers, about.adam); history = []; drawAll() }
document.documentElement.lang = korean ? 'ko' : 'en'
for (const e of document.querySelectorAll('[data-text]')) e.prepend(text(e.dataset.text))
$('training').hidden = !about.x
$('plane').hidden = !hasPlane
drawAll()
