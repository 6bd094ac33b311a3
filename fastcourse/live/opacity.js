// The slider over the map: the picture below, the map above it, as strong as the slider says.
element.addEventListener('input', e => element.style.setProperty('--opacity', e.target.value / 100))
