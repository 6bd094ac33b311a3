// A button with a number was pressed.
element.addEventListener('click', e => {
  const button = e.target.closest('button[data-at]')
  if (button) trigger('pick', { at: Number(button.dataset.at) })
})
