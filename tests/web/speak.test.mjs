// node --test tests/web
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { draw, filtered, likeliest, pieces, read, softmax, twister, unpack, Voice } from '../../fastcourse/web/speak.mjs'

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

test('a draw at u', () => { assert.deepEqual([0, 0.49, 0.5, 0.99].map(u => draw([1, 0, 1], u)), [0, 0, 2, 2]) })

test('marks are for the word behind them', () => {
  const words = t => [...pieces(t.split(' '))].map(([w]) => w)
  assert.deepEqual(words('xxmaj one xxup two xxrep 3 ! xxwrep 2 la xxbos end'), ['One', 'TWO', '!!!', 'la la', '', 'end'])
})

test('a prompt as words of the vocabulary', () => {
  const about = { vocab: ['xxunk', 'xxbos', 'xxmaj', 'xxup', 'one', ',', '고양이'], split: null, marks: true }
  assert.deepEqual(read('One, ONE dog 고양이', about), { ids: [1, 2, 4, 5, 3, 4, 0, 6], unknown: ['dog'] })
  assert.deepEqual(read('one|,', { ...about, split: '|', marks: false }).ids, [1, 4, 5])
})

test('the twister is in range and depends on the seed', () => {
  const a = twister(1), b = twister(1), c = twister(2)
  const x = Array.from({ length: 1000 }, a)
  assert.ok(x.every(u => u >= 0 && u < 1))
  assert.deepEqual(x, Array.from({ length: 1000 }, b))
  assert.notEqual(x[0], c())
})
