// A word-level AWD LSTM speaks. This file knows nothing of the page; tests/web/speak.test.mjs runs it in node.

const bytesOf = base64 => Uint8Array.from(atob(base64), c => c.charCodeAt(0))

function half(h) {
  const sign = h & 0x8000 ? -1 : 1, exponent = h >> 10 & 31, fraction = h & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (exponent < 31 ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction ? NaN : Infinity)
}

// Tensors by name, each {shape, data: Float32Array}. `about.tensors` tells name, shape and, for int8, the scale of each row.
export function unpack(about, base64) {
  const bytes = bytesOf(base64), res = {}
  let at = 0
  for (const { name, shape, scales } of about.tensors) {
    const n = shape.reduce((a, b) => a * b, 1), data = new Float32Array(n)
    if (scales) {
      const q = new Int8Array(bytes.buffer, at, n), width = n / shape[0]
      for (let i = 0; i < n; i++) data[i] = q[i] * scales[Math.floor(i / width)]
      at += n
    } else {
      const view = new DataView(bytes.buffer, at, 2 * n)
      for (let i = 0; i < n; i++) data[i] = half(view.getUint16(2 * i, true))
      at += 2 * n
    }
    res[name] = { shape, data }
  }
  return res
}

const sigmoid = x => 1 / (1 + Math.exp(-x))

// out[r] = bias[r] + row r of w (rows, width) times x
function product(w, width, x, bias, out) {
  for (let r = 0, k = 0; r < out.length; r++) {
    let sum = 0
    for (let j = 0; j < width; j++) sum += w[k++] * x[j]
    out[r] = sum + (bias ? bias[r] : 0)
  }
}

// An AWD LSTM that has read some words. `step(word)` reads one more and gives the scores of the next.
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
      this.layers.push({ ih, hh, bias, size, h: new Float32Array(size), c: new Float32Array(size),
                         fromX: new Float32Array(4 * size), fromH: new Float32Array(4 * size) })
    }
  }

  step(word) {
    const width = this.emb.shape[1]
    let x = this.emb.data.subarray(word * width, (word + 1) * width)
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
    const scores = new Float32Array(this.out.shape[0])
    product(this.out.data, this.out.shape[1], x, this.bias, scores)
    return scores
  }

  state() { return this.layers.map(({ h, c }) => [h.slice(), c.slice()]) }
  goTo(state) { this.layers.forEach((layer, l) => { layer.h.set(state[l][0]); layer.c.set(state[l][1]) }) }
  forget() { for (const { h, c } of this.layers) { h.fill(0); c.fill(0) } }
}

export function softmax(scores, temperature = 1) {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity)
  const res = Float64Array.from(scores, s => Math.exp((s - top) / temperature))
  const sum = res.reduce((a, b) => a + b, 0)
  return res.map(p => p / sum)
}

// The numbers of the k largest, the largest first; of equal ones the lower number first
export function likeliest(values, k) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b).slice(0, k)
}

// What temperature and filters leave of the words, as in fastcourse's generate: (words,), not normalised
export function filtered(scores, { temperature = 1, topK = null, topP = null, minP = null } = {}) {
  const order = likeliest(scores, scores.length), res = new Float64Array(scores.length), first = scores[order[0]]
  const top = order.map(i => Math.exp((scores[i] - first) / temperature))
  if (topK !== null) top.fill(0, topK)
  if (topP !== null && topP < 1) {
    const sum = top.reduce((a, b) => a + b, 0)
    for (let i = 0, before = 0; i < top.length; i++) {
      const p = top[i] / sum
      if (i && before >= topP) top[i] = 0   // the words before it are enough already
      before += p
    }
  }
  order.forEach((word, i) => { res[word] = minP !== null && top[i] < minP ? 0 : top[i] })
  return res
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

// A prompt as words of the vocabulary: {ids, unknown}. `about` has vocab, split (the letter that separates, or null) and marks
// (whether fastai's marks of capitals are used).
export function read(text, { vocab, split, marks }) {
  const numbers = new Map(vocab.map((w, i) => [w, i])), words = ['xxbos']
  const pieces = split !== null ? text.split(split) : text.trim().match(/[\p{L}\p{N}_'’]+|[^\s\p{L}\p{N}_]/gu) ?? []
  for (const piece of pieces.filter(o => o.length)) {
    const upper = piece.toUpperCase() === piece && piece.toLowerCase() !== piece && piece.length > 1
    const capital = !upper && /^\p{Lu}/u.test(piece) && piece.length > 1
    if (marks && upper) words.push('xxup')
    if (marks && capital) words.push('xxmaj')
    words.push(marks ? piece.toLowerCase() : piece)
  }
  return { ids: words.map(w => numbers.get(w) ?? 0), unknown: [...new Set(words.filter(w => !numbers.has(w)))] }
}

// Words as they read, with the number of tokens that each took: fastai's marks are applied to the word behind them
export function* pieces(tokens) {
  let marks = [], taken = 0
  for (const t of tokens) {
    taken++
    const last = marks.at(-1)
    if (['xxmaj', 'xxup', 'xxrep', 'xxwrep'].includes(t)) marks = [...marks.filter(m => m.name !== t), { name: t, n: null }]
    else if (last && ['xxrep', 'xxwrep'].includes(last.name) && last.n === null && /^\d+$/.test(t)) last.n = Math.min(+t, 1000)
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

// Goes on from `ids`: yields {word, p, scores, before}, p the model's own probability, `before` the state to go back to
export function* goOn(voice, ids, silent, { words = 50, seed = null, ...how } = {}) {
  const uniform = seed === null ? Math.random : twister(seed)
  voice.forget()
  for (const i of ids.slice(0, -1)) voice.step(i)
  yield* onwards(voice, ids.at(-1), silent, { words, uniform, ...how })
}

export function* onwards(voice, last, silent, { words, uniform, temperature = 1, topK = null, topP = null, minP = null }) {
  for (let n = 0; n < words; n++) {
    const before = voice.state(), scores = voice.step(last), own = softmax(scores)
    const allowed = scores.map((s, i) => silent.has(i) ? -Infinity : s)
    const word = temperature === 0 ? likeliest(allowed, 1)[0] : draw(filtered(allowed, { temperature, topK, topP, minP }), uniform())
    yield { word, p: own[word], scores: own, before, after: last }
    last = word
  }
}
