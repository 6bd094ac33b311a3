// The picture panel in the browser: a file, a drop, a paste, the camera or an example becomes one event. No picture is
// uploaded as a file: it travels inside the event, so the server has nothing to put on its disk.
const most = Number(element.querySelector('.fc-take').dataset.most)
const find = name => element.querySelector(name)
const tell = id => { for (const o of element.querySelectorAll('[data-tell]')) o.hidden = o.dataset.tell !== id }
const shown = () => element.offsetParent !== null // not in a tab that is behind another

function send(file) {
  stop()
  if (!file) return tell('none')
  if (file.size > most) return tell('large')
  const reader = new FileReader()
  reader.onload = () => { tell(''); trigger('look', { picture: reader.result.split(',')[1] ?? '' }) }
  reader.onerror = () => tell('unread')
  reader.readAsDataURL(file)
}

// The camera runs for one picture. Whoever chooses anything else ends it, also while the browser still asks for leave.
let camera = null, turn = 0
const end = stream => { for (const o of stream?.getTracks() ?? []) o.stop() }
const show = on => { find('video').hidden = find('.fc-snap').hidden = !on }

function stop() {
  turn++
  end(camera)
  find('video').srcObject = camera = null
  show(false)
}

async function film() {
  if (camera) return stop()
  const mine = ++turn
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } })
    if (mine !== turn) return end(stream)
    find('video').srcObject = camera = stream
    await find('video').play()
  } catch {
    if (mine === turn) { stop(); tell('camera') }
    return
  }
  tell('')
  show(true)
  find('.fc-snap').focus()
}

function snap() {
  const video = find('video'), canvas = document.createElement('canvas')
  canvas.width = video.videoWidth
  canvas.height = video.videoHeight
  canvas.getContext('2d').drawImage(video, 0, 0)
  stop()
  find('.fc-camera').focus() // the button that had it has gone
  canvas.toBlob(send, 'image/png')
}

element.addEventListener('change', e => {
  if (e.target.type !== 'file') return
  send(e.target.files[0])
  e.target.value = '' // the same file may be chosen again
})
element.addEventListener('click', e => {
  const button = e.target.closest('button')
  if (button?.matches('.fc-camera')) film()
  if (button?.matches('.fc-snap')) snap()
  if (button?.dataset.example) { stop(); tell(''); trigger('example', { number: Number(button.dataset.example) }) }
})
// anywhere on the page: a browser would leave the page for a picture that misses the field
document.addEventListener('dragover', e => { if (shown()) e.preventDefault() })
document.addEventListener('drop', e => {
  if (!shown()) return
  e.preventDefault()
  send(e.dataTransfer.files[0])
})
document.addEventListener('paste', e => {
  const field = e.target.closest?.('textarea, input, [contenteditable]')
  if (shown() && (e.clipboardData?.files[0] || !field)) send(e.clipboardData?.files[0])
})
new ResizeObserver(() => { if (!shown() && camera) stop() }).observe(element)
