import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Adam, gradients, losses, outputs, train } from '../../fastcourse/web/net.mjs'

const stack = () => [{ kind: 'Embedding', w: [[0.5, -1], [2, 0.25], [-0.3, 0.8]] }, { kind: 'Tanh' }, { kind: 'Linear', w: [[1, 2], [0.5, -1], [-2, 0.1]], b: [0.1, 0, -0.2] }]

test('outputs by hand', () => {
  const out = outputs([{ kind: 'Linear', w: [[1, -2]], b: [3] }, { kind: 'ReLU' }], [[1, 1], [0, 4]])
  assert.deepEqual(out.slice(1), [[[2], [-5]], [[2], [0]]])
})

// each gradient against a difference quotient, for every loss and activation
for (const loss of losses) for (const last of ['Tanh', 'ReLU', 'Sigmoid']) test(`gradient of ${loss} behind ${last}`, () => {
  const layers = stack(), classes = loss === 'CrossEntropyLoss'
  layers[1].kind = last
  if (loss === 'BCELoss') layers.push({ kind: 'Sigmoid' })
  const x = [0, 1, 2, 1], y = classes ? [0, 1, 2, 2] : [[1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 0]]
  const { grads } = gradients(layers, x, y, loss), eps = 1e-6
  for (const [l, { w, b }] of layers.entries()) for (const [rows, g] of [[w, grads[l]?.w], [b && [b], grads[l]?.b && [grads[l].b]]]) {
    rows?.forEach((row, r) => row.forEach((v, k) => {
      row[k] = v + eps
      const above = gradients(layers, x, y, loss).loss
      row[k] = v - eps
      const below = gradients(layers, x, y, loss).loss
      row[k] = v
      assert.ok(Math.abs((above - below) / (2 * eps) - g[r][k]) < 1e-6, `layer ${l}, ${r}, ${k}`)
    }))
  }
})

test('the first step of Adam is lr in the direction of the gradient, and biases do not decay', () => {
  const layers = [{ kind: 'Linear', w: [[2]], b: [2] }]
  new Adam(layers, { lr: 0.1, eps: 0, decay: 0.5 }).update([{ w: [[3]], b: [-7] }])
  assert.ok(Math.abs(layers[0].w[0][0] - (2 * 0.95 - 0.1)) < 1e-12)
  assert.ok(Math.abs(layers[0].b[0] - 2.1) < 1e-12)
})

test('training lowers the loss', () => {
  const layers = stack(), told = train(layers, [0, 1, 2], [1, 2, 0], 'CrossEntropyLoss', new Adam(layers, { lr: 0.1 }), 50)
  assert.ok(told.at(-1) < told[0] / 4)
})
