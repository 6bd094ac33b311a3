// A word-level AWD LSTM speaks. This file knows nothing of the page; tests/web/speak.test.mjs runs it in node.

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64)   // browsers since 2025
  const text = atob(base64), res = new Uint8Array(text.length)
  for (let i = 0; i < res.length; i++) res[i] = text.charCodeAt(i)
  return res
}

function half(h) {
  const sign = h & 0x8000 ? -1 : 1, exponent = h >> 10 & 31, fraction = h & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (exponent < 31 ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction ? NaN : Infinity)
}

// Tensors by name, each {shape, data: Float32Array}. `about.tensors` tells name, shape and, for int8, the scale of each row.
export function unpack(about, base64) {
  const bytes = bytesOf(base64), res = {}, halves = Float32Array.from({ length: 65536 }, (_, h) => half(h))
  let at = 0
  for (const { name, shape, scales } of about.tensors) {
    const n = shape.reduce((a, b) => a * b, 1), size = scales ? n : 2 * n, part = bytes.buffer.slice(at, at + size)
    const data = new Float32Array(n)
    if (scales) {
      const q = new Int8Array(part), width = n / shape[0]
      for (let r = 0, i = 0; r < shape[0]; r++) for (let k = 0; k < width; k++, i++) data[i] = q[i] * scales[r]
    } else {
      const h = new Uint16Array(part)
      for (let i = 0; i < n; i++) data[i] = halves[h[i]]
    }
    at += size
    res[name] = { shape, data }
  }
  return res
}

const sigmoid = x => 1 / (1 + Math.exp(-x))

// out[r] = bias[r] + row r of w (rows, width) times x. Four rows at once: each entry of x is read once for them, and no sum waits
// for its own last addition
function product(w, width, x, bias, out) {
  const rows = out.length, whole = rows - rows % 4
  let r = 0, k = 0
  for (; r < whole; r += 4, k += 3 * width) {
    let a = 0, b = 0, c = 0, d = 0
    for (let j = 0; j < width; j++, k++) {
      const v = x[j]
      a += w[k] * v
      b += w[k + width] * v
      c += w[k + 2 * width] * v
      d += w[k + 3 * width] * v
    }
    out[r] = a
    out[r + 1] = b
    out[r + 2] = c
    out[r + 3] = d
  }
  for (; r < rows; r++) {
    let a = 0
    for (let j = 0; j < width; j++, k++) a += w[k] * x[j]
    out[r] = a
  }
  if (bias) for (r = 0; r < rows; r++) out[r] += bias[r]
}

// An AWD LSTM that has read some words. `hear(word)` reads one more, `step(word)` also gives the scores of the next.
export class Voice {
  constructor(tensors) {
    const rnn = (l, name) => tensors[`0.rnns.${l}.${name}`]
    this.emb = tensors['0.encoder.weight']
    this.out = tensors['1.decoder.weight'] ?? this.emb
    this.bias = tensors['1.decoder.bias']?.data
    this.layers = []
    for (let l = 0; rnn(l, 'weight_hh_l0_raw'); l++) {
      const hh = rnn(l, 'weight_hh_l0_raw'), ih = rnn(l, 'module.weight_ih_l0'), size = hh.shape[1]
      const bias = rnn(l, 'module.bias_ih_l0').data.map((b, i) => b + rnn(l, 'module.bias_hh_l0').data[i])
      this.layers.push({ ih, hh, bias, size, h: new Float64Array(size), c: new Float64Array(size),
                         fromX: new Float32Array(4 * size), fromH: new Float32Array(4 * size) })
    }
  }

  hear(word) {
    const width = this.emb.shape[1]
    let x = new Float64Array(this.emb.data.subarray(word * width, (word + 1) * width))   // the engine computes with 64 bits
    for (const { ih, hh, bias, size, h, c, fromX, fromH } of this.layers) {
      product(ih.data, ih.shape[1], x, bias, fromX)
      product(hh.data, size, h, null, fromH)
      for (let k = 0; k < size; k++) {   // torch's order of the gates is i, f, g, o
        const gate = n => fromX[n * size + k] + fromH[n * size + k]
        c[k] = sigmoid(gate(1)) * c[k] + sigmoid(gate(0)) * Math.tanh(gate(2))
        h[k] = sigmoid(gate(3)) * Math.tanh(c[k])
      }
      x = h
    }
    return x
  }

  step(word) {
    const x = this.hear(word), scores = new Float32Array(this.out.shape[0])
    product(this.out.data, this.out.shape[1], x, this.bias, scores)
    return scores
  }

  state() { return this.layers.map(({ h, c }) => [h.slice(), c.slice()]) }
  goTo(state) { this.layers.forEach((layer, l) => { layer.h.set(state[l][0]); layer.c.set(state[l][1]) }) }
  forget() { for (const { h, c } of this.layers) { h.fill(0); c.fill(0) } }
}

// The likeliest has 1, the others how many times as likely they are
function likelihoods(scores, temperature) {
  const res = new Float64Array(scores.length)
  let top = -Infinity
  for (let i = 0; i < res.length; i++) if (scores[i] > top) top = scores[i]
  for (let i = 0; i < res.length; i++) res[i] = Math.exp((scores[i] - top) / temperature)
  return res
}

export function softmax(scores, temperature = 1) {
  const res = likelihoods(scores, temperature), sum = res.reduce((a, b) => a + b, 0)
  for (let i = 0; i < res.length; i++) res[i] /= sum
  return res
}

// The numbers of the k largest (k is small), the largest first; of equal ones the lower number first
export function likeliest(values, k) {
  const res = []
  for (let i = 0; i < values.length; i++) {
    if (res.length === k && !(values[i] > values[res.at(-1)])) continue
    let place = res.length
    while (place && values[i] > values[res[place - 1]]) place--
    res.splice(place, 0, i)
    if (res.length > k) res.pop()
  }
  return res
}

// Makes all but the n largest zero; of equal ones the lower numbers stay
function keepLargest(values, n) {
  if (n >= values.length) return
  const least = values.slice().sort().at(-n)
  let room = n - values.reduce((a, v) => a + (v > least), 0)
  values.forEach((v, i) => { if (v < least || v === least && room-- <= 0) values[i] = 0 })
}

// What temperature and filters leave of the words, as in fastcourse's generate: (words,), not normalised
export function filtered(scores, { temperature = 1, topK = null, topP = null, minP = null } = {}) {
  const res = likelihoods(scores, temperature)
  if (topK !== null) keepLargest(res, topK)
  if (topP !== null && topP < 1) {
    const sorted = res.slice().sort().reverse(), sum = sorted.reduce((a, b) => a + b, 0)
    let n = 0   // words that are needed; the first always is
    for (let before = 0; n < sorted.length && (n === 0 || before < topP); n++) before += sorted[n] / sum
    keepLargest(res, n)
  }
  return minP === null ? res : res.map(v => v < minP ? 0 : v)
}

// Numbers in [0, 1): the Mersenne Twister of numpy and torch, so that one seed gives the same words here and in Python
export function twister(seed) {
  const mt = new Uint32Array(624)
  mt[0] = Number(BigInt(seed) & 0xffffffffn)
  for (let i = 1; i < 624; i++) mt[i] = Math.imul(1812433253, mt[i - 1] ^ mt[i - 1] >>> 30) + i
  let at = 624
  const next = () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = mt[i] & 0x80000000 | mt[(i + 1) % 624] & 0x7fffffff
        mt[i] = mt[(i + 397) % 624] ^ y >>> 1 ^ (y & 1 ? 0x9908b0df : 0)
      }
      at = 0
    }
    let y = mt[at++]
    y ^= y >>> 11
    y ^= y << 7 & 0x9d2c5680
    y ^= y << 15 & 0xefc60000
    return (y ^ y >>> 18) >>> 0
  }
  return () => {
    const high = next(), low = next()
    return ((high & 0x1fffff) * 2 ** 32 + low) * 2 ** -53
  }
}

export function draw(weights, u) {
  const sum = weights.reduce((a, b) => a + b, 0)
  for (let i = 0, sofar = 0; i < weights.length; i++) {
    sofar += weights[i]
    if (u * sum < sofar) return i
  }
  return likeliest(weights, 1)[0]
}

// fastai's rules for a text, by its names: repetitions and capitals become marks. The names of characters (&amp;) stay.
const W = '[\\p{L}\\p{M}\\p{N}_]'
const marking = (mark, pattern) => text => text.replace(pattern, (_, space, word) => space + (word.length > 1 ? `${mark} ` : '') + word.toLowerCase())
const RULES = {
  fix_html: text => text.replaceAll('...', ' …'),
  replace_rep: text => text.replace(/(\S)(\1{2,})/gu, (all, c) => ` xxrep ${all.length / c.length} ${c} `),
  replace_wrep: text => text.replace(new RegExp(`(?:\\s|^)(${W}+)\\s+((?:\\1\\s+)+)\\1(\\s|(?!${W}).|$)`, 'gu'),
                                     (_, word, more, end) => ` xxwrep ${more.trim().split(/\s+/).length + 2} ${word} ${end}`),
  spec_add_spaces: text => text.replace(/[/#\\]/g, ' $& '),
  rm_useless_spaces: text => text.replace(/ {2,}/g, ' '),
  replace_all_caps: marking('xxup', /(\s|^)([A-Z]+[^a-z\s]*)(?=\s|$)/g),
  replace_maj: marking('xxmaj', /(\s|^)([A-Z][^A-Z\s]*)(?=\s|$)/g),
  lowercase: text => `xxbos ${text.toLowerCase().trim()}`,
}

// Nearly spaCy's cuts: n't and 's are words, numbers with points stay whole, each other sign is a word
const CUTS = new RegExp(`[\\p{L}_]+?(?=n['’]t(?!${W}))|n['’]t(?!${W})|['’](?:s|re|ve|ll|d|m)(?!${W})|\\p{N}+(?:[.,]\\p{N}+)+|${W}+|[^\\s]`, 'gu')

// A prompt as words of the vocabulary: {ids, unknown}. `about` has vocab, rules (names of fastai's) and split (the letter that
// separates words, or null where spaCy cuts them)
export function read(text, { vocab, split, rules }) {
  const numbers = new Map(vocab.map((w, i) => [w, i]))
  const marked = rules.reduce((t, rule) => RULES[rule](t), text)
  const cut = piece => numbers.has(piece) ? [piece] : piece.match(CUTS)
  const words = split !== null ? marked.split(split) : marked.split(/\s+/).filter(Boolean).flatMap(cut)
  return { ids: words.map(w => numbers.get(w) ?? 0), unknown: [...new Set(words.filter(w => !numbers.has(w)))] }
}

// Words as they read, with the number of tokens that each took: fastai's marks are applied to the word behind them
export function* pieces(tokens) {
  let marks = [], taken = 0
  for (const t of tokens) {
    taken++
    const last = marks.at(-1)
    if (['xxmaj', 'xxup', 'xxrep', 'xxwrep'].includes(t)) marks = [...marks.filter(m => m.name !== t), { name: t, n: null }]
    else if (last && ['xxrep', 'xxwrep'].includes(last.name) && last.n === null && /^\d+$/.test(t)) last.n = Math.min(+t, 100)   // a strange text must not fill the memory
    else {
      yield [['xxbos', 'xxpad'].includes(t) ? '' : marked(t, marks), taken]
      taken = 0
      if (!['xxbos', 'xxpad'].includes(t)) marks = []
    }
  }
}

function marked(word, marks) {
  let words = [word]
  for (const { name, n } of marks.toReversed()) {
    if (name === 'xxup') words[0] = words[0].toUpperCase()
    else if (name === 'xxmaj') words[0] = words[0].slice(0, 1).toUpperCase() + words[0].slice(1)
    else if (n && name === 'xxrep') words[0] = words[0].repeat(n)
    else if (n) words = Array(n).fill(words).flat()
  }
  return words.join(' ')
}

// Goes on from `ids`: yields null for each word of the prompt that it reads, then {word, p, top, before, after}: p is the model's
// own probability, `top` the ten likeliest as [word, p], `before` the state before it read the word `after`
export function* goOn(voice, ids, silent, { words = 50, seed = null, ...how } = {}) {
  const uniform = seed === null ? Math.random : twister(seed)
  voice.forget()
  for (const i of ids.slice(0, -1)) {
    voice.hear(i)
    yield null
  }
  yield* onwards(voice, ids.at(-1), silent, { words, uniform, ...how })
}

export function* onwards(voice, last, silent, { words, uniform, temperature = 1, ...filters }) {
  for (let n = 0; n < words; n++) {
    const before = voice.state(), scores = voice.step(last), own = softmax(scores)
    for (const i of silent) scores[i] = -Infinity
    const word = temperature === 0 ? likeliest(scores, 1)[0] : draw(filtered(scores, { temperature, ...filters }), uniform())
    yield { word, p: own[word], top: likeliest(own, 10).map(i => [i, own[i]]), before, after: last }
    last = word
  }
}
