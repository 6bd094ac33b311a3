// The picture panel in the browser: a file, a drop, a paste, the camera or an example becomes one event. No picture is
// uploaded as a file: it travels inside the event, so the server has nothing to put on its disk.
const most = Number(element.querySelector('.fc-take').dataset.most)
const find = name => element.querySelector(name)
const tell = id => { for (const o of element.querySelectorAll('[data-tell]')) o.hidden = o.dataset.tell !== id }
let camera = null

function send(file) {
  if (!file) return
  if (file.size > most) return tell('large')
  const reader = new FileReader()
  reader.onload = () => { tell(''); trigger('look', { picture: reader.result.split(',')[1] ?? '' }) }
  reader.onerror = () => tell('unread')
  reader.readAsDataURL(file)
}

function stop() {
  for (const o of camera?.getTracks() ?? []) o.stop()
  camera = null
  find('video').hidden = find('.fc-snap').hidden = true
}

async function film() {
  if (camera) return stop()
  try { camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } }) }
  catch { return tell('camera') }
  tell('')
  find('video').srcObject = camera
  find('video').hidden = find('.fc-snap').hidden = false
  await find('video').play()
  find('.fc-snap').focus()
}

function snap() {
  const video = find('video'), canvas = document.createElement('canvas')
  canvas.width = video.videoWidth
  canvas.height = video.videoHeight
  canvas.getContext('2d').drawImage(video, 0, 0)
  stop()
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
  if (button?.dataset.example) trigger('example', { number: Number(button.dataset.example) })
})
element.addEventListener('dragover', e => e.preventDefault())
element.addEventListener('drop', e => { e.preventDefault(); send(e.dataTransfer.files[0]) })
document.addEventListener('paste', e => { if (element.offsetParent !== null) send(e.clipboardData?.files[0]) })
