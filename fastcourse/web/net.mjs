// Small networks of Embedding, Linear, Tanh, ReLU and Sigmoid: forward, backward, Adam. This file knows nothing of the page;
// tests/web/net.test.mjs runs it in node.
//
// A matrix is an array of rows. A layer is {kind: 'Embedding', w}, {kind: 'Linear', w, b} with w (outputs, inputs) and b or null,
// or {kind: 'Tanh' | 'ReLU' | 'Sigmoid'}.

const ACTIVATIONS = {
  Tanh: [Math.tanh, (x, y) => 1 - y * y],
  ReLU: [x => Math.max(x, 0), x => x > 0 ? 1 : 0],
  Sigmoid: [x => 1 / (1 + Math.exp(-x)), (x, y) => y * (1 - y)],
}
const zerosLike = m => m.map(row => row.map(() => 0))

// The outputs of all layers, the input first; x has codes (rows,) before an Embedding, else rows of numbers
export function outputs(layers, x) {
  const res = [x]
  for (const { kind, w, b } of layers) {
    const inp = res.at(-1)
    if (kind === 'Embedding') res.push(inp.map(code => [...w[code]]))
    else if (kind === 'Linear') res.push(inp.map(row => w.map((wo, o) => wo.reduce((s, v, i) => s + v * row[i], b ? b[o] : 0))))
    else res.push(inp.map(row => row.map(ACTIVATIONS[kind][0])))
  }
  return res
}

export function softmax(row) {
  const top = Math.max(...row), e = row.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b, 0)
  return e.map(v => v / sum)
}

// [mean loss, its gradient for each output]: torch's means
const LOSSES = {
  CrossEntropyLoss(out, y) {
    const p = out.map(softmax), n = out.length
    return [-p.reduce((s, row, r) => s + Math.log(Math.max(row[y[r]], 1e-300)), 0) / n,
            p.map((row, r) => row.map((v, k) => (v - (k === y[r])) / n))]
  },
  MSELoss(out, y) {
    const n = out.length * out[0].length
    return [out.reduce((s, row, r) => s + row.reduce((a, v, k) => a + (v - y[r][k]) ** 2, 0), 0) / n,
            out.map((row, r) => row.map((v, k) => 2 * (v - y[r][k]) / n))]
  },
  BCEWithLogitsLoss(out, y) {
    const n = out.length * out[0].length
    return [out.reduce((s, row, r) => s + row.reduce((a, v, k) => a + Math.max(v, 0) - v * y[r][k] + Math.log1p(Math.exp(-Math.abs(v))), 0), 0) / n,
            out.map((row, r) => row.map((v, k) => (ACTIVATIONS.Sigmoid[0](v) - y[r][k]) / n))]
  },
  BCELoss(out, y) {
    const n = out.length * out[0].length, log = v => Math.max(Math.log(v), -100)   // torch stops at -100
    return [out.reduce((s, row, r) => s - row.reduce((a, v, k) => a + y[r][k] * log(v) + (1 - y[r][k]) * log(1 - v), 0), 0) / n,
            out.map((row, r) => row.map((v, k) => (v - y[r][k]) / Math.max(v * (1 - v), 1e-12) / n))]
  },
}

export const losses = Object.keys(LOSSES)

// {loss, grads}: for each layer {w, b} or null
export function gradients(layers, x, y, lossName) {
  const outs = outputs(layers, x), [loss, last] = LOSSES[lossName](outs.at(-1), y), grads = []
  let g = last
  for (let l = layers.length - 1; l >= 0; l--) {
    const { kind, w, b } = layers[l], inp = outs[l], out = outs[l + 1]
    if (kind === 'Embedding') {
      const gw = zerosLike(w)
      inp.forEach((code, r) => g[r].forEach((v, k) => { gw[code][k] += v }))
      grads[l] = { w: gw, b: null }
    } else if (kind === 'Linear') {
      const gw = zerosLike(w)
      g.forEach((row, r) => row.forEach((v, o) => inp[r].forEach((i, k) => { gw[o][k] += v * i })))
      grads[l] = { w: gw, b: b && b.map((_, o) => g.reduce((s, row) => s + row[o], 0)) }
      g = g.map(row => inp[0].map((_, k) => row.reduce((s, v, o) => s + v * w[o][k], 0)))
    } else {
      grads[l] = null
      const slope = ACTIVATIONS[kind][1]
      g = g.map((row, r) => row.map((v, k) => v * slope(inp[r][k], out[r][k])))
    }
  }
  return { loss, grads }
}

// Adam: `decay` is fastai's weight decay, which shrinks weights but not biases before the step
export class Adam {
  constructor(layers, { lr, betas = [0.9, 0.99], eps = 1e-5, decay = 0.01 }) {
    Object.assign(this, { layers, lr, betas, eps, decay, step: 0 })
    this.memory = layers.map(({ w, b }) => w && { w: [zerosLike(w), zerosLike(w)], b: b && [b.map(() => 0), b.map(() => 0)] })
  }

  update(grads) {
    this.step++
    const [b1, b2] = this.betas, d1 = 1 - b1 ** this.step, d2 = 1 - b2 ** this.step
    const one = (p, g, [m, v], decay) => {
      for (let i = 0; i < p.length; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i]
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
        p[i] = p[i] * (1 - this.lr * decay) - this.lr * (m[i] / d1) / (Math.sqrt(v[i] / d2) + this.eps)
      }
    }
    this.layers.forEach(({ w, b }, l) => {
      if (!w) return
      const [m, v] = this.memory[l].w
      w.forEach((row, r) => one(row, grads[l].w[r], [m[r], v[r]], this.decay))
      if (b) one(b, grads[l].b, this.memory[l].b, 0)
    })
  }
}

// Trains `layers` in place for `epochs` full batches: the loss of each epoch, before its step
export function train(layers, x, y, lossName, adam, epochs) {
  const res = []
  for (let e = 0; e < epochs; e++) {
    const { loss, grads } = gradients(layers, x, y, lossName)
    adam.update(grads)
    res.push(loss)
  }
  return res
}
