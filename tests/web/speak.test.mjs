// node --test tests/web
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { draw, filtered, goOn, likeliest, pieces, read, softmax, twister, unpack, Voice } from '../../fastcourse/web/speak.mjs'

const base64 = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes)))

test('16 bits: one, minus two, the largest, the smallest, infinity', () => {
  const halves = new Uint16Array([0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00])
  const { a } = unpack({ tensors: [{ name: 'a', shape: [5] }] }, base64(halves.buffer))
  assert.deepEqual([...a.data], [1, -2, 65504, 2 ** -24, Infinity])
})

test('8 bits have a scale for each row, and may be followed by 16 bits at an odd place', () => {
  const bytes = new Uint8Array([127, 129, 64, 0x00, 0x3c])
  const { q, b } = unpack({ tensors: [{ name: 'q', shape: [3, 1], scales: [1, 2, 0.5] }, { name: 'b', shape: [1] }] }, base64(bytes.buffer))
  assert.deepEqual([[...q.data], [...b.data]], [[127, -254, 32], [1]])
})

test('one step of an LSTM with one unit, by hand', () => {
  const t = (shape, data) => ({ shape, data: Float32Array.from(data) })
  const voice = new Voice({ '0.encoder.weight': t([2, 1], [0, 1]), '1.decoder.bias': t([2], [0.5, 0]), '0.rnns.0.weight_hh_l0_raw': t([4, 1], [0, 0, 0, 0]),
    '0.rnns.0.module.weight_ih_l0': t([4, 1], [1, 0, 2, 0]), '0.rnns.0.module.bias_ih_l0': t([4], [0, 0, 0, 1]), '0.rnns.0.module.bias_hh_l0': t([4], [0, 0, 0, 1]) })
  const s = x => 1 / (1 + Math.exp(-x)), c = s(1) * Math.tanh(2), h = s(2) * Math.tanh(c)
  const scores = voice.step(1)
  assert.ok(Math.abs(scores[0] - 0.5) < 1e-6 && Math.abs(scores[1] - h) < 1e-6)
  const state = voice.state(), next = [...voice.step(0)]
  voice.goTo(state)
  assert.deepEqual([...voice.step(0)], next)
  const steps = [...goOn(voice, [0, 0, 1], new Set(), { words: 4, temperature: 0 })]
  assert.deepEqual(steps.slice(0, 2), [null, null])   // two words of the prompt before the last
  assert.equal(steps.length, 6)
  voice.goTo(steps[4].before)
  assert.deepEqual(softmax(voice.step(steps[4].after))[steps[4].word], steps[4].p)
  assert.deepEqual(steps[4].top.map(([, p]) => p).reduce((a, b) => a + b), 1)
})

test('filters keep what they promise', () => {
  const scores = [0.5, 0.25, 0.125, 0.125].map(Math.log), kept = how => [...filtered(scores, how)].map(v => v > 0)
  assert.deepEqual(kept({ topK: 3 }), [true, true, true, false])   // of equal ones the lower number
  assert.deepEqual(kept({ topP: 0.6 }), [true, true, false, false])
  assert.deepEqual(kept({ minP: 0.5 }), [true, true, false, false])
  assert.deepEqual(kept({ topP: 1 }), [true, true, true, true])
  const sharp = filtered(scores, { temperature: 0.5 })
  assert.ok(Math.abs(sharp[1] / sharp[0] - 0.25) < 1e-12)
  assert.ok(Math.abs(softmax([1000, 1000])[0] - 0.5) < 1e-12)
  assert.deepEqual(likeliest([1, 3, 3], 2), [1, 2])
})

test('filters agree with the plain definition, ties too', () => {
  const u = twister(3), sorted = v => Array.from(v.keys()).sort((a, b) => v[b] - v[a] || a - b)
  for (let run = 0; run < 200; run++) {
    const scores = Float32Array.from({ length: 1 + Math.floor(12 * u()) }, () => Math.floor(4 * u())), n = scores.length
    const order = sorted(scores), all = [...filtered(scores)], sum = all.reduce((a, b) => a + b, 0)
    const kept = how => [...filtered(scores, how)].flatMap((v, i) => v > 0 ? [i] : [])
    const k = 1 + Math.floor(n * u()), p = 0.01 + 0.98 * u()
    assert.deepEqual(likeliest(scores, k), order.slice(0, k))
    assert.deepEqual(kept({ topK: k }), order.slice(0, k).sort((a, b) => a - b))
    let before = 0
    const needed = order.filter((i, place) => {
      const take = place === 0 || before < p - 1e-12
      before += all[i] / sum
      return take
    })
    assert.deepEqual(kept({ topP: p }), needed.sort((a, b) => a - b))
  }
})

test('a draw at u', () => { assert.deepEqual([0, 0.49, 0.5, 0.99].map(u => draw([1, 0, 1], u)), [0, 0, 2, 2]) })

test('marks are for the word behind them', () => {
  const words = t => [...pieces(t.split(' '))].map(([w]) => w)
  assert.deepEqual(words('xxmaj one xxup two xxrep 3 ! xxwrep 2 la xxbos end'), ['One', 'TWO', '!!!', 'la la', '', 'end'])
})

test('a prompt as words of the vocabulary', () => {
  const rules = ['replace_rep', 'replace_wrep', 'rm_useless_spaces', 'replace_all_caps', 'replace_maj', 'lowercase']
  const words = (text, about) => {
    const vocab = ['xxunk', 'xxbos', 'xxmaj', 'xxup', 'xxrep', 'xxwrep', '3', '4', 'one', ',', '!', '고양이']
    return read(text, { vocab, split: null, rules, ...about }).ids.map(i => vocab[i]).join(' ')
  }
  assert.equal(words('One, ONE dog 고양이'), 'xxbos xxmaj one , xxup one xxunk 고양이')
  assert.equal(words('one!!! one one one one'), 'xxbos one xxrep 3 ! xxwrep 4 one')
  assert.equal(words('one|,', { split: '|', rules: [] }), 'one ,')
  assert.deepEqual(read('a b a', { vocab: ['xxunk'], split: ' ', rules: [] }).unknown, ['a', 'b'])
})

test('the twister is in range and depends on the seed', () => {
  const a = twister(1), b = twister(1), c = twister(2)
  const x = Array.from({ length: 1000 }, a)
  assert.ok(x.every(u => u >= 0 && u < 1))
  assert.deepEqual(x, Array.from({ length: 1000 }, b))
  assert.notEqual(x[0], c())
})
